"""Consistent hashing: work that belongs together goes to the same instance, which has its cache."""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, Final, final

from paceline.balance.strategy import Strategy
from paceline.clock import Clock

if TYPE_CHECKING:
    from paceline.balance.instance import AgentInstance
    from paceline.balance.request import Request

__all__ = ["ConsistentHash"]

_POINTS: Final = 64
"""Points on the ring of an instance of weight 1."""

_MOST_POINTS: Final = 1_024

_MIX: Final = 0x9E37_79B9_7F4A_7C15
_MASK: Final = (1 << 64) - 1

_in_flight = attrgetter("in_flight")
_rank = attrgetter("rank")


@final
class ConsistentHash(Strategy):
    """Consistent hashing with bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, 2018).

    What has the same `Request.affinity`, or else begins with the same block, goes to the instance
    that owns the next point on a ring of hashes. An instance that joins takes work only over to
    itself, and of one that leaves only its own work moves. No instance gets more than `bound` times
    its share, by weight, of what is in flight at all candidates: what is beyond goes to the next on
    the ring. Work without affinity goes to the least loaded.

    The ring depends on nothing but the ids of instances and their weights, so several balancers
    choose alike.
    """

    __slots__ = ("_bound", "_owners", "_points", "_ring", "_weight", "_weights")

    def __init__(self, *, clock: Clock, rng: Random, bound: float = 1.25) -> None:  # noqa: ARG002 (as all are made)
        """`bound` is above 1: a smaller one spreads better, a greater one moves less."""
        self._bound = max(1.0, bound)
        self._ring: list[tuple[int, str, AgentInstance]] = []
        self._points: list[int] = []
        self._owners: list[AgentInstance] = []
        self._weights: dict[AgentInstance, float] = {}
        self._weight = 0.0

    def joined(self, instance: "AgentInstance") -> None:
        weight = self._weights[instance] = instance.weight or 1.0
        count = min(_MOST_POINTS, max(1, round(_POINTS * weight)))
        name = instance.id
        self._ring += [(_hash(f"{name} {number}"), name, instance) for number in range(count)]
        self._ring.sort()
        self._cut()

    def changed(self, instance: "AgentInstance") -> None:
        if (instance.weight or 1.0) != self._weights[instance]:
            self.left(instance)
            self.joined(instance)

    def left(self, instance: "AgentInstance") -> None:
        del self._weights[instance]
        self._ring = [point for point in self._ring if point[2] is not instance]
        self._cut()

    def pick(
        self,
        candidates: Sequence["AgentInstance"],
        request: "Request",
        now_ns: int,  # noqa: ARG002 (others go by it)
    ) -> "AgentInstance":
        if request.affinity:
            key = _hash(request.affinity)
        elif request.blocks:
            key = (request.blocks[0] * _MIX) & _MASK
        else:
            return min(candidates, key=_rank)
        shared = self._bound * (sum(map(_in_flight, candidates)) + 1)
        owners, weights, weight = self._owners, self._weights, self._weight
        if len(candidates) < len(weights):
            weight = sum(map(weights.__getitem__, candidates))
        start = bisect_left(self._points, key)
        for part in (range(start, len(owners)), range(start)):
            for place in part:
                owner = owners[place]
                if owner.in_flight * weight < shared * weights[owner] and owner in candidates:
                    return owner
        return min(candidates, key=_rank)

    def _cut(self) -> None:
        self._points = [point for point, _, _ in self._ring]
        self._owners = [owner for _, _, owner in self._ring]
        self._weight = sum(self._weights.values())


def _hash(text: str) -> int:
    """The same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
