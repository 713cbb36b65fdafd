"""The recorded calls, by what was called, sorted the ways that rules look at them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from paceline.call import Kind, Source
from paceline.errors import Category
from paceline.history.record import Record
from paceline.usage import spent_on

__all__ = [
    "NS",
    "Callee",
    "by_callee",
    "cost_usd",
    "executed",
    "failures",
    "is_turn",
    "outermost",
    "quantile",
]

NS: Final = 1_000_000_000


class Callee(NamedTuple):
    """The calls of one agent, tool or model, in the order in which they began.

    `results` has those that would share a result, each group in that order; what was not recorded
    with its input or output is in none.
    """

    kind: Kind
    name: str
    calls: Sequence[Record]
    results: Sequence[Sequence[Record]]

    @property
    def done(self) -> list[Record]:
        """Executions that succeeded."""
        return [call for call in self.calls if executed(call) and call.trouble is None]

    @property
    def served(self) -> bool:
        """Whether any of its results was kept and served again. To have joined an execution that
        still ran does not need that."""
        return any(call.source.cached and call.source is not Source.JOINED for call in self.calls)


def by_callee(records: Iterable[Record]) -> list[Callee]:
    """The calls of each agent, tool and model, by name. Turns of sessions are left out: they
    contain calls, and are none."""
    calls: defaultdict[tuple[str, Kind], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda one: one.start_ns):
        wrong_guess = record.speculated and record.trouble is not None
        if not wrong_guess and not is_turn(record):
            calls[record.name, record.kind].append(record)
    return [
        Callee(kind, name, of_it, _results(of_it)) for (name, kind), of_it in sorted(calls.items())
    ]


def executed(record: Record) -> bool:
    """Whether it was executed itself, however that ended."""
    return record.source is Source.EXECUTED and record.attempts > 0


def failures(callee: Callee) -> tuple[list[Record], list[Record]]:
    """Executions that somebody asked for and that came to an end of their own, and those of them that
    failed."""
    cancelled = Category.CANCELLED
    ran = [c for c in callee.calls if executed(c) and c.asked and c.trouble is not cancelled]
    return ran, [call for call in ran if call.trouble is not None]


def is_turn(record: Record) -> bool:
    """Whether it is a turn of a session, which is recorded as a call."""
    return record.kind is Kind.AGENT and _is_turn(record.id, record)


def outermost(record: Record) -> bool:
    """Whether it is made in the course of no other call, whose places it would use."""
    return record.parent is None or _is_turn(record.parent, record)


def cost_usd(record: Record) -> float:
    """What it cost, 0 where that is not known."""
    return spent_on(record, record.price_usd).cost_usd or 0.0


def quantile(ascending: Sequence[int], q: float) -> int:
    """The value at a rank of 0..1 of a sequence in ascending order, which is not empty."""
    return ascending[min(len(ascending) - 1, int(q * len(ascending)))]


def _is_turn(call_id: str, record: Record) -> bool:
    """The ids of turns are their session's, with a number or two."""
    return record.session is not None and call_id.startswith(f"{record.session}.")


def _results(calls: Sequence[Record]) -> list[list[Record]]:
    groups: defaultdict[tuple[object, ...], list[Record]] = defaultdict(list)
    for call in calls:
        if call.input_hash is not None:
            groups[call.input_hash, *call.sharers].append(call)
    return list(groups.values())
