"""Tools that were asked for one after the other, and could have been in one answer."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final, NamedTuple, final

from paceline.advise.advice import LEAST, Advice, Confidence, confidence
from paceline.advise.answers import Event, Use, until_done_ns
from paceline.advise.calls import NS
from paceline.predict.events import Said, Step
from paceline.predict.groups import MOST_CALLS, Turn

__all__ = ["Group", "Run", "runs", "side_by_side"]

Group = tuple[str, ...]
"""Names of tools that change nothing and never needed one another; a tool with itself is two equal
names."""

_MOST: Final = 5
"""Sets of tools that are told by themselves."""
_TOLD: Final = "It is the model that asks: its system prompt can say so ([chat] system)."


class Run(NamedTuple):
    """Answers one after the other that could have been one: how many, the tools they asked for, and
    for how much of the time one would not have waited."""

    answers: int
    names: frozenset[str]
    saved_ns: int


def side_by_side(
    sessions: Iterable[Iterable[Event]], groups: Sequence[Group], at_once: int
) -> Iterator[Advice]:
    """Groups of which the members were asked for in answers of their own, with what that took longer
    than one answer for all, so many at once. How long the models took for the other answers the
    journals do not say: that would have been saved besides."""
    found: list[Run] = []
    turns = 0
    for session in sessions:
        events = list(session)
        turns += sum(isinstance(event, Said) and event.by_user for event in events)
        found += runs(events, groups, at_once)
    for names, seen in _together(found, groups):
        saved_s = _saved_ns(seen) / NS
        fewer = sum(run.answers - 1 for run in seen)
        yield Advice(
            rule="side_by_side",
            agent=None,
            tools=names,
            what=f"have the model ask for {_listed(names)} in one answer",
            why=f"{len(seen):,} times in {turns:,} turns of kept sessions they were asked for one"
            f" answer after the other, though none needed what another gave: {saved_s:.3g} s longer"
            f" than side by side, and {fewer:,} answers of the model more",
            changes=(),
            first=_TOLD,
            evidence={
                "turns": turns,
                "runs": len(seen),
                "answers_fewer": fewer,
                "at_once": at_once,
            },
            # Whether the model heeds it, and could have known what to ask for, nobody recorded.
            confidence=confidence(len(seen), Confidence.MEDIUM),
            saved_s=saved_s,
        )


def runs(events: Iterable[Event], groups: Iterable[Group], at_once: int) -> Iterator[Run]:
    """The longest runs of answers in a turn of which every call could have been made before those of
    the other answers ended: their tools may run side by side, and here, too, no argument was taken
    from what another one gave. What follows a failure may be because of it, and what was asked for
    before was asked for again, so neither goes on with a run."""
    free = {frozenset(pair) for group in groups for pair in combinations(group, 2)}
    turn, run = Turn(), _Open()
    for event in events:
        if isinstance(event, Said):
            list(turn.hear(event))
            if event.by_user:
                yield from run.close(at_once)
                run = _Open()
            continue
        uses = [use for use in event.uses if use.call is not None]
        needed = {first for first, _, depended in turn.hear(_step(uses)) if depended}
        if not run.takes(uses, free) or not needed.isdisjoint(run.names):
            yield from run.close(at_once)
            run = _Open()
        if run.takes(uses, free):
            run.add(uses)
    yield from run.close(at_once)


@final
class _Open:
    """A run that may go on."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._answers: list[list[Use]] = []
        self._asked: set[tuple[str, str]] = set()

    def takes(self, uses: Sequence[Use], free: set[frozenset[str]]) -> bool:
        """Whether an answer can be part of it."""
        if not uses or any(use.call is None or use.call.failed for use in uses):
            return False
        if (
            sum(map(len, self._answers)) > MOST_CALLS
        ):  # of the first it is known no more who needed them
            return False
        named = {use.name for use in uses}
        apart = all(frozenset((old, new)) in free for old in self.names for new in named)
        return apart and self._asked.isdisjoint(map(_asked, uses))

    def add(self, uses: list[Use]) -> None:
        self.names.update(use.name for use in uses)
        self._asked.update(map(_asked, uses))
        self._answers.append(uses)

    def close(self, at_once: int) -> Iterator[Run]:
        answers = self._answers
        if len(answers) > 1:
            apart = sum(until_done_ns([use.took_ns for use in uses], at_once) for uses in answers)
            together = [use.took_ns for uses in answers for use in uses]
            saved_ns = apart - until_done_ns(together, at_once)
            yield Run(len(answers), frozenset(self.names), max(0, saved_ns))


def _together(found: Sequence[Run], groups: Sequence[Group]) -> Iterator[tuple[Group, list[Run]]]:
    """Runs of the same tools, where there are enough to say something, of a few sets of tools, those
    that save most; the others by the group that they are of, the first of several."""
    same: defaultdict[Group, list[Run]] = defaultdict(list)
    for run in found:
        same[tuple(sorted(run.names))].append(run)
    left: defaultdict[Group, list[Run]] = defaultdict(list)
    told = 0
    for names in sorted(same, key=lambda each: (-_saved_ns(same[each]), each)):
        if told < _MOST and len(same[names]) >= LEAST:
            told += 1
            yield names, same[names]
        elif group := next((group for group in groups if set(group) >= set(names)), None):
            left[group] += same[names]
    for of_it in left.values():
        if len(of_it) >= LEAST:
            yield tuple(sorted({name for run in of_it for name in run.names})), of_it


def _saved_ns(found: Iterable[Run]) -> int:
    return sum(run.saved_ns for run in found)


def _step(uses: Sequence[Use]) -> Step:
    return Step(tuple(use.call for use in uses if use.call is not None))


def _asked(use: Use) -> tuple[str, str]:
    """What it asks for; the same text for the same arguments."""
    given = None if use.call is None else use.call.arguments
    return use.name, json.dumps(given, sort_keys=True)


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them; one by itself is for several calls."""
    if len(names) == 1:
        return f"all calls of {names[0]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"
