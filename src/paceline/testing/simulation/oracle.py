"""The choice of one who knows everything but the future."""

import random
from collections.abc import Sequence
from typing import final

from paceline.balance.instance import AgentInstance
from paceline.balance.request import Request
from paceline.balance.strategy import Strategy
from paceline.clock import Clock
from paceline.testing.simulation.endpoint import Endpoint

__all__ = ["Oracle"]


@final
class Oracle(Strategy):
    """Sends work where the sum of all times grows least, as things are: its own time there, and
    what it costs the work that is there already.

    It looks into the endpoints of a simulation: their true pace, queues and caches; and it wants
    requests that tell how long their answers will be (`lengths_known`). It is greedy, so it can be
    beaten.
    """

    __slots__ = ()

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        """Has no use for either."""

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,
        now_ns: int,  # noqa: ARG002 (others go by it)
    ) -> AgentInstance:
        """The one where it costs least."""
        length = request.output_tokens or 1
        return min(candidates, key=lambda instance: _cost_s(instance, request, length))


def _cost_s(instance: AgentInstance, request: Request, length: int) -> float:
    """Seconds: until its first token, of its answer, and of delay to what is there."""
    endpoint = instance.target
    assert isinstance(endpoint, Endpoint)
    engine, pace = endpoint.engine, endpoint.pace
    prefill = engine.prefill_per_s * pace
    unread = endpoint.unread_tokens(request)
    others = instance.in_flight
    first = (endpoint.backlog_tokens() + unread) / prefill
    each = engine.answer_s / pace
    answer = length * (engine.step_s / pace + each * (others + 1))
    delay = others * (unread / prefill + each * length)
    return first + answer + delay
