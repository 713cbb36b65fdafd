"""A cache backend under examination, whatever its manners.

The checks are written once, for a `Subject`; it drives backends that are synchronous or async,
that show what was put at once or after a flush, in virtual or in real time.
"""

import asyncio
import enum
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from time import sleep
from typing import Any, Final, NamedTuple, Protocol, final

import msgspec

from paceline.clock import SystemClock
from paceline.testing.virtual_time import VirtualClock, VirtualTimeLoop

__all__ = [
    "FOREVER_NS",
    "HOUR_NS",
    "AsyncBackend",
    "Backend",
    "Do",
    "Factory",
    "Manners",
    "Script",
    "Step",
    "StoredValue",
    "Subject",
]

HOUR_NS: Final = 3_600_000_000_000
FOREVER_NS: Final = 2**62

_VIRTUAL_UNIT_NS: Final = 1_000_000_000
_REAL_UNIT_NS: Final = 50_000_000
_ROUNDING_NS: Final = 5_000_000
"""A server may keep lifetimes in milliseconds."""
_PATIENCE_S: Final = 60.0


class StoredValue(Protocol):
    """What a backend finds; it may also tell `remaining_ns`, the rest of the lifetime."""

    @property
    def value(self) -> Any:
        """The bytes that were stored."""
        ...


class Backend(Protocol):
    """What a cache backend does. Keys are 32 bytes, values any bytes, lifetimes nanoseconds.

    It may also have `flush()`, which waits until what was put can be read (and may return False
    when it gives up), and `close()`.
    """

    def get(self, key: bytes, /) -> StoredValue | None:
        """The valid value under this key, or None."""
        ...

    def put(self, key: bytes, value: bytes, ttl_ns: int, /) -> object:
        """Stores a value in place of what was there; with a lifetime of 0, removes that."""
        ...

    def delete(self, key: bytes, /) -> object:
        """Removes a value, for all reads from now on."""
        ...

    def clear(self) -> object:
        """Removes all values, for all reads from now on."""
        ...


class AsyncBackend(Protocol):
    """The same with awaitable methods."""

    def get(self, key: bytes, /) -> Awaitable[StoredValue | None]:
        """The valid value under this key, or None."""
        ...

    def put(self, key: bytes, value: bytes, ttl_ns: int, /) -> Awaitable[object]:
        """Stores a value in place of what was there; with a lifetime of 0, removes that."""
        ...

    def delete(self, key: bytes, /) -> Awaitable[object]:
        """Removes a value, for all reads from now on."""
        ...

    def clear(self) -> Awaitable[object]:
        """Removes all values, for all reads from now on."""
        ...


Factory = Callable[[Path, Any], Any]
"""Makes a backend, or an awaitable of one, from a directory of its own and a clock."""


class Manners(msgspec.Struct, frozen=True):
    """How a backend behaves within its promises; see `check_cache_backend`."""

    eventual: bool = False
    persistent: bool = False
    real_time: bool = False


class Do(enum.Enum):
    """What a script can ask for. MEET waits until every script of the run has come so far."""

    GET = enum.auto()
    PUT = enum.auto()
    DELETE = enum.auto()
    CLEAR = enum.auto()
    SETTLE = enum.auto()
    MEET = enum.auto()


class Step(NamedTuple):
    """One thing done to a backend."""

    do: Do
    key: bytes = b""
    value: bytes = b""
    ttl_ns: int = HOUR_NS


Script = Generator[Step, bytes | None, None]
"""What one caller does; it is sent what each of its steps found."""


