"""What answers: the one protocol of all models."""

from typing import Protocol, runtime_checkable

from paceline.messages import Hear, ModelReply, ModelRequest

__all__ = ["Model", "is_model"]


@runtime_checkable
class Model(Protocol):
    """Something that answers messages, and may ask for tools to be run.

    A model that holds connections or processes is an async context manager too.
    """

    @property
    def name(self) -> str:
        """What figures and prices call it."""
        ...

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The whole answer. `hear` is told its parts as they come: text in pieces, and each tool use
        as soon as its arguments are complete; never Restarted, as each call answers once.

        Raises PacelineError; errors of other libraries end here. Cancelled, it stops asking.
        """
        ...


def is_model(value: object) -> bool:
    """Whether it is a Model itself, and not its class."""
    # `isinstance` of a protocol says the same, and takes longer than opening a session.
    there = callable(getattr(value, "complete", None)) and hasattr(value, "name")
    return there and not isinstance(value, type)
