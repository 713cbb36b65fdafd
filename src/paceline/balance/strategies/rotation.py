"""One after the other: round robin, plain and weighted."""

import random
from collections.abc import Sequence
from operator import attrgetter
from typing import final

from paceline.balance.instance import AgentInstance
from paceline.balance.request import Request
from paceline.balance.strategy import Strategy
from paceline.clock import Clock

__all__ = ["RoundRobin", "SmoothWeighted"]

_note = attrgetter("note")


@final
class RoundRobin(Strategy):
    """Whoever was chosen longest ago.

    With everybody there that is the order of registration. Who was away is next when it is back,
    once: so an instance that comes and goes takes no turn from the others, nor gives one of them
    two.
    """

    __slots__ = ("_turn",)

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:  # noqa: ARG002 (as all are made)
        self._turn = 0

    def joined(self, instance: AgentInstance) -> None:
        instance.note = 0

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        chosen = min(candidates, key=_note)
        self._turn += 1
        chosen.note = self._turn
        return chosen


@final
class SmoothWeighted(Strategy):
    """By weight, evenly spread: who is chosen is next again when, at its pace, its time has come.

    Each moves on by 1 / weight for a turn, and who has come least far is next (start-time fair
    queueing: P. Goyal, H. Vin and H. Cheng, 1996, with turns for packets). Two that are both there
    never get further apart than a turn of each. Who was away goes on from where the others are.
    """

    __slots__ = ("_reached",)

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:  # noqa: ARG002 (as all are made)
        self._reached = 0.0

    def joined(self, instance: AgentInstance) -> None:
        # Half a turn late, so that the light ones do not all come first.
        instance.note = self._reached + (0.5 / instance.weight if instance.weight else 0.0)

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        chosen = min(candidates, key=_note)
        reached: float = chosen.note
        reached = max(reached, self._reached)
        self._reached = reached
        chosen.note = reached + 1.0 / chosen.weight
        return chosen
