"""The runtime for scripts: the same calls without `await`."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, final

from paceline.agents.registry import AgentRegistry
from paceline.call import Outcome
from paceline.errors import RuntimeClosedError, UsageError
from paceline.metrics.collector import MetricsCollector
from paceline.runtime import CallOptions, Runtime

__all__ = ["SyncRuntime"]

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
