"""Tools in processes of their own: what they take has a limit, and when they are cancelled they end.

A thread cannot be killed, and memory has no limit for a part of a process. So a tool that declares
`killable` or `memory_mb` runs in a process that is started ahead, one call in each at a time.
"""

import asyncio
import random
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self, final

import msgspec

from paceline.call import Call
from paceline.clock import Clock
from paceline.errors import AgentError, PacelineError, RuntimeClosedError
from paceline.instances.worker import Worker
from paceline.resources import ResourceUsage
from paceline.tools.importable import importable
from paceline.tools.measured import charge
from paceline.tools.runner import named_arguments
from paceline.tools.spec import ToolSpec

__all__ = ["KillableTools"]

_AT_ONCE: Final = 4
"""Processes of one tool that declares no `max_concurrency`."""


@final
class KillableTools:
    """Runs tools in processes that are kept warm: a `paceline.tools.runner.Workers`.

    A process is started by the first call, or by `warm`, and serves one call after the other; more
    are started for calls at the same time, as many as the tool's `max_concurrency`, else 4; further
    calls wait. The function is imported there by its name. Of the environment it has PATH,
    PYTHONPATH and LANG, and what it is given.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        environ: Mapping[str, str],
        env: Mapping[str, str] | None = None,
        grace_s: float = 0.2,
    ) -> None:
        """`environ` is the environment here, `env` what all processes are given. A cancelled call
        has `grace_s` seconds for an end of its own."""
        self._clock = clock
        self._rng = rng
        self._environ = environ
        self._env = env
        self._grace_s = grace_s
        self._stack = AsyncExitStack()
        self._open = False
        self._pools: dict[tuple[str, int, str], _Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def processes(self) -> tuple[int, ...]:
        """The numbers of all processes there are, those that are being ended too."""
        return tuple(pid for pool in self._pools.values() for pid in pool.processes)

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends all processes."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        self._pools.clear()

    async def warm(self, spec: ToolSpec) -> None:
        """Starts a process for the tool, if it has none. Raises AgentLoadError where its function
        cannot be imported by name."""
        await self._pool(spec).warm()

    async def run(self, spec: ToolSpec, call: Call) -> object:
        """What the tool returns.

        Cancelled, the call has a short time for an end of its own; then its process is killed with
        all that it has started, and another one is started in its place. It returns when that is
        done. Raises AgentLoadError where the function cannot be imported by name, and other
        PacelineErrors; one of category EXHAUSTED where the memory was not enough.
        """
        value = await self._pool(spec).run(call.name, named_arguments(spec, call))
        if spec.result_type is None:
            return value
        try:
            return msgspec.convert(value, spec.result_type)
        except Exception as exc:  # a type may check itself, by code of its own
            raise AgentError(
                f"{spec.name} did not return a {spec.result_type.__qualname__}: {exc}",
                may_have_started=True,
            ) from exc

    def _pool(self, spec: ToolSpec) -> "_Pool":
        if not self._open:
            raise RuntimeClosedError(
                f"tool {spec.name} has no process: nothing is open",
                next_step="Use it inside `async with`.",
            )
        target = importable(f"tool {spec.name}", spec.run)
        key = target, spec.memory_mb or 0, spec.version
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(self, self._clock, target, spec)
        return pool

    async def open_worker(self, target: str, memory_mb: int) -> Worker:
        """For a pool: a process of its own, not started yet."""
        return await self._stack.enter_async_context(
            Worker(
                target,
                clock=self._clock,
                rng=self._rng,
                environ=self._environ,
                env=self._env,
                capacity=1,
                memory_mb=memory_mb,
                grace_s=self._grace_s,
            )
        )

    def aside(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """For a pool: does it besides, until it is left at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@final
class _Pool:
    """The processes of one tool."""

    def __init__(self, owner: KillableTools, clock: Clock, target: str, spec: ToolSpec) -> None:
        self._owner = owner
        self._clock = clock
        self._target = target
        self._memory_mb = spec.memory_mb or 0
        self._places = asyncio.Semaphore(spec.max_concurrency or _AT_ONCE)
        self._workers: list[Worker] = []
        self._free: list[Worker] = []

    @property
    def processes(self) -> list[int]:
        return [pid for worker in self._workers for pid in worker.processes]

    async def warm(self) -> None:
        if self._workers:
            return
        async with self._places:
            worker = await self._take()
            try:
                await worker.probe()
            finally:
                self._free.append(worker)

    async def run(self, name: str, arguments: Mapping[str, object]) -> object:
        await self._places.acquire()
        try:
            worker = await self._take()
        except BaseException:
            self._places.release()
            raise
        started_ns = self._clock.monotonic_ns()
        try:
            value = await worker.call(name, arguments)
        except asyncio.CancelledError:
            # What is killed tells nothing of what it took.
            charge(ResourceUsage(wall_ns=self._clock.monotonic_ns() - started_ns))
            # Who is cancelled once more leaves at once; the process is ended all the same.
            await asyncio.shield(self._owner.aside(self._end(worker)))
            raise
        except BaseException:
            self._give_back(worker)
            raise
        self._give_back(worker)
        return value

    async def _take(self) -> Worker:
        """The one used last, which is the warmest."""
        if self._free:
            return self._free.pop()
        worker = await self._owner.open_worker(self._target, self._memory_mb)
        self._workers.append(worker)
        return worker

    def _give_back(self, worker: Worker) -> None:
        self._free.append(worker)
        self._places.release()

    async def _end(self, worker: Worker) -> None:
        """Waits until the cancelled call is over; its place is taken until then."""
        try:
            await worker.settled()
        finally:
            self._give_back(worker)
        self._owner.aside(_start(worker))


async def _start(worker: Worker) -> None:
    """Has a process there before the next call comes. If it cannot be, that call is told."""
    try:
        await worker.probe()
    except PacelineError:
        return
