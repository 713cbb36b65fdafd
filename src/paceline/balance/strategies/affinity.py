"""Cache-aware: to who has most of the prompt's beginning, unless that makes loads too unequal."""

from collections.abc import Sequence
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, Final, final

from paceline.balance.strategies.prefixes import BLOCK_TOKENS, PrefixIndex
from paceline.balance.strategy import Strategy
from paceline.clock import Clock

if TYPE_CHECKING:
    from paceline.balance.instance import AgentInstance
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["CacheAware"]

_MOST_HOLDERS: Final = 4
"""So many of those that hold the same are looked at."""

_in_flight = attrgetter("in_flight")
_rank = attrgetter("rank")


@final
class CacheAware(Strategy):
    """The rule of SGLang's router, with thresholds for few instances.

    An instance that holds at least the share `threshold` of a prompt gets it, the one that holds
    most first. Loads are too unequal when the greatest number in flight is more than `absolute`
    above the least and more than `relative` times it. Then an instance that holds the prompt gets
    it only if it is not itself that much above the least; so nothing is sent away from its cache
    because of what others have to do. Else the least loaded gets it.

    Work counts from the moment at which it is sent, and what missed goes to the least loaded, so
    a prompt that nobody knows does not follow the one before it.
    """

    __slots__ = ("_absolute", "_index", "_random", "_relative", "_threshold")

    def __init__(
        self,
        *,
        clock: Clock,  # noqa: ARG002 (as all are made)
        rng: Random,
        threshold: float = 0.3,
        absolute: int = 8,
        relative: float = 1.3,
        index: PrefixIndex | None = None,
    ) -> None:
        """`index` is an empty one of another size than usual."""
        self._threshold = threshold
        self._absolute = absolute
        self._relative = relative
        self._random = rng.random
        self._index = PrefixIndex() if index is None else index

    def joined(self, instance: "AgentInstance") -> None:
        self._index.joined(instance)

    def left(self, instance: "AgentInstance") -> None:
        self._index.left(instance)

    def pick(
        self,
        candidates: Sequence["AgentInstance"],
        request: "Request",
        now_ns: int,  # noqa: ARG002 (others go by it)
    ) -> "AgentInstance":
        levels = self._index.levels(request.blocks)
        if not levels:
            return min(candidates, key=_rank)
        enough = self._threshold * len(request.blocks)
        low = min(map(_in_flight, candidates))
        limit = max(low + self._absolute, low * self._relative)
        for bits, depth in reversed(levels):
            if depth < enough:
                break
            holders = self._index.holders(bits, candidates, _MOST_HOLDERS, self._random())
            if holders:
                best = min(holders, key=_rank)
                if best.in_flight <= limit:
                    return best
        return min(candidates, key=_rank)

    def sent(self, lease: "Lease") -> None:
        if lease.request.blocks:
            lease.note = self._index.insert(lease.instance, lease.request.blocks)

    def ended(self, lease: "Lease") -> None:
        known = lease.note
        if isinstance(known, int) and lease.tokens is not None and lease.error is None:
            self._index.calibrate(lease.instance, known, lease.tokens.cached_input / BLOCK_TOKENS)
