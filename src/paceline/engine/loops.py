"""Finds a model that asks for the same thing again and again without learning anything.

Calls are alike if they are of one tool with the same arguments, however paths are written, and
wherever in a list or file they begin and end. A call is news if its result is one that calls like
it did not have before; what counts here is always the number of calls since the latest news, so
a file read page by page and any number of different calls are no loop. What writes and is news is
a reason to look at everything once more.

Only the `window` calls that were made last are remembered: what comes back after that is new, and
so is what comes back so late that its result may be another.
"""

import posixpath
from typing import Final, final

import msgspec

from paceline.call import EffectKind
from paceline.clock import Clock
from paceline.engine.protocols import Preparation

__all__ = ["LoopLimits", "Loops", "Screened"]

_NS: Final = 1_000_000_000
_REUSED: Final = "[reused_recent_result"
_LOOP: Final = "[loop_detected"
_MARKS: Final = (_REUSED, _LOOP)
_PATHS: Final = frozenset(
    {"cwd", "dir", "directory", "file", "file_path", "filename", "filepath", "folder", "path"}
)
_PAGING: Final = frozenset(
    {
        "cursor",
        "end_line",
        "limit",
        "line_count",
        "max_lines",
        "max_results",
        "offset",
        "page",
        "page_size",
        "per_page",
        "skip",
        "start",
        "start_line",
    }
)
_SPECIAL: Final = _PATHS | _PAGING
_WRITE: Final = EffectKind.WRITE
_encode: Final = msgspec.json.Encoder(order="deterministic", enc_hook=repr).encode


class LoopLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls without news are too many. The first four are for calls that are alike, by
    what they do: beyond the limit the model is warned, beyond twice of it refused. One that was
    refused twice as often as that since the user said something is `stuck`."""

    read: int = 10
    write: int = 3
    command: int = 5
    other: int = 3
    identical: int = 2
    """Of the very same call: the next is answered with the recent result if it only reads, and
    refused if it does not."""
    reads_warned: int = 6
    """Reads in a row, of whatever, that say nothing new: so many, and the model is warned."""
    reads_refused: int = 10
    reuse_s: float = 120.0
    """A result that is older, in seconds, is not used again."""
    window: int = 10
    commands: frozenset[str] = frozenset({"bash", "host_exec", "run_command", "shell"})
    """Tools that count as commands, if what they do is not known."""


_DEFAULTS: Final = LoopLimits()


class Screened(msgspec.Struct, frozen=True):
    """What to do with a call: run it, if there is no text; else the text is what the model is told
    instead, as a refusal or as a recent result used again. `repeats` counts the calls since the
    latest news, this one included."""

    text: str | None = None
    refused: bool = False
    repeats: int = 0


_GO: Final = Screened()


class _Call(msgspec.Struct, eq=False, gc=False):
    """The latest calls with one key: how many since the latest news, and what the last one said."""

    alike: str | None  # None: no call with another key is
    epoch: int
    asked: int = 0
    text: str | None = None
    usable: bool = False
    at_ns: int = 0
    changes: int = 0


@final
class Loops:
    """The recent calls of one session. `clear` it when the user says something."""

    __slots__ = (
        "_asked",
        "_calls",
        "_changes",
        "_clock",
        "_epoch",
        "_limits",
        "_reads",
        "_refused",
        "stuck",
    )

    def __init__(self, *, clock: Clock, limits: LoopLimits = _DEFAULTS) -> None:
        if limits.window < 1:
            raise ValueError("at least one call is remembered")
        self._clock = clock
        self._limits = limits
        self._calls: dict[str, _Call] = {}  # by key, the latest last
        self._asked: dict[str, int] | None = None  # calls that are alike since the latest news
        self._reads = 0  # in a row that said nothing new
        self._refused = 0
        self.stuck = ""
        """Why the turn makes no sense any more, empty if it does: the model does not hear."""
        self._changes = 0  # calls so far that may have changed what others read
        self._epoch = 0  # those of them that were news; what was asked before does not count

    def clear(self) -> None:
        """Forgets all, as when the user has said something."""
        self._calls.clear()
        self._asked = None
        self._reads = self._refused = 0
        self.stuck = ""

    def screen(self, preparation: Preparation) -> Screened:
        """Whether a call may run; ask once for each, before it runs, as it is counted here."""
        screened = self._screen(preparation)
        if screened.refused:
            self._refused += 1
            if self._refused >= 2 * self._limit(preparation):
                self.stuck = (
                    f"{self._refused} calls were refused, the last of {preparation.use.name}"
                )
        return screened

    def _screen(self, preparation: Preparation) -> Screened:
        limits, reads = self._limits, preparation.effect.repeatable
        call = self._find(preparation)
        recent = False
        if call.asked:
            recent = call.text is not None and self._is_recent(call)
            if call.epoch != self._epoch or (call.text is not None and not recent):
                self._renew(call)
        call.asked += 1
        asked = call.asked if call.alike is None else self._count(call.alike)
        name = preparation.use.name
        if reads and recent and self._reads >= limits.reads_refused:
            return _refusal(f"{self._reads} reads in a row said nothing new", call.asked)
        if call.asked > limits.identical:
            if not reads:
                return _refusal(f"{name} was called like this before, to no new effect", call.asked)
            if recent and call.usable and call.changes == self._changes:
                self._reads += 1
                return self._reused(call)
        if asked > 1 and asked > 2 * self._limit(preparation):
            return _refusal(f"{name} was called so often that it says nothing new", asked)
        if not reads:
            self._changes += 1
        return _GO if asked == 1 else Screened(repeats=asked)

    def done(self, preparation: Preparation, text: str, *, failed: bool = False) -> str:
        """Notes what the model is told of a call. Returns what it is to be warned of, empty if
        nothing. What `screen` answered itself is no result of a call, and is left alone."""
        if text.startswith(_MARKS):
            return ""
        reads = preparation.effect.repeatable
        call = self._calls.get(preparation.key) or self._find(preparation)
        news = self._is_news(call, text)
        if not reads:
            self._changes += 1
        call.text, call.usable, call.at_ns = text, reads and not failed, self._clock.monotonic_ns()
        call.changes = self._changes
        if not news:
            return self._warning(preparation, call, reads=reads)
        self._reads = 0
        if not reads and not failed:
            self._epoch += 1  # something changed, so that everything may be asked again
            self._asked = None
        call.asked, call.epoch = 1, self._epoch
        if call.alike is not None:
            self._uncount(call.alike)
            self._count(call.alike)
        return ""

    def _find(self, preparation: Preparation) -> _Call:
        """The record of its key, which is the latest from now on."""
        calls, key = self._calls, preparation.key
        call = calls.pop(key, None)
        if call is None:
            call = _Call(_alike(preparation), self._epoch)
            if len(calls) >= self._limits.window:
                del calls[next(iter(calls))]
        calls[key] = call
        return call

    def _count(self, alike: str) -> int:
        """One more call that is like others; how many there are now."""
        asked = self._asked
        if asked is None:
            asked = self._asked = {}
        number = asked[alike] = asked.pop(alike, 0) + 1
        if len(asked) > self._limits.window:
            del asked[next(iter(asked))]
        return number

    def _renew(self, call: _Call) -> None:
        """Nothing of what was asked before counts."""
        call.asked, call.epoch = 0, self._epoch
        if call.alike is not None:
            self._uncount(call.alike)

    def _uncount(self, alike: str) -> None:
        if self._asked is not None:
            self._asked.pop(alike, None)

    def _is_news(self, call: _Call, text: str) -> bool:
        """Whether no call like it said the same."""
        if call.text == text:
            return False
        alike = call.alike
        return alike is None or all(
            c.text != text or c.alike != alike for c in self._calls.values()
        )

    def _is_recent(self, call: _Call) -> bool:
        return self._clock.monotonic_ns() - call.at_ns <= self._limits.reuse_s * _NS

    def _limit(self, preparation: Preparation) -> int:
        """So many calls that are alike are not too many."""
        limits, effect = self._limits, preparation.effect
        if effect.repeatable:
            return limits.read
        if effect.kind is _WRITE:
            return limits.write
        return limits.command if preparation.use.name in limits.commands else limits.other

    def _reused(self, call: _Call) -> Screened:
        age_s = (self._clock.monotonic_ns() - call.at_ns) // _NS
        mark = (
            f"{_REUSED} of {age_s} s ago; loop_detected; repeat_count={call.asked}: nothing has"
            " changed since. Go on with what you know, or do something else.]"
        )
        return Screened(f"{mark}\n\n{call.text}", repeats=call.asked)

    def _warning(self, preparation: Preparation, call: _Call, *, reads: bool) -> str:
        """Of a call that said nothing new."""
        asked = call.asked if call.alike is None else (self._asked or {}).get(call.alike, 0)
        what = ""
        if reads:
            self._reads += 1
            if self._reads >= self._limits.reads_warned:
                what, asked = f"{self._reads} reads in a row said nothing new", self._reads
        if asked > self._limit(preparation):
            what = f"{asked} such calls of {preparation.use.name} said nothing new"
        return what and _mark(what, asked)


def _mark(what: str, repeats: int) -> str:
    return f"{_LOOP}; repeat_count={repeats}: {what}. Do something else, or answer.]"


def _refusal(what: str, repeats: int) -> Screened:
    return Screened(_mark(f"not run, as {what}", repeats), refused=True, repeats=repeats)


def _alike(preparation: Preparation) -> str | None:
    """The same for calls of one tool that differ in how a path is written, or where they begin and
    end, alone; None if no others can be."""
    arguments = preparation.arguments
    if _SPECIAL.isdisjoint(arguments):
        return None
    kept = {
        name: posixpath.normpath(value) if name in _PATHS and isinstance(value, str) else value
        for name, value in arguments.items()
        if name not in _PAGING
    }
    try:
        return f"{preparation.use.name} {_encode(kept).decode()}"
    except (TypeError, ValueError, OverflowError):
        # No plain data, so only the very same calls are known to be alike.
        return None
