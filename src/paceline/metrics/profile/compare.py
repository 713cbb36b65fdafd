"""Two runs side by side: what each name came to in one and in the other, and what got worse. Pure.

Which run is compared with which is said by whoever asks, never found by name: the names of two
runs of the same work are the same, so by them a run is easily compared with itself.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from paceline.errors import UsageError
from paceline.metrics.profile.profile import Profile
from paceline.metrics.profile.totals import Total

__all__ = ["LEAST_NS", "Change", "Comparison", "Worse", "compare", "growth", "worse"]

LEAST_NS: Final = 1_000_000
"""Growth below this is noise, however large a share it is of a call of microseconds."""


class Change(msgspec.Struct, frozen=True):
    """What one name came to before and after; None in a run that has no call of it."""

    name: str
    before: Total | None
    after: Total | None

    @property
    def p95(self) -> float | None:
        """How much p95 grew, as a share of what it was; None where that says nothing."""
        if self.before is None or self.after is None:
            return None
        return growth(self.before.p95_ns, self.after.p95_ns)


class Comparison(msgspec.Struct, frozen=True):
    """Two runs by their ids, how long each took as a whole, and their names in alphabetical
    order."""

    before: str
    after: str
    before_ns: int
    after_ns: int
    names: tuple[Change, ...]

    @property
    def whole(self) -> float | None:
        """How much the whole time grew, as a share of what it was."""
        return growth(self.before_ns, self.after_ns)


class Worse(msgspec.Struct, frozen=True):
    """What grew by more than it may: the p95 of a name, or the whole run (`name` is None)."""

    name: str | None
    before_ns: int
    after_ns: int


def growth(before: int, after: int) -> float | None:
    """0.5 for half as much again, -0.5 for half; None from nothing."""
    return after / before - 1 if before else None


def compare(before: Profile, after: Profile) -> Comparison:
    """The run `after` beside the run `before`.

    Raises UsageError where they are the same run, or one has no calls.
    """
    first, second = before.root, after.root
    if first is None or second is None:
        raise UsageError(
            "a run without calls cannot be compared", next_step="Name two runs that have calls."
        )
    if first.span.trace_id == second.span.trace_id:
        raise UsageError(
            f"run {first.span.trace_id} would be compared with itself",
            next_step="Name another run; `paceline history` lists them.",
        )
    was, is_now = _by_name(before.totals), _by_name(after.totals)
    return Comparison(
        first.span.trace_id,
        second.span.trace_id,
        first.span.took_ns,
        second.span.took_ns,
        tuple(Change(name, was.get(name), is_now.get(name)) for name in sorted({*was, *is_now})),
    )


def worse(found: Comparison, limit: float, least_ns: int = LEAST_NS) -> list[Worse]:
    """What grew by more than `limit` (0.1: a tenth) and by at least `least_ns`: the whole run
    first, then the names whose p95 did.

    A name that is in one run only has nothing to be compared with: what it costs shows in the
    whole.
    """
    pairs: list[Worse] = [Worse(None, found.before_ns, found.after_ns)]
    pairs += [
        Worse(change.name, change.before.p95_ns, change.after.p95_ns)
        for change in found.names
        if change.before is not None and change.after is not None
    ]
    return [
        pair
        for pair in pairs
        if pair.after_ns - pair.before_ns >= least_ns
        and pair.after_ns > pair.before_ns * (1 + limit)
    ]


def _by_name(found: Sequence[Total]) -> dict[str, Total]:
    return {total.name: total for total in found}
