"""What instances failed with last, for whoever is told that none can be asked. Pure."""

from collections.abc import Iterable
from typing import Final, final

from paceline.balance.circuit import counts_at_instance
from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease
from paceline.errors import Category, Shortage

__all__ = ["LastFailures"]

_LEFT_ALONE: Final = frozenset({Shortage.UNHEALTHY, Shortage.CIRCUIT_OPEN})
_MOST_SAID: Final = 200
"""Characters of a message."""


@final
class LastFailures:
    """The failure of each instance whose last work failed.

    Of the errors that say something of the instance: what the work itself raised may say what
    somebody asked for, and is not for others.
    """

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: dict[AgentInstance, str] = {}

    def note(self, lease: Lease) -> None:
        """The work of a lease has ended."""
        instance, error = lease.instance, lease.error
        if lease.abandoned:
            return
        if error is None or error.category is Category.EXECUTION:
            if self._said:
                self._said.pop(instance, None)
        elif counts_at_instance(error):
            self._said[instance] = " ".join(error.message.split())

    def forget(self, instance: AgentInstance) -> None:
        """The instance is gone."""
        self._said.pop(instance, None)

    def told(self, instances: Iterable[AgentInstance]) -> str:
        """The failure of the first of these that is left alone, to go on a message with; nothing if
        there is none."""
        for instance in instances:
            said = self._said.get(instance)
            if said is not None and instance.shortage in _LEFT_ALONE:
                named = f"instance {instance.id}: "
                text = f"; {named}{said.removeprefix(named)}"
                return text if len(text) <= _MOST_SAID else f"{text[: _MOST_SAID - 1]}…"
        return ""