@final
class Subject:
    """A backend, opened, and the time it lives in.

    Lifetimes are counted in units: a virtual second, or 50 ms of real time.
    """

    def __init__(self, factory: Factory, directory: Path, manners: Manners) -> None:
        self.manners = manners
        self.clock = SystemClock() if manners.real_time else VirtualClock()
        self.unit_ns = _REAL_UNIT_NS if manners.real_time else _VIRTUAL_UNIT_NS
        self._factory = factory
        self._directory = directory
        self._runner = asyncio.Runner(
            loop_factory=None if manners.real_time else VirtualTimeLoop,
        )
        self._lasts: dict[bytes, int] = {}  # until when a value surely lives, in real time
        try:
            self._backend = self._open()
        except BaseException:
            self._runner.close()
            raise
        self.is_async = inspect.iscoroutinefunction(self._backend.get)

    def get(self, key: bytes) -> bytes | None:
        """The value that is found."""
        return self._do(Step(Do.GET, key))

    def look(self, key: bytes) -> Any:
        """What is found, as the backend gives it."""
        return self._await(self._backend.get, key)

    def put(self, key: bytes, value: bytes, units: float = 3_600) -> None:
        """Stores a value for so many units and waits until it can be read."""
        self.begin_put(key, value, units)
        self.settle()

    def begin_put(self, key: bytes, value: bytes, units: float = 3_600) -> None:
        """Stores a value, but does not wait."""
        ttl_ns = min(round(units * self.unit_ns), FOREVER_NS)
        self._lasts[key] = self.clock.monotonic_ns() + ttl_ns
        self._do(Step(Do.PUT, key, value, ttl_ns))

    def delete(self, key: bytes) -> None:
        """Removes a value."""
        self._do(Step(Do.DELETE, key))

    def clear(self) -> None:
        """Removes all values."""
        self._do(Step(Do.CLEAR))

    def settle(self) -> None:
        """Waits until all that was put can be read."""
        self._do(Step(Do.SETTLE))

    def expect(self, key: bytes, value: bytes | None) -> None:
        """Asserts what is found. A value that may have ended, time being real, may be missing."""
        found = self.get(key)
        if found is None and self.manners.real_time:
            late = self.clock.monotonic_ns() >= self._lasts.get(key, 0)
            if late:
                return
        assert found == value, f"found {_brief(found)} where {_brief(value)} was due"

    def advance(self, units: float) -> None:
        """Lets time pass."""
        if isinstance(self.clock, VirtualClock):
            self.clock.advance(units * self.unit_ns / 1e9)
            return
        wait_s = (units * self.unit_ns + _ROUNDING_NS) / 1e9
        if self.is_async:
            self._runner.run(asyncio.sleep(wait_s))  # what the backend does meanwhile goes on
        else:
            sleep(wait_s)

    def reopen(self) -> None:
        """Closes the backend and opens another one on the same directory."""
        self.settle()
        self._close()
        self._backend = self._open()

    def together(self, scripts: Sequence[Script]) -> None:
        """Runs scripts at once: a thread for each, or a task where the backend is async.

        Raises what the first one of them to fail raised.
        """
        if self.is_async:
            self._runner.run(self._tasks(scripts))
        else:
            self._threads(scripts)

    def close(self) -> None:
        """Closes the backend and its event loop."""
        try:
            self._close()
        finally:
            self._runner.close()

    def _open(self) -> Any:
        return self._await(self._factory, self._directory, self.clock)

    def _close(self) -> None:
        close = getattr(self._backend, "close", None)
        if close is not None:
            self._await(close)

    def _await(self, function: Callable[..., Any], *args: Any) -> Any:
        """A call's result; an async function's from the subject's event loop."""
        if not inspect.iscoroutinefunction(function):
            return function(*args)
        return self._runner.run(function(*args))

    def _begin(self, step: Step) -> Any:
        backend = self._backend
        match step.do:
            case Do.GET:
                return backend.get(step.key)
            case Do.PUT:
                return backend.put(step.key, step.value, step.ttl_ns)
            case Do.DELETE:
                return backend.delete(step.key)
            case Do.CLEAR:
                return backend.clear()
            case Do.SETTLE:
                return backend.flush() if self.manners.eventual else None
            case Do.MEET:
                return None

    def _do(self, step: Step) -> bytes | None:
        if self.is_async:
            return self._runner.run(self._do_async(step))
        return _result(step, self._begin(step))

    async def _do_async(self, step: Step) -> bytes | None:
        result = self._begin(step)
        return _result(step, await result if inspect.isawaitable(result) else result)

    def _threads(self, scripts: Sequence[Script]) -> None:
        barrier = threading.Barrier(len(scripts))
        failures: list[Exception] = []

        def play(script: Script) -> None:
            answer = None
            try:
                while (step := _next(script, answer)) is not None:
                    if step.do is Do.MEET:
                        answer = None
                        barrier.wait(_PATIENCE_S)
                    else:
                        answer = _result(step, self._begin(step))
            except Exception as exc:  # noqa: BLE001 (raised again by who waits)
                failures.append(exc)
                barrier.abort()

        threads = [threading.Thread(target=play, args=(s,), daemon=True) for s in scripts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_PATIENCE_S)
        assert not any(t.is_alive() for t in threads), f"not done after {_PATIENCE_S:.0f} s"
        if failures:
            raise failures[0]

    async def _tasks(self, scripts: Sequence[Script]) -> None:
        barrier = asyncio.Barrier(len(scripts))

        async def play(script: Script) -> None:
            answer = None
            while (step := _next(script, answer)) is not None:
                if step.do is Do.MEET:
                    answer = None
                    await barrier.wait()
                else:
                    answer = await self._do_async(step)
                    await asyncio.sleep(0)

        try:
            async with asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as group:
                for script in scripts:
                    group.create_task(play(script))
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from None


def _next(script: Script, answer: bytes | None) -> Step | None:
    try:
        return script.send(answer)
    except StopIteration:
        return None


def _result(step: Step, result: Any) -> bytes | None:
    if step.do is Do.SETTLE:
        assert result is not False, "flush gave up"
    if step.do is not Do.GET or result is None:
        return None
    return bytes(result.value)


def _brief(value: bytes | None) -> str:
    if value is None:
        return "nothing"
    return repr(value) if len(value) <= 40 else f"{value[:24]!r}... ({len(value):,} bytes)"
