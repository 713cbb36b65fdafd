"""Runs a tool for a call."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast, final

from paceline.call import Call
from paceline.clock import Clock
from paceline.errors import AgentError, ConfigError
from paceline.resources import ResourceUsage, current_resources
from paceline.tools.measured import ThreadMeasure, charge
from paceline.tools.spec import ToolSpec

__all__ = ["Threads", "ToolRunner", "Workers", "named_arguments"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads(Protocol):
    """Where synchronous tools run: `paceline.agents.threads.ThreadPool`, or the like."""

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """The function's value, or what it raises, from a thread."""
        ...


class Workers(Protocol):
    """Where killable tools and those with a limit of memory run: processes of their own."""

    async def run(self, spec: ToolSpec, call: Call) -> object:
        """What the tool returns. Cancelled, it has the process killed."""
        ...


@final
class ToolRunner:
    """Runs async tools on the event loop, synchronous ones in threads, and those that are killable
    or have a limit of memory in processes of their own. What they take is added up in
    `paceline.resources.current_resources`."""

    __slots__ = ("_clock", "_ended", "_threads", "_workers")

    def __init__(
        self,
        threads: Threads,
        *,
        clock: Clock,
        workers: Workers | None = None,
        ended: Callable[[Call], object] = lambda _: None,
    ) -> None:
        """Without `workers` no tool can be run that needs a process. `ended` is told, from its thread,
        when a synchronous tool has really ended: that can be long after its caller has left."""
        self._threads = threads
        self._clock = clock
        self._workers = workers
        self._ended = ended

    def run(self, spec: ToolSpec, call: Call) -> Coroutine[Any, Any, object]:
        """What the tool returns, once it is awaited, for the call's arguments, which are those that `spec.check` gave.

        Time limits are the caller's. Cancelled, an async tool is cancelled, and one in a process is
        killed. A thread cannot be killed: a synchronous tool is told, where it has a parameter
        `cancelled`, a `threading.Event` that is set then, and left behind; what it takes after that
        is not measured.

        Raises what the tool raises; AgentError where it raises what is meant to end a program, or
        was cancelled and its caller was not; ConfigError where it needs a process and there are none.
        """
        if spec.killable or spec.memory_mb is not None:
            if self._workers is None:
                raise ConfigError(
                    f"tool {spec.name} needs a process of its own, and there are none",
                    next_step="Leave out `killable` and `memory_mb`, or run it in a session.",
                )
            return self._workers.run(spec, call)
        arguments = named_arguments(spec, call)
        if spec.wants and "cancelled" in spec.wants:
            return self._told(spec, call, arguments)
        return self._run(spec, call, arguments)

    async def _told(self, spec: ToolSpec, call: Call, arguments: dict[str, object]) -> object:
        """Of a tool that is told when it is cancelled."""
        cancelled = threading.Event()
        try:
            return await self._run(spec, call, {**arguments, "cancelled": cancelled})
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def _run(
        self, spec: ToolSpec, call: Call, arguments: dict[str, object]
    ) -> Coroutine[Any, Any, object]:
        # Each coroutine in between is memory for as long as the tool runs, and there are many.
        if spec.is_async:
            return self._on_loop(spec, cast("Awaitable[object]", spec.run(**arguments)))
        return self._apart(spec, call, arguments)

    async def _apart(self, spec: ToolSpec, call: Call, arguments: dict[str, object]) -> object:
        value, error, usage = await self._threads.run(self._in_thread, spec, call, arguments)
        charge(usage)
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return await self._on_loop(spec, value) if inspect.isawaitable(value) else value

    async def _on_loop(self, spec: ToolSpec, work: Awaitable[object]) -> object:
        counted = current_resources.get() is not None
        started_ns = self._clock.monotonic_ns() if counted else 0
        try:
            return await work
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this call: raised on, it would end the turn it is made in.
            raise _ended(spec, exc) from exc
        except (SystemExit, KeyboardInterrupt) as exc:
            raise _ended(spec, exc) from exc
        finally:
            if counted:
                charge(ResourceUsage(wall_ns=self._clock.monotonic_ns() - started_ns))

    def _in_thread(
        self, spec: ToolSpec, call: Call, arguments: dict[str, object]
    ) -> tuple[object, BaseException | None, ResourceUsage]:
        measure = ThreadMeasure(self._clock)
        try:
            return spec.run(**arguments), None, measure.usage()
        except Exception as exc:  # noqa: BLE001 (it is raised where it is waited for)
            return None, exc, measure.usage()
        # On the loop it would cancel the wrong task, or end the program.
        except BaseException as exc:  # noqa: BLE001
            error = _ended(spec, exc)
            error.__cause__ = exc
            return None, error, measure.usage()
        finally:
            self._ended(call)


def named_arguments(spec: ToolSpec, call: Call) -> dict[str, object]:
    """What the tool is called with, but for `cancelled`. On whose behalf it is says the call alone,
    whatever its arguments say."""
    arguments = dict(call.arguments)
    for name in spec.wants:
        if name == "cancelled":
            arguments.pop(name, None)
        else:
            arguments[name] = getattr(call.caller, name)
    return arguments


def _ended(spec: ToolSpec, exc: BaseException) -> AgentError:
    return AgentError(f"{spec.name} raised {type(exc).__name__}", may_have_started=True)
