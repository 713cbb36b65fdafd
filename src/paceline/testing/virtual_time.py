"""Time that passes only when nothing else can: an hour of waiting takes milliseconds.

`run(main)` is `asyncio.run` on a loop whose clock jumps to the next timer as soon as no task
can go on; sockets and threads still work, in real time. `VirtualClock` is Paceline's clock on
that loop, or one that a test moves by hand.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, final

__all__ = ["VirtualClock", "VirtualTimeLoop", "run"]

T = TypeVar("T")


@final
class _JumpingSelector(selectors.DefaultSelector):
    """Waits for file events in real time, for timers not at all: it moves the clock instead."""

    jump: Callable[[float], None]
    settle_s = 0.0005
    busy: Callable[[], bool] = staticmethod(lambda: False)

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(self.settle_s)
        while not ready and self.busy():
            ready = super().select(self.settle_s)
        if not ready:
            self.jump(timeout)
        return ready


@final
class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` jumps; see `hold` for work done in threads."""

    def __init__(self) -> None:
        self._now = 0.0
        selector = _JumpingSelector()
        selector.jump = self._jump
        selector.busy = lambda: self._held > 0
        self._held = 0
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Waits for its threads as long as they take: of virtual time, what Python 3.12 and later
        give them would be over at once."""
        del timeout
        await super().shutdown_default_executor()

    def hold(self, thread_work: asyncio.Future[Any]) -> None:
        """Lets virtual time stand still until this future, which a thread will set, is done."""
        self._held += 1
        thread_work.add_done_callback(self._release)

    def _release(self, _: asyncio.Future[Any]) -> None:
        self._held -= 1


@final
class VirtualClock:
    """Paceline's clock in tests. On a VirtualTimeLoop it follows the loop; else move it."""

    EPOCH_NS = 1_700_000_000_000_000_000

    def __init__(self) -> None:
        self._moved_ns = 0

    def monotonic_ns(self) -> int:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._moved_ns
        # The time of another loop is that since the machine was started.
        loop_s = loop.time() if isinstance(loop, VirtualTimeLoop) else 0.0
        return self._moved_ns + round(loop_s * 1e9)

    def wall_ns(self) -> int:
        return self.EPOCH_NS + self.monotonic_ns()

    def advance(self, seconds: float) -> None:
        """Moves both clocks on."""
        self._moved_ns += round(seconds * 1e9)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
