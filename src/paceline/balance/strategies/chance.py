"""By chance: any, or in proportion to what each has to offer."""

import random
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, final

from paceline.balance.instance import AgentInstance
from paceline.balance.request import Request
from paceline.balance.strategy import Strategy
from paceline.clock import Clock

__all__ = ["Uniform", "Weighted"]

_TRIES: Final = 4


@final
class Uniform(Strategy):
    """Any of them, each as likely as the others."""

    __slots__ = ("_random",)

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:  # noqa: ARG002 (as all are made)
        self._random = rng.random

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        return candidates[int(self._random() * len(candidates))]


@final
class Weighted(Strategy):
    """Each as likely as its weight times the share of its limit that is free.

    Found by rejection (J. von Neumann, 1951), which costs the same for any number of instances: any
    of them, kept with the chance of its weight over the greatest. After a few that were not kept
    all are weighed, so it takes no longer where one outweighs all.
    """

    __slots__ = ("_most", "_random", "_weights")

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:  # noqa: ARG002 (as all are made)
        self._random = rng.random
        self._weights: dict[AgentInstance, float] = {}
        self._most = 0.0

    def joined(self, instance: AgentInstance) -> None:
        self._weights[instance] = instance.weight
        self._most = max(self._weights.values())

    def changed(self, instance: AgentInstance) -> None:
        if instance.weight != self._weights[instance]:
            self.joined(instance)

    def left(self, instance: AgentInstance) -> None:
        del self._weights[instance]
        self._most = max(self._weights.values(), default=0.0)

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        chance, count, most = self._random, len(candidates), self._most
        for _ in range(_TRIES):
            place = chance() * count
            number = int(place)
            if (place - number) * most < candidates[number].share:
                return candidates[number]
        sums = list(accumulate([instance.share for instance in candidates]))
        place = bisect(sums, chance() * sums[-1])
        return candidates[min(place, count - 1)]  # rounding may reach the very end
