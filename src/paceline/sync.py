"""The runtime for scripts: the same calls without `await`."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, Unpack, final

from paceline.agents.registry import AgentRegistry
from paceline.call import Caller, Outcome
from paceline.errors import RuntimeClosedError, UsageError
from paceline.metrics.collector import MetricsCollector
from paceline.results import (
    OpenedResult,
    Order,
    Results,
    ResultStats,
    StoredResult,
    WarmCall,
    WarmReport,
)
from paceline.results.results import WEEK_S
from paceline.runtime import CallOptions, Runtime

__all__ = ["SyncResults", "SyncRuntime"]

T = TypeVar("T")


@final
class SyncRuntime:
    """A Runtime on an event loop of its own, in one background thread.

    ::

        with SyncRuntime(Runtime(agents=["agents"])) as runtime:
            print(runtime.run("host_exec", "uname -a").unwrap())

    May be used from several threads; a call blocks its own thread only. An interrupt (Ctrl-C)
    while a call is waited for cancels that call.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        """`runtime` is one that is not open yet; without it, one with the default settings."""
        self._runtime = runtime or Runtime()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def registry(self) -> AgentRegistry:
        """The agents there are."""
        return self._runtime.registry

    @property
    def metrics(self) -> MetricsCollector:
        """The figures of all calls."""
        return self._runtime.metrics

    @property
    def notices(self) -> list[str]:
        """What is not as it should be but did not stop the runtime."""
        return self._runtime.notices

    @property
    def results(self) -> "SyncResults":
        """What is cached: to look at, take away and make ahead. Raises RuntimeClosedError."""
        return SyncResults(self._runtime.results, self._wait)

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeClosedError("this runtime is open already", next_step="Make another one.")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(loop,), name="paceline", daemon=True)
        thread.start()
        self._loop, self._thread = loop, thread
        try:
            self._wait(self._runtime.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._wait(self._runtime.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def run(self, name: str, input: str, **options: Unpack[CallOptions]) -> Outcome:  # noqa: A002
        """Runtime.run, blocking. Raises as it does."""
        return self._wait(self._runtime.run(name, input, **options))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeClosedError(
                "the runtime is not open",
                next_step="Call it inside `with SyncRuntime() as runtime:`.",
            )
        if threading.current_thread() is self._thread:
            work.close()
            raise UsageError(
                "a synchronous call from the runtime's own event loop would wait for itself",
                next_step="Await the Runtime there, or run this code in a thread.",
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as exc:
            if not self._open():  # another thread closed it meanwhile
                raise RuntimeClosedError("the runtime was closed") from exc
            raise
        except BaseException:
            future.cancel()  # the waiting was interrupted; where the work ended, this does nothing
            raise

    def _open(self) -> bool:
        return self._loop is not None

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


class _Wait(Protocol):
    """Runs work on the runtime's loop, and blocks until it is done."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> T: ...


@final
class SyncResults:
    """The results that a runtime keeps: `Results`, blocking. From `SyncRuntime.results`.

    Everything is named, does and raises as there, and RuntimeClosedError when it is closed.
    """

    def __init__(self, results: Results, wait: _Wait) -> None:
        self._results = results
        self._wait = wait

    def stats(self, window_s: float | None = None) -> ResultStats:
        """Results.stats: what the cache has done, in all or in about the last `window_s` seconds."""
        return self._wait(self._results.stats(window_s))

    def entries(
        self, limit: int = 100, order: Order = "stored", *, agent: str | None = None
    ) -> list[StoredResult]:
        """Results.entries: what is kept, of one agent or all."""
        return self._wait(self._results.entries(limit, order, agent=agent))

    def get(self, key: str) -> OpenedResult:
        """Results.get: the result whose key begins so, and its value."""
        return self._wait(self._results.get(key))

    def invalidate(self, *tags: str) -> None:
        """Results.invalidate: makes stale what was read under one of these tags."""

        async def done() -> None:
            self._results.invalidate(*tags)

        self._wait(done())

    def free(self, *tags: str) -> int:
        """Results.free: removes what has one of these tags; how many there were."""
        return self._wait(self._results.free(*tags))

    def clear(self, agent: str | None = None) -> int:
        """Results.clear: makes all results stale, or those of one agent; how many were here."""
        return self._wait(self._results.clear(agent))

    def remove(self, *, prefix: str | None = None, key: str | None = None) -> int:
        """Results.remove: clears the agents whose name begins with `prefix`, or removes the one
        result whose key begins with `key`; how many results there were."""
        return self._wait(self._results.remove(prefix=prefix, key=key))

    def begin(self, world: str, session: str) -> None:
        """Results.begin: this session's sandbox stands at the start state of its world now."""

        async def done() -> None:
            self._results.begin(world, session)

        self._wait(done())

    def warm(
        self,
        calls: Iterable[WarmCall | tuple[str, str]],
        *,
        concurrency: int = 4,
        user: str | None = None,
        caller: Caller | None = None,
    ) -> WarmReport:
        """Results.warm: runs calls whose results are wanted ahead, at the lowest priority."""
        return self._wait(
            self._results.warm(calls, concurrency=concurrency, user=user, caller=caller)
        )

    def warm_from_history(
        self, top: int = 20, window_s: float = WEEK_S, *, concurrency: int = 4
    ) -> WarmReport:
        """Results.warm_from_history: the same for past calls that are worth most."""
        return self._wait(self._results.warm_from_history(top, window_s, concurrency=concurrency))


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """The background thread: the loop's whole life."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        # Calls of other threads, if any are left: they are cancelled, not forgotten.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
