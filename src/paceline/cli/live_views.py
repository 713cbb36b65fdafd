"""What live views show, kept up to date with a history that grows.

Each is refreshed on one thread and shown on another: what both use, one has at a time.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Final, final

import msgspec

from paceline.cli.board import Board, Sort
from paceline.cli.replay import note_call
from paceline.cli.views import KEYS, Line, Shape, ago, clipped, frame, help_lines, said
from paceline.clock import Clock
from paceline.errors import PacelineError, StorageError
from paceline.history.follow import Batch, Follower
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Snapshot
from paceline.metrics.windows import SLOT_NS, WINDOWS

__all__ = ["StatsView", "TopView"]

_NOTHING: Final = "no calls yet; make one with `paceline run`, and watch it here"
_GONE: Final = "the history is gone; a new one is shown as soon as it is there"
_ASKED: Final = 10
"""Slow calls whose inputs are read."""


class _Followed:
    """The reading of a history, and what is to be said of it."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.problem: PacelineError | None = None
        self.latest_ns: int | None = None
        self._missing = False
        self._more = False
        self._unreadable = 0
        self._read = 0

    def look(self, since_ns: int | None) -> Batch:
        """What is new; nothing where it cannot be read."""
        try:
            batch = self.follower.look(since_ns)
        except StorageError as exc:
            self.problem = exc
            return Batch()
        self.problem = None
        self._missing, self._more = batch.missing, batch.more
        if batch.anew:
            self._unreadable = self._read = 0
        self._unreadable += batch.unreadable
        self._read += len(batch.rows)
        self.latest_ns = batch.latest_ns
        return batch

    def notes(self) -> list[str]:
        """What is to be said of the history, if it is not as it should be."""
        notes: list[str] = []
        if self.problem is not None:
            notes = [f"{self.problem}", f"next: {self.problem.next_step}"]
        elif self._missing:
            notes = [_GONE if self._read else _NOTHING]
        elif self._more:
            notes = [f"reading the history: {self._read:,} calls so far"]
        if self._unreadable:
            notes.append(f"{self._unreadable:,} records are left out: they cannot be read")
        return notes


@final
class TopView:
    """What `paceline top` shows."""

    def __init__(self, follower: Follower, clock: Clock, sort: Sort, window: str) -> None:
        """`window` is one of `WINDOWS`."""
        self._followed = _Followed(follower)
        self._clock = clock
        self._started_ns = clock.monotonic_ns()
        self._sort = sort
        self._window = window
        self._board = Board(window)
        self._inputs: dict[str, str] = {}
        self._helping = False
        self._turn = threading.Lock()

    @property
    def problem(self) -> PacelineError | None:
        """Why nothing could be read, the last time."""
        return self._followed.problem

    def refresh(self) -> bool:
        """Reads what is new; True if there is more to be had at once."""
        window, now_ns = self._window, self._clock.wall_ns()
        if window != self._board.window:
            self._followed.follower.restart()
        batch = self._followed.look(now_ns - WINDOWS[window])
        with self._turn:
            if batch.anew:
                self._board = Board(window)
            self._board.add(batch.rows, now_ns)
            slow = [call.id for call in self._board.slowest(now_ns, _ASKED)]
        self._ask(slow)
        return batch.more

    def lines(self, shape: Shape) -> list[Line]:
        """The screen of now."""
        if self._helping:
            return help_lines(shape)
        now_ns = self._clock.wall_ns()
        with self._turn:
            look = self._board.look(now_ns, self._sort, shape.height)
        notes = self._followed.notes()
        if not look.agents and not notes:
            notes = [self._idle(look.window, now_ns, keys=shape.keys)]
        up_ns = self._clock.monotonic_ns() - self._started_ns
        return frame(look, shape, up_ns=up_ns, notes=notes, inputs=self._inputs)

    def key(self, key: str) -> bool:
        """Answers a key; True if that needs a refresh."""
        if self._helping or key == "?":
            self._helping = not self._helping
        elif key in KEYS:
            self._sort = KEYS[key]
        elif key == "w":
            names = list(WINDOWS)
            self._window = names[(names.index(self._window) + 1) % len(names)]
            return True
        return False

    def _ask(self, slow: list[str]) -> None:
        """Reads what slow calls were asked, once each."""
        unknown = [call for call in slow if call not in self._inputs]
        try:
            found = self._followed.follower.inputs(unknown)
        except StorageError as exc:
            self._followed.problem = exc
            return
        known = {call: self._inputs[call] for call in slow if call in self._inputs}
        self._inputs = known | {call: _asked(found.get(call, "")) for call in unknown}

    def _idle(self, window: str, now_ns: int, *, keys: bool) -> str:
        latest_ns = self._followed.latest_ns
        if latest_ns is None:
            return _NOTHING
        how = "w" if keys else "--window"
        return (
            f"no calls in the last {window}, the latest {ago(now_ns - latest_ns)} ago; {how}: wider"
        )


@final
class StatsView:
    """What `paceline stats --watch` shows: the text of all statistics."""

    def __init__(self, follower: Follower, clock: Clock, text: Callable[[Snapshot], str]) -> None:
        self._followed = _Followed(follower)
        self._clock = clock
        self._text_of = text
        # Moments are kept by the wall, and counted by the clock that never goes back.
        self._ahead_ns = clock.wall_ns() - clock.monotonic_ns()
        self._collector = MetricsCollector(clock=clock)
        self._text = ""
        self._slot = -1

    @property
    def problem(self) -> PacelineError | None:
        """Why nothing could be read, the last time."""
        return self._followed.problem

    def refresh(self) -> bool:
        """Reads what is new; True if there is more to be had at once."""
        batch = self._followed.look(None)
        if batch.anew:
            self._collector = MetricsCollector(clock=self._clock)
        for row in batch.rows:
            note_call(self._collector, row.facts, row.at_ns - self._ahead_ns)
        slot = self._clock.monotonic_ns() // SLOT_NS
        # Without new calls, figures change where windows do.
        if not batch.more and (batch.anew or batch.rows or slot != self._slot):
            self._slot = slot
            self._text = self._text_of(self._collector.snapshot())
        return batch.more

    def lines(self, shape: Shape) -> list[Line]:
        """The text, as much of it as there is room for."""
        head = [Line("paceline stats --watch   q quit", "dim")] if shape.keys else []
        head += [Line(text, "bad") for note in self._followed.notes() for text in said(note, shape)]
        text = [
            Line(line, "title" if line.startswith("**") else "") for line in self._text.split("\n")
        ]
        room = None if shape.height is None else max(0, shape.height - len(head))
        if room is not None and len(text) > room:
            text = [*text[: room - 1], Line(f"and {len(text) - room + 1:,} more lines", "dim")]
        return [Line(clipped(line.text, shape), line.style) for line in [*head, *text]]

    def key(self, key: str) -> bool:  # noqa: ARG002 (there is none to be answered)
        """Answers no key."""
        return False


def _asked(arguments: str) -> str:
    """What a call was asked: the query alone where that is all, else the arguments."""
    with contextlib.suppress(msgspec.DecodeError):  # what else is written there is shown as it is
        data = msgspec.json.decode(arguments, type=dict[str, object])
        if list(data) == ["query"]:
            return str(data["query"])
    return arguments
