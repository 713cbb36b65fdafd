"""What kept sessions say of the answers of models: which tools each asked for, and how long they
took."""

import heapq
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from paceline.predict.events import Called, Said

__all__ = ["Answered", "Event", "Use", "asked_for", "until_done_ns"]


class Use(msgspec.Struct, frozen=True):
    """One call that an answer asked for. `call` is None where the arguments were none at all; `took_ns`
    is what executing it took, 0 where it was not, and `queue_ns` how long it waited before; `refused`
    why it was not run, if its arguments are the reason."""

    name: str
    call: Called | None
    took_ns: int = 0
    refused: str | None = None
    queue_ns: int = 0


class Answered(msgspec.Struct, frozen=True):
    """An answer that asked for tools, and what came of them, in its order."""

    uses: tuple[Use, ...]


Event: TypeAlias = Said | Answered


def asked_for(sessions: Iterable[Iterable[Event]]) -> set[str]:
    """The names of all tools that answers asked for."""
    answers = (event for session in sessions for event in session if isinstance(event, Answered))
    return {use.name for answer in answers for use in answer.uses}


def until_done_ns(took_ns: Iterable[int], at_once: int) -> int:
    """How long calls take that are asked for together, so many at once, in their order."""
    ends = [0] * at_once
    for each in took_ns:
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)
