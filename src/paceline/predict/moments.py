"""When a prediction is made."""

from enum import StrEnum

__all__ = ["Moment", "scored_as"]


class Moment(StrEnum):
    """What a session waits for when it is predicted what it will call. How good predictions are is
    another question in each."""

    REPLY = "reply"
    """The model is asked: the calls of its answer."""
    TOOLS = "tools"
    """Tools run: the calls of the answer after them."""
    IDLE = "idle"
    """The user has said nothing yet: the calls of the first answer to what comes."""


def scored_as(moment: Moment, name: str) -> str:
    """What proposals of a tool are scored as: how good they are depends on when they are made."""
    return name if moment is Moment.REPLY else f"{moment} {name}"
