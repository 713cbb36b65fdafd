"""An operator's ejection: an instance gets nothing until a moment, or until it is restored."""

from typing import TYPE_CHECKING, final

from paceline.balance.instance import AgentInstance
from paceline.errors import Shortage

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["Ejection", "eject", "restore"]


@final
class Ejection:
    """The guard of an instance that somebody has ejected by hand. Learns nothing from its work."""

    __slots__ = ("until_ns",)

    def __init__(self) -> None:
        """Begins by being over."""
        self.until_ns = 0

    @property
    def reason(self) -> Shortage:
        """What its instance is short of meanwhile."""
        return Shortage.UNHEALTHY

    def opens_ns(self) -> int:
        """When the ejection ends."""
        return self.until_ns

    def admit(self, request: "Request") -> object:  # noqa: ARG002 (a Guard's)
        """Whoever finds it open may go in."""
        return self

    def ended(self, permit: object, lease: "Lease") -> None:
        """Nothing follows from it."""


def eject(instance: AgentInstance, until_ns: int) -> None:
    """Gives an instance nothing new until a moment of the monotonic clock, or NEVER; what it has
    goes on. From any thread; again with the same moment does nothing."""
    guard = _guard_of(instance)
    if guard is None:
        guard = Ejection()
        instance.guards = (*instance.guards, guard)
    _close(instance, guard, until_ns)


def restore(instance: AgentInstance) -> None:
    """Takes an ejection back, if there is one. From any thread."""
    guard = _guard_of(instance)
    if guard is not None:
        _close(instance, guard, 0)


def _guard_of(instance: AgentInstance) -> Ejection | None:
    return next((guard for guard in instance.guards if isinstance(guard, Ejection)), None)


def _close(instance: AgentInstance, guard: Ejection, until_ns: int) -> None:
    if guard.until_ns != until_ns:
        guard.until_ns = until_ns
        instance.changed()
