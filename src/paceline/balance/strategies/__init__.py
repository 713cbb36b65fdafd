"""The strategies that come with Paceline, by name; each is loaded when it is first used."""

import difflib
import random
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from paceline.balance.strategy import LoadBalancingStrategy, Strategy
from paceline.clock import Clock
from paceline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make"]

_HOMES: Final = {
    LoadBalancingStrategy.ROUND_ROBIN: ("rotation", "RoundRobin"),
    LoadBalancingStrategy.SMOOTH_WEIGHTED: ("rotation", "SmoothWeighted"),
    LoadBalancingStrategy.LEAST_LOADED: ("loads", "LeastLoaded"),
    LoadBalancingStrategy.POWER_OF_TWO: ("loads", "PowerOfTwo"),
    LoadBalancingStrategy.PEAK_EWMA: ("loads", "PeakEwma"),
    LoadBalancingStrategy.WEIGHTED: ("chance", "Weighted"),
    LoadBalancingStrategy.RANDOM: ("chance", "Uniform"),
    LoadBalancingStrategy.CONSISTENT_HASH: ("hashing", "ConsistentHash"),
    LoadBalancingStrategy.PREQUAL: ("probing", "Prequal"),
    LoadBalancingStrategy.CHEAPEST: ("price", "Cheapest"),
    LoadBalancingStrategy.CACHE_AWARE: ("affinity", "CacheAware"),
    LoadBalancingStrategy.LEARNED_WORK: ("work", "LearnedWork"),
}


def make(name: str, *, clock: Clock, rng: random.Random) -> Strategy:
    """A new strategy of this name, for one type of agent. Raises UsageError for an unknown one."""
    try:
        module, kind = _HOMES[LoadBalancingStrategy(name)]
    except ValueError:
        near = difflib.get_close_matches(name, list(LoadBalancingStrategy), 1)
        raise UsageError(
            f"there is no strategy {name!r}",
            next_step=f"Did you mean {near[0]}?" if near else f"Choose of {', '.join(_HOMES)}.",
        ) from None
    home = import_module(f"paceline.balance.strategies.{module}")
    maker = cast("Callable[..., Strategy]", getattr(home, kind))
    return maker(clock=clock, rng=rng)
