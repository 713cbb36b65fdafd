"""All rules, over one history."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from paceline.advise.advice import LEAST, Advice, ordered
from paceline.advise.answers import Event
from paceline.advise.caching import cache_off, not_cached, ttl_long, ttl_short
from paceline.advise.calls import Callee, by_callee
from paceline.advise.concurrency import concurrency
from paceline.advise.declared import Known
from paceline.advise.failing import failing, misused
from paceline.advise.failures import retry, stale_if_error
from paceline.advise.places import places
from paceline.advise.repeated import repeated
from paceline.advise.side_by_side import Group, side_by_side
from paceline.advise.sizing import file_size, memory_size
from paceline.advise.time_limits import time_limit
from paceline.call import Kind
from paceline.history.record import Record

__all__ = ["Advised", "advise"]

_OF_ONE: Final[tuple[Callable[[Callee, Known], Iterator[Advice]], ...]] = (
    not_cached,
    ttl_short,
    ttl_long,
    time_limit,
    retry,
    stale_if_error,
    failing,
    repeated,
)
_OF_ALL: Final[tuple[Callable[[Sequence[Callee], Known], Iterator[Advice]], ...]] = (
    cache_off,
    file_size,
    memory_size,
    concurrency,
)
_LIFETIMES: Final = frozenset({"not_cached", "ttl_short"})


class Advised(msgspec.Struct, frozen=True):
    """The advice, what saves most first; of how many calls it is, of how many agents and tools, and
    for how many of these there were too few calls to say anything."""

    advice: tuple[Advice, ...]
    calls: int
    agents: int
    too_few: int
    tools: int = 0


def advise(
    records: Iterable[Record],
    known: Known,
    *,
    agent: str | None = None,
    sessions: Sequence[Sequence[Event]] = (),
    groups: Sequence[Group] = (),
) -> Advised:
    """What to change, by the recorded calls, in any order; for one agent or tool only if it is named.

    `sessions` are those that were kept, `groups` the tools that may run side by side by what was
    learnt. Nothing rests on fewer than `LEAST` calls. All calls are looked at in any case: agents and
    tools share limits, and the cache.
    """
    callees = by_callee(records)
    advised = [one for one in callees if one.kind is not Kind.MODEL]
    found = [advice for rule in _OF_ALL for advice in rule(callees, known)]
    for one in advised:
        of_it = [advice for rule in _OF_ONE for advice in rule(one, known)]
        found += _once(of_it) if known.of(one).repeatable else of_it
    found += misused(sessions)
    found += places(sessions, known)
    found += side_by_side(sessions, groups, known.settings.chat.max_concurrent_tools)
    meant = [one for one in advised if agent in (None, one.name)]
    of_tools = sum(one.kind is Kind.TOOL for one in meant)
    return Advised(
        tuple(ordered(one for one in found if agent in (None, one.agent, *one.tools))),
        sum(len(one.calls) for one in meant),
        len(meant) - of_tools,
        sum(len(one.calls) < LEAST for one in meant),
        of_tools,
    )


def _once(found: Sequence[Advice]) -> Iterator[Advice]:
    """Without what is said of repetitions in sessions where a lifetime answers these too; its figures
    have them."""
    kept = any(one.rule in _LIFETIMES for one in found)
    return (one for one in found if not (kept and one.rule == "repeated"))
