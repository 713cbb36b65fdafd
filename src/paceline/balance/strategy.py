"""How one of several instances is chosen: the protocol that every strategy follows."""

import reprlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from paceline.balance.instance import AgentInstance
from paceline.errors import PacelineError, UsageError

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["LoadBalancingStrategy", "Pick", "Strategy", "pick_of"]

Pick = Callable[[Sequence[AgentInstance], "Request", int], AgentInstance]

_OURS: Final = "paceline.balance.strategies."


class LoadBalancingStrategy(StrEnum):
    """The strategies that come with Paceline, by name."""

    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"
    WEIGHTED = "weighted"
    RANDOM = "random"
    SMOOTH_WEIGHTED = "smooth_weighted"
    POWER_OF_TWO = "power_of_two"
    PEAK_EWMA = "peak_ewma"
    CONSISTENT_HASH = "consistent_hash"
    PREQUAL = "prequal"
    CHEAPEST = "cheapest"
    CACHE_AWARE = "cache_aware"
    LEARNED_WORK = "learned_work"


class Strategy:
    """Chooses; a new one overrides `pick`, and of the rest what it has to know.

    One strategy object serves one type of agent, on one clock, called by one thread at a time. It
    does no I/O and is deterministic given its clock and its random numbers.
    """

    __slots__ = ()

    def pick(
        self,
        candidates: Sequence[AgentInstance],  # noqa: ARG002 (for who overrides it)
        request: "Request",  # noqa: ARG002
        now_ns: int,  # noqa: ARG002
    ) -> AgentInstance:
        """One of `candidates`: at least one, all able to take the request now, in the order in
        which they were registered."""
        raise UsageError(
            f"the strategy {type(self).__name__} does not choose", next_step="Override `pick`."
        )

    def joined(self, instance: AgentInstance) -> None:
        """The instance was registered, or this strategy took over with it there."""

    def changed(self, instance: AgentInstance) -> None:
        """Something about the instance may not be what it was: weight, limit, features, health."""

    def left(self, instance: AgentInstance) -> None:
        """The instance is gone."""

    def sent(self, lease: "Lease") -> None:
        """Work was sent to the instance that was picked, or to another for reasons of its own."""

    def answered(self, lease: "Lease") -> None:
        """The first token of the answer has come (`lease.first_ns`)."""

    def ended(self, lease: "Lease") -> None:
        """The work is over, and `in_flight` is already lower."""


def pick_of(strategy: Strategy) -> Pick:
    """How a strategy chooses. Of one that is not ours, what goes wrong in it is a UsageError that
    names it, and so is a choice that is none of the candidates."""
    name, pick = type(strategy).__name__, strategy.pick
    if type(strategy).__module__.startswith(_OURS):  # known not to, and looking costs time
        return pick

    def checked(
        candidates: Sequence[AgentInstance], request: "Request", now_ns: int
    ) -> AgentInstance:
        chosen: object
        try:
            chosen = pick(candidates, request, now_ns)
        except PacelineError:
            raise
        except Exception as exc:
            raise UsageError(
                f"the strategy {name} failed: {type(exc).__name__}: {exc}",
                next_step="Correct its `pick`; the cause of this error says where.",
            ) from exc
        for one in candidates:
            if one is chosen:
                return one
        known = isinstance(chosen, AgentInstance)
        shown = f"instance {chosen.id}" if known else reprlib.repr(chosen)
        raise UsageError(
            f"the strategy {name} chose {shown}, which cannot be chosen now",
            next_step="`pick` has to return one of `candidates`.",
        )

    return checked
