"""How the instances of a type stand, as typed figures."""

from typing import Any

import msgspec

from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.errors import Shortage

__all__ = ["FleetStatus", "InstanceStatus", "status_of"]


class InstanceStatus(msgspec.Struct, frozen=True):
    """One instance at a moment.

    `shortage` is why it gets nothing now, None if it may be chosen. `response_time_ms` (a
    mean), `p95_ms` and `error_rate` (0..1) are of the last 128 ends; None without any.
    """

    id: str
    in_flight: int
    limit: int
    max_capacity: int
    weight: float
    healthy: bool
    draining: bool
    ejected: bool
    shortage: Shortage | None
    response_time_ms: float
    p95_ms: float | None
    error_rate: float | None


class FleetStatus(msgspec.Struct, frozen=True):
    """All instances of a type at a moment.

    `total_capacity` is what they could take were all of them well, `usable_capacity` the limits of
    those that are. `waiting` are callers in the queue; `expired` leases ended without a release.
    """

    agent_type: str
    strategy: str
    instances: tuple[InstanceStatus, ...]
    total_capacity: int
    usable_capacity: int
    in_flight: int
    healthy: int
    draining: int
    ejected: int
    waiting: int
    expired: int

    @property
    def load(self) -> float | None:
        """In flight of the total capacity, 0..1; None where that is zero."""
        return self.in_flight / self.total_capacity if self.total_capacity else None

    def as_text(self) -> dict[str, Any]:
        """The same in the form of older bots, with percentages as text."""
        return {
            "instances": len(self.instances),
            "healthy": self.healthy,
            "total_capacity": self.total_capacity,
            "current_load": self.in_flight,
            "load_percentage": "0%" if self.load is None else f"{100 * self.load:.1f}%",
            "instances_detail": [
                {
                    "id": one.id,
                    "load": f"{one.in_flight}/{one.max_capacity}",
                    "load_pct": f"{_percentage(one):.1f}%",
                    "healthy": one.healthy,
                }
                for one in self.instances
            ],
        }


def status_of(fleet: Fleet, *, strategy: str, waiting: int) -> FleetStatus:
    """How a fleet stands now."""
    fleet.candidates()  # what is due by now, such as the end of an ejection, is done
    ones = tuple([_status(instance) for instance in tuple(fleet.instances.values())])
    return FleetStatus(
        agent_type=fleet.name,
        strategy=strategy,
        instances=ones,
        total_capacity=sum([one.max_capacity for one in ones]),
        usable_capacity=sum([one.limit for one in ones if one.shortage in {None, Shortage.FULL}]),
        in_flight=sum([one.in_flight for one in ones]),
        healthy=sum([one.healthy for one in ones]),
        draining=sum([one.draining for one in ones]),
        ejected=sum([one.ejected for one in ones]),
        waiting=waiting,
        expired=fleet.expired,
    )


def _status(instance: AgentInstance) -> InstanceStatus:
    return InstanceStatus(
        id=instance.id,
        in_flight=instance.in_flight,
        limit=instance.limit,
        max_capacity=instance.max_capacity,
        weight=instance.weight,
        healthy=instance.is_healthy,
        draining=instance.draining,
        ejected=instance.ejected,
        shortage=instance.shortage,
        response_time_ms=instance.response_time_ms,
        p95_ms=instance.p95_ms,
        error_rate=instance.error_rate,
    )


def _percentage(one: InstanceStatus) -> float:
    return 100.0 * one.in_flight / one.max_capacity if one.max_capacity else 100.0
