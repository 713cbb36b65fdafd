"""What can go wrong with an endpoint, and for how long."""

from enum import StrEnum
from typing import final

import msgspec

from paceline.errors import AgentError, Category, PacelineError
from paceline.testing.simulation.agenda import SECOND
from paceline.testing.simulation.endpoint import Endpoint

__all__ = ["Front", "Incident", "Trouble", "flapping", "lost"]


class Trouble(StrEnum):
    """Kinds of trouble."""

    SLOW = "slow"
    """Everything takes `factor` times as long."""
    FAILING = "failing"
    """What comes is refused with an error, after `after_s`; what is under way goes on."""
    DOWN = "down"
    """What is under way is lost, and what comes cannot connect."""
    LIMITED = "limited"
    """More than `per_s` requests a second are refused, and told to come back."""


class Incident(msgspec.Struct, frozen=True):
    """Trouble at one endpoint, or at all of them if none is named, from `from_s` to `until_s`."""

    trouble: Trouble
    from_s: float
    until_s: float
    endpoint: str = ""
    factor: float = 5.0
    after_s: float = 0.02
    per_s: float = 1.0


def flapping(
    endpoint: str, from_s: float, until_s: float, *, period_s: float, down: float = 0.5
) -> list[Incident]:
    """Down for a share of each period, up for the rest."""
    count = int((until_s - from_s) // period_s)
    begins = [from_s + period_s * number for number in range(count)]
    return [Incident(Trouble.DOWN, begin, begin + down * period_s, endpoint) for begin in begins]


@final
class Front:
    """What stands before an endpoint: it lets work in, or says why not."""

    __slots__ = ("_endpoint", "_incidents", "_room", "_seen_ns")

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._incidents: list[Incident] = []
        self._room = 1.0  # requests that may come at once, where they are limited
        self._seen_ns = 0

    def begin(self, incident: Incident) -> None:
        """The trouble begins."""
        self._incidents.append(incident)
        self._pace()

    def end(self, incident: Incident) -> None:
        """The trouble is over."""
        self._incidents.remove(incident)
        self._pace()

    def refuses(self, now_ns: int) -> tuple[PacelineError, int] | None:
        """The error that work that comes now ends with, and after how many nanoseconds."""
        for incident in self._incidents:
            match incident.trouble:
                case Trouble.DOWN:
                    return lost(self._endpoint.id), round(0.001 * SECOND)
                case Trouble.FAILING:
                    error = AgentError(f"{self._endpoint.id} failed", category=Category.UNAVAILABLE)
                    return error, round(incident.after_s * SECOND)
                case Trouble.LIMITED if not self._has_room(incident.per_s, now_ns):
                    error = AgentError(
                        f"{self._endpoint.id} has had enough",
                        category=Category.RATE_LIMIT,
                        retry_after_s=(1 - self._room) / incident.per_s,
                    )
                    return error, round(incident.after_s * SECOND)
                case _:
                    pass
        return None

    def _pace(self) -> None:
        slowed = 1.0
        for incident in self._incidents:
            if incident.trouble is Trouble.SLOW:
                slowed *= incident.factor
        if slowed != self._endpoint.slowed:
            self._endpoint.pace_by(slowed)

    def _has_room(self, per_s: float, now_ns: int) -> bool:
        """A bucket that holds what may come in a second."""
        filled = self._room + (now_ns - self._seen_ns) / SECOND * per_s
        self._room = min(max(1.0, per_s), filled)
        self._seen_ns = now_ns
        if self._room < 1:
            return False
        self._room -= 1
        return True


def lost(endpoint: str) -> PacelineError:
    """The error of work that an endpoint lost."""
    return AgentError(f"{endpoint} is down", category=Category.NETWORK, may_have_started=True)
