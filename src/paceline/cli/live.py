"""`paceline top` and `paceline stats --watch`: what agents do now, read from the growing history.

On a terminal the screen is drawn anew at every look, and keys are answered between looks. The file
is read on a thread of its own, so that one that is locked or slow does not keep a key waiting.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Final, Protocol, TextIO, final

import msgspec

from paceline.cli.board import Sort
from paceline.cli.live_views import StatsView, TopView
from paceline.cli.output import OK, TERMINATED, line
from paceline.cli.place import Place
from paceline.cli.screen import Screen, can_move, marks_for
from paceline.cli.views import Line, Shape
from paceline.clock import SystemClock
from paceline.errors import PacelineError
from paceline.history.follow import Follower
from paceline.metrics.figures import Snapshot

__all__ = ["EVERY_S", "WATCH_EVERY_S", "View", "Wanted", "frames", "live", "top", "watch_stats"]

EVERY_S: Final = 1.0
"""Seconds between two looks of `paceline top`."""
WATCH_EVERY_S: Final = 2.0
"""Seconds between two looks of `paceline stats --watch`."""
_LONGEST_REST_S: Final = 2.0
_WIDTH: Final = 80


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What `top` shows, and how often (seconds). Without a terminal `interval_s` None means once."""

    sort: Sort = Sort.CALLS
    window: str = "5m"
    interval_s: float | None = None
    once: bool = False


class View(Protocol):
    """Something to look at, again and again; it is refreshed on one thread, shown on another."""

    @property
    def problem(self) -> PacelineError | None:
        """Why nothing could be read, the last time."""
        ...

    def refresh(self) -> bool:
        """Reads what is new; True if there is more to be had at once."""
        ...

    def lines(self, shape: Shape) -> list[Line]:
        """What is to be seen now."""
        ...

    def key(self, key: str) -> bool:
        """Answers a key; True if that needs a refresh."""
        ...


def top(place: Place, wanted: Wanted) -> int:
    """One screen of what all agents do: rates, times, hit rates, errors, the slowest calls.

    On a terminal until `q` or Ctrl-C, both of which are the ordinary end of it; else, or with
    `once`, one frame, or one every `interval_s` until Ctrl-C. Raises StorageError where one frame
    is all there is, and it cannot be made.
    """
    view = TopView(Follower(place.home.history), SystemClock(), wanted.sort, wanted.window)
    return _run(place, view, None if wanted.once else wanted.interval_s or EVERY_S, wanted)


def watch_stats(
    place: Place, text: Callable[[Snapshot], str], interval_s: float | None = None
) -> int:
    """The statistics as `text` makes them, refreshed in place, and ended, as `top` is; 0 seconds
    are None."""
    wanted = Wanted(interval_s=interval_s or None)
    view = StatsView(Follower(place.home.history), SystemClock(), text)
    return _run(place, view, interval_s or WATCH_EVERY_S, wanted)


def _run(place: Place, view: View, every_s: float | None, wanted: Wanted) -> int:
    try:
        if every_s is not None and can_move(place.environ, sys.stdout):
            return asyncio.run(live(view, Screen(place.environ, sys.stdout), every_s))
        again_s = None if wanted.once else wanted.interval_s
        return asyncio.run(frames(view, sys.stdout, again_s))
    except KeyboardInterrupt:  # where nothing else ends it, this is no failure
        return OK


async def frames(view: View, out: TextIO, interval_s: float | None) -> int:
    """Prints a frame, as text without anything else, or one every so many seconds."""
    shape = Shape(width=shutil.get_terminal_size((_WIDTH, 0)).columns, marks=marks_for(out))
    while True:
        while view.refresh():
            pass
        if interval_s is None and view.problem is not None:
            raise view.problem
        for each in view.lines(shape):
            line(each.text)
        if interval_s is None:
            return OK
        line()
        out.flush()
        await asyncio.sleep(interval_s)


async def live(view: View, screen: Screen, interval_s: float) -> int:
    """Shows a view on a terminal until it is ended there; returns the exit code."""
    return await _Live(view, screen, interval_s).run()


@final
class _Live:
    """Draws when something has changed, and refreshes on another thread meanwhile."""

    def __init__(self, view: View, screen: Screen, interval_s: float) -> None:
        self._view = view
        self._screen = screen
        self._interval_s = interval_s
        self._code: int | None = None
        self._changed = asyncio.Event()
        self._stale = asyncio.Event()

    async def run(self) -> int:
        """Until a key or a signal ends it."""
        with self._signals(), self._screen, self._keys():
            following = asyncio.ensure_future(self._follow())
            following.add_done_callback(lambda _: self._changed.set())
            try:
                while self._code is None:
                    self._draw()
                    await self._changed.wait()
                    self._changed.clear()
                    if following.done():  # by an error: it has no other end
                        await following
            finally:
                following.cancel()
        return self._code

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._stale.clear()
            began_s = loop.time()
            more = await _refreshed(self._view)
            took_s = loop.time() - began_s
            self._changed.set()
            if not more:
                # At most half of the time, but a file that is locked is tried again soon.
                pause_s = max(self._interval_s, min(took_s, _LONGEST_REST_S))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stale.wait(), pause_s)

    def _draw(self) -> None:
        width, height = self._screen.size
        keys = self._screen.keys is not None
        self._screen.draw(self._view.lines(Shape(width, height, self._screen.marks, keys)))

    def _end(self, code: int) -> None:
        self._code = code
        self._changed.set()

    def _typed(self) -> None:
        typed = self._screen.read_keys()
        if typed is None:  # the terminal is gone
            self._end(TERMINATED)
            return
        if "q" in typed:
            self._end(OK)
            return
        for key in typed:
            if self._view.key(key):
                self._stale.set()
        self._changed.set()

    def _suspend(self) -> None:
        self._screen.leave()
        os.kill(os.getpid(), signal.SIGSTOP)  # until we are told to go on
        self._screen.enter()
        self._changed.set()

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        answers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGINT: lambda: self._end(OK),
            signal.SIGTERM: lambda: self._end(TERMINATED),
            signal.SIGHUP: lambda: self._end(TERMINATED),
            signal.SIGTSTP: self._suspend,
            signal.SIGWINCH: self._changed.set,
        }
        for number, answer in answers.items():
            loop.add_signal_handler(number, answer)
        try:
            yield
        finally:
            for number in answers:
                loop.remove_signal_handler(number)

    @contextlib.contextmanager
    def _keys(self) -> Generator[None]:
        keys = self._screen.keys
        if keys is None:
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(keys, self._typed)
        try:
            yield
        finally:
            loop.remove_reader(keys)


async def _refreshed(view: View) -> bool:
    """Refreshes on a thread of its own, for which nobody waits at the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def settle(more: bool, error: Exception | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is None:
            done.set_result(more)
        else:
            done.set_exception(error)

    def run() -> None:
        more, error = False, None
        try:
            more = view.refresh()
        except Exception as exc:  # noqa: BLE001 (raised again where it is waited for)
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: the view has ended
            loop.call_soon_threadsafe(settle, more, error)

    threading.Thread(target=run, name="paceline-live-reader", daemon=True).start()
    return await done
