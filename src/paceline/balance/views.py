"""The instances with what a piece of work needs, those that may be chosen kept apart."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from operator import attrgetter
from typing import Final, final

from paceline.balance.instance import AgentInstance
from paceline.balance.request import Needs

__all__ = ["View", "by_order", "has"]

by_order: Final = attrgetter("order")
"""The order of registration."""


@final
class View:
    """The instances with what somebody needs; of these, those that may be chosen now, in tiers:
    first the ones that have most of what is preferred."""

    __slots__ = ("members", "tiers")

    def __init__(self, needs: Needs, instances: Iterable[AgentInstance]) -> None:
        preferred = {i: _preferred(i, needs) for i in instances if has(i, needs)}
        levels = sorted(set(preferred.values()) or {0}, reverse=True)
        self.tiers: tuple[list[AgentInstance], ...] = tuple([[] for _ in levels])
        self.members = {i: self.tiers[levels.index(n)] for i, n in preferred.items()}
        for instance, tier in self.members.items():
            if instance.shortage is None:
                tier.append(instance)

    def put(self, instance: AgentInstance) -> None:
        """It may be chosen from now on, or no longer."""
        tier = self.members.get(instance)
        if tier is None:
            return
        if instance.shortage is None:
            insort(tier, instance, key=by_order)
        else:
            del tier[bisect_left(tier, instance.order, key=by_order)]


def has(instance: AgentInstance, needs: Needs) -> bool:
    """Whether an instance has what is needed."""
    has = instance.features
    return (
        (not has.context_window or has.context_window >= needs.context_window)
        and needs.modalities <= has.modalities
        and all(has.labels.get(name) == value for name, value in needs.labels)
        and (needs.most_input_usd is None or has.input_usd <= needs.most_input_usd)
    )


def _preferred(instance: AgentInstance, needs: Needs) -> int:
    has = instance.features
    labels = sum([has.labels.get(name) == value for name, value in needs.preferred_labels])
    return labels + bool(needs.preferred_zone and has.zone == needs.preferred_zone)
