"""All rules, over one history."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from paceline.advise.advice import LEAST, Advice, ordered
from paceline.advise.caching import cache_off, not_cached, ttl_long, ttl_short
from paceline.advise.calls import AgentCalls, by_agent
from paceline.advise.concurrency import concurrency
from paceline.advise.declared import Known
from paceline.advise.failures import retry, stale_if_error
from paceline.advise.sizing import file_size, memory_size
from paceline.advise.time_limits import time_limit
from paceline.history.record import Record

__all__ = ["Advised", "advise"]

_OF_ONE: Final[tuple[Callable[[AgentCalls, Known], Iterator[Advice]], ...]] = (
    not_cached,
    ttl_short,
    ttl_long,
    time_limit,
    retry,
    stale_if_error,
)
_OF_ALL: Final[tuple[Callable[[Sequence[AgentCalls], Known], Iterator[Advice]], ...]] = (
    cache_off,
    file_size,
    memory_size,
    concurrency,
)


class Advised(msgspec.Struct, frozen=True):
    """The advice, what saves most first; of how many calls of agents it is, and for how many
    agents there were too few calls to say anything."""

    advice: tuple[Advice, ...]
    calls: int
    agents: int
    too_few: int


def advise(records: Iterable[Record], known: Known, *, agent: str | None = None) -> Advised:
    """What to change, by the recorded calls, in any order; for one agent only if it is named.

    Nothing rests on fewer than `LEAST` calls. All calls are looked at in any case: agents share
    limits, and the cache.
    """
    agents = by_agent(records)
    found = [advice for rule in _OF_ALL for advice in rule(agents, known)]
    found += [advice for rule in _OF_ONE for one in agents for advice in rule(one, known)]
    meant = [one for one in agents if agent in (None, one.name)]
    return Advised(
        tuple(ordered(one for one in found if agent in (None, one.agent))),
        sum(len(one.calls) for one in meant),
        len(meant),
        sum(len(one.calls) < LEAST for one in meant),
    )
