"""By price: where the work is expected to cost least, as long as that is not too busy."""

import math
from collections.abc import Sequence
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, Final, final

from paceline.balance.strategy import Strategy
from paceline.clock import Clock

if TYPE_CHECKING:
    from paceline.balance.instance import AgentInstance
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["Cheapest"]

_MILLION: Final = 1_000_000
_SHARE: Final = 0.02
"""Of what is new, in moving means."""

_rank = attrgetter("rank")


@final
class _Price:
    """What several instances ask: few prices have to be reckoned for a request, however many ask
    them."""

    __slots__ = ("key", "sellers", "usd")

    def __init__(self, call: float, reading: float, writing: float) -> None:
        self.key = (call, reading, writing)
        """USD for a call, a token read and a token written."""
        self.sellers: set[AgentInstance] = set()
        self.usd = 0.0
        """For the request that is looked at."""


@final
class Cheapest(Strategy):
    """The lowest sum of the expected price and of the load, both as the dial says.

    The price is that of the request's tokens by `AgentInstance.features`, as they were when it was
    registered; where nobody says how long the answer will be, it is taken to be as long as answers
    were of late. The load of an instance is what it has in flight for its limit and weight: at 1,
    when it is full, it counts as much as `load` times the price that requests have of late. Of
    equals the less loaded is chosen, then the one chosen longest ago. A full one is no candidate.
    """

    __slots__ = ("_load", "_output", "_prices", "_usd")

    def __init__(
        self,
        *,
        clock: Clock,  # noqa: ARG002 (as all are made)
        rng: Random,  # noqa: ARG002 (as all are made)
        load: float = 0.25,
        output_tokens: float = 256.0,
    ) -> None:
        """`load` is the dial: 0 for the price alone; with 1 nobody who is full is preferred to who
        is idle and costs less than the usual price more. `output_tokens` is the length of answers
        to begin with."""
        self._load = load
        self._output = output_tokens
        self._prices: dict[tuple[float, float, float], _Price] = {}
        self._usd = 0.0

    def joined(self, instance: "AgentInstance") -> None:
        asked = instance.features
        key = (asked.call_usd, asked.input_usd / _MILLION, asked.output_usd / _MILLION)
        price = instance.note = self._prices.setdefault(key, _Price(*key))
        price.sellers.add(instance)

    def left(self, instance: "AgentInstance") -> None:
        price: _Price = instance.note
        price.sellers.remove(instance)
        if not price.sellers:
            del self._prices[price.key]

    def changed(self, instance: "AgentInstance") -> None:
        self.left(instance)
        self.joined(instance)

    def expected_usd(self, instance: "AgentInstance", request: "Request") -> float:
        """What the work is expected to cost there."""
        price: _Price = instance.note
        call, reading, writing = price.key
        tokens = request.output_tokens
        output = self._output if tokens is None else tokens
        return call + request.input_tokens * reading + output * writing

    def pick(
        self,
        candidates: Sequence["AgentInstance"],
        request: "Request",
        now_ns: int,  # noqa: ARG002 (others go by it)
    ) -> "AgentInstance":
        if len(self._prices) == 1:
            return min(candidates, key=_rank)
        tokens = request.output_tokens
        output = self._output if tokens is None else tokens
        read, usual = request.input_tokens, self._load * self._usd
        for (call, reading, writing), price in self._prices.items():
            price.usd = call + read * reading + output * writing
        best, least, lowest = candidates[0], math.inf, math.inf
        for instance in candidates:
            rank = instance.rank
            cost = instance.note.usd + usual * rank
            if cost <= least and (cost < least or rank < lowest):
                best, least, lowest = instance, cost, rank
        return best

    def sent(self, lease: "Lease") -> None:
        usd = self.expected_usd(lease.instance, lease.request)
        self._usd += (usd - self._usd) * (_SHARE if self._usd else 1.0)

    def ended(self, lease: "Lease") -> None:
        tokens = lease.tokens
        if lease.error is None and tokens is not None and tokens.output:
            self._output += (tokens.output - self._output) * _SHARE
