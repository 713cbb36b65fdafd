"""The recorded calls of agents, sorted the ways that rules look at them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from paceline.call import Kind, Source
from paceline.history.record import Record
from paceline.usage import spent_on

__all__ = ["NS", "AgentCalls", "by_agent", "cost_usd", "executed", "quantile"]

NS: Final = 1_000_000_000


class AgentCalls(NamedTuple):
    """The calls of one agent, in the order in which they began.

    `results` has those that would share a result, each group in that order; what was not recorded
    with its input or output is in none.
    """

    name: str
    calls: Sequence[Record]
    results: Sequence[Sequence[Record]]

    @property
    def done(self) -> list[Record]:
        """Executions that succeeded."""
        return [call for call in self.calls if executed(call) and call.trouble is None]


def by_agent(records: Iterable[Record]) -> list[AgentCalls]:
    """The calls of each agent, by name; those of tools and models are left out."""
    calls: defaultdict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda one: one.start_ns):
        wrong_guess = record.speculated and record.trouble is not None
        if record.kind is Kind.AGENT and not wrong_guess:
            calls[record.name].append(record)
    return [AgentCalls(name, of_it, _results(of_it)) for name, of_it in sorted(calls.items())]


def executed(record: Record) -> bool:
    """Whether it was executed itself, however that ended."""
    return record.source is Source.EXECUTED and record.attempts > 0


def cost_usd(record: Record) -> float:
    """What it cost, 0 where that is not known."""
    return spent_on(record, record.price_usd).cost_usd or 0.0


def quantile(ascending: Sequence[int], q: float) -> int:
    """The value at a rank of 0..1 of a sequence in ascending order, which is not empty."""
    return ascending[min(len(ascending) - 1, int(q * len(ascending)))]


def _results(calls: Sequence[Record]) -> list[list[Record]]:
    groups: defaultdict[tuple[object, ...], list[Record]] = defaultdict(list)
    for call in calls:
        if call.input_hash is not None:
            groups[call.input_hash, *call.sharers].append(call)
    return list(groups.values())
