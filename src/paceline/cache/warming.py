"""What is worth computing ahead: the calls that would have saved most time. Pure.

What a call that is likely to come again is worth is how often it came times what it takes, each
time, when its result is not there.
"""

from collections.abc import Iterable
from typing import Final, final

import msgspec

__all__ = ["Candidate", "Use", "ranked"]

_NS: Final = 1_000_000_000


class Use(msgspec.Struct, frozen=True, gc=False):
    """One call of the past that succeeded.

    `result` says what it was answered with: calls that share their results have an equal one.
    `place` is where the call can be found again, the higher the later. `took_ns` is what executing
    took, 0 if it was answered without. `asked` is false where nobody asked: it was made ahead.
    """

    result: tuple[str | None, ...]
    place: int
    took_ns: int
    asked: bool = True


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A call that may come again: the place of its latest use, how often it came, what it takes."""

    place: int
    uses: int
    cost_ns: float

    @property
    def worth_s(self) -> float:
        """Seconds that having its result would have saved."""
        return self.uses * self.cost_ns / _NS


@final
class _Tally:
    """The uses of one result, in the making."""

    __slots__ = ("executed", "place", "took_ns", "uses")

    def __init__(self) -> None:
        self.uses = self.executed = self.took_ns = 0
        self.place = -1

    def add(self, use: Use) -> None:
        self.uses += use.asked
        self.place = max(self.place, use.place)
        if use.took_ns > 0:
            self.executed += 1
            self.took_ns += use.took_ns


def ranked(uses: Iterable[Use]) -> list[Candidate]:
    """One candidate for each result that was asked for, the most worth first.

    One that was never executed in this time takes what the others of its kind (the first part of
    `result`) took on average. Equals are in the order of their latest use, the latest first.
    """
    tallies: dict[tuple[str | None, ...], _Tally] = {}
    kinds: dict[str | None, _Tally] = {}
    for use in uses:
        tallies.setdefault(use.result, _Tally()).add(use)
        kinds.setdefault(use.result[0], _Tally()).add(use)
    found = [
        Candidate(tally.place, tally.uses, _mean(tally) or _mean(kinds[result[0]]))
        for result, tally in tallies.items()
        if tally.uses
    ]
    return sorted(found, key=lambda one: (-one.worth_s, -one.place))


def _mean(tally: _Tally) -> float:
    return tally.took_ns / tally.executed if tally.executed else 0.0
