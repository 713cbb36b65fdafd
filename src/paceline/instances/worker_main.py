"""The process of a worker: `python -m paceline.instances.worker_main FUNCTION CAPACITY MEMORY_MB`.

It takes orders from its standard input and answers on its standard output; what the function
prints goes to standard error. It ends when its input does, which is when its parent is gone,
whatever the function is doing.
"""

import asyncio
import contextvars
import functools
import importlib
import inspect
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast, final

import msgspec

from paceline.call import Tokens
from paceline.clock import SystemClock
from paceline.codec import decode, encode
from paceline.errors import AgentError, Category, CodecError
from paceline.instances.frames import (
    Answer,
    Cancel,
    Done,
    Failed,
    Frames,
    Order,
    Ping,
    Pong,
    Ready,
    Run,
    Unusable,
    Used,
    failed,
    frame,
)
from paceline.instances.named import lowered, types_of
from paceline.instances.process_usage import ProcessMeasure
from paceline.instances.raised import raised
from paceline.usage import Meter, Metering, Spent, metered

__all__ = ["main"]

_CHUNK: Final = 65_536
_GRACE_S: Final = 0.5
"""How long what runs has for an end of its own when the parent is gone."""


@final
class _Unpriced:
    """Prices nothing: the parent knows the prices."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def spent(self, model: str, tokens: Tokens, cost_usd: float | None = None) -> Spent:  # noqa: ARG002 (a Metering's)
        return Spent(tokens, cost_usd, cost_usd, 1)


@final
class _Worker:
    """Runs the function as often at once as it is told to."""

    def __init__(self, function: Callable[..., object], answers: "_Pipe", capacity: int) -> None:
        self._function = function
        self._threads = ThreadPoolExecutor(capacity, thread_name_prefix="paceline-worker")
        self._is_async = inspect.iscoroutinefunction(function)
        self._answers = answers
        self._running: dict[int, asyncio.Task[None]] = {}
        self._begun = 0
        self._clock = SystemClock()
        self._types = types_of(function)

    def take(self, order: Order) -> None:
        """On the event loop."""
        if isinstance(order, Ping):
            self._answers.send(Pong())
        elif isinstance(order, Cancel):
            task = self._running.get(order.id)
            if task is not None:
                task.cancel()
        else:
            self._begun += 1
            self._running[order.id] = asyncio.create_task(self._run(order))

    async def end(self) -> None:
        """Cancels all that runs, and waits for its end."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self, order: Run) -> None:
        def used(model: str, spent: Spent) -> None:
            self._answers.send(Used(order.id, model, spent.tokens, spent.cost_usd))

        begun = self._begun
        alone = order.by_name and len(self._running) == 1
        measure = ProcessMeasure(self._clock) if alone else None
        answer: Done | Failed
        try:
            with metered(Meter(cast("Metering", _Unpriced()), used)):
                value = await self._value(order)
            answer = Done(order.id, encode(lowered(value) if order.by_name else value))
        except CodecError as exc:
            answer = failed(order.id, exc)
        except asyncio.CancelledError:
            answer = failed(order.id, AgentError("cancelled", category=Category.CANCELLED))
        # The boundary of the function's code; SystemExit is its failure, not our end.
        except BaseException as exc:  # noqa: BLE001
            answer = failed(order.id, raised(order.name, exc))
        finally:
            self._running.pop(order.id, None)
        if measure is not None and begun == self._begun:  # nothing else ran
            answer = msgspec.structs.replace(answer, usage=measure.usage())
        self._answers.send(answer)

    async def _value(self, order: Run) -> object:
        context = cast("dict[str, Any]", decode(order.arguments))
        if order.by_name:
            call = functools.partial(self._function, **self._as_annotated(context))
        else:
            call = functools.partial(self._function, context.pop("query"), **context)
        value = call() if self._is_async else await self._in_thread(call)
        return await value if inspect.isawaitable(value) else value

    def _as_annotated(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            name: msgspec.convert(value, self._types[name]) if name in self._types else value
            for name, value in arguments.items()
        }

    async def _in_thread(self, call: Callable[[], object]) -> object:
        """In a thread, which cannot be stopped: cancelled, it is over when the function is."""

        def run() -> tuple[object, BaseException | None]:
            # Carried as a value: a future takes no StopIteration, and SystemExit ends a loop.
            try:
                return call(), None
            except BaseException as exc:  # noqa: BLE001 (as above)
                return None, exc

        ran = self._threads.submit(contextvars.copy_context().run, run)
        over = asyncio.wrap_future(ran)
        try:
            value, error = await asyncio.shield(over)
        except asyncio.CancelledError:
            if not ran.cancel():
                await asyncio.wait((over,))
            raise
        if error is not None:
            raise error
        return value


@final
class _Pipe:
    """Sends answers, from any thread, whole and one after the other."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, answer: Answer) -> None:
        try:
            data = frame(answer)
        except ValueError as exc:
            if not isinstance(answer, Done):
                return
            error = AgentError(f"its value cannot be sent: {exc}", category=Category.INVALID)
            data = frame(failed(answer.id, error))
        view = memoryview(data)
        with self._lock:
            try:
                while view:
                    view = view[os.write(self._file, view) :]
            except OSError:
                _end()  # nobody listens any more


def main(argv: list[str]) -> None:
    """Runs until its input ends."""
    orders, answers = _own_files()
    target, capacity, memory_mb = argv
    if int(memory_mb):
        most = int(memory_mb) * 1024**2
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        function = _function(target)
    # Importing runs other people's code; whatever comes of it is told to the parent.
    except BaseException as exc:  # noqa: BLE001
        _Pipe(answers).send(Unusable(f"{target} cannot be used: {type(exc).__name__}: {exc}"))
        _end()
        return
    asyncio.run(_serve(function, orders, _Pipe(answers), int(capacity)))


async def _serve(
    function: Callable[..., object], orders: int, answers: _Pipe, capacity: int
) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    worker = _Worker(function, answers, capacity)

    def listen() -> None:
        # In a thread of its own: an end is noticed even if the function holds up the loop.
        for order in _read(orders):
            loop.call_soon_threadsafe(worker.take, order)
        loop.call_soon_threadsafe(over.set)
        threading.Event().wait(_GRACE_S)
        _end()

    threading.Thread(target=listen, daemon=True).start()
    answers.send(Ready())
    await over.wait()
    await worker.end()
    _end()


def _read(file: int) -> Iterator[Order]:
    frames = Frames[Order](Order)  # type: ignore[arg-type]
    while True:
        try:
            data = os.read(file, _CHUNK)
            orders = list(frames.feed(data))
        except (OSError, ValueError):
            return
        if not data:
            return
        yield from orders


def _own_files() -> tuple[int, int]:
    """Input and output, kept from the function and from what it starts."""
    orders, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return orders, answers


def _function(target: str) -> Callable[..., object]:
    """The function of that name. Raises whatever importing it does."""
    # Last, so that nothing in the directory takes the place of a module that is installed.
    sys.path.append(os.getcwd())  # noqa: PTH109 (a text)
    module, _, name = target.partition(":")
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError("it is no function")
    return found


def _end() -> None:
    """Ends this process and all that it has started."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
