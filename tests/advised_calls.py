"""Histories of calls of one agent or tool, in which there is something to advise on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from paceline.advise.advice import Advice, Change
from paceline.advise.advisor import advise
from paceline.advise.calls import NS
from paceline.advise.declared import Known
from paceline.advise.time_limits import LEAST_FOR_P99
from paceline.call import Source
from paceline.errors import Category
from paceline.history.record import Record
from paceline.testing.virtual_time import VirtualClock
from tests.recorded import row


class Scene(NamedTuple):
    """A history in which something is seen so many times, and what is to be advised then."""

    rule: str
    records: Callable[[int], list[Record]]
    known: Known
    changes: tuple[Change, ...]


def advised(records: Sequence[Record], by: Known) -> dict[str, Advice]:
    """The advice, by rule."""
    return {advice.rule: advice for advice in advise(records, by).advice}


class Calls:
    """Calls of whom these fields say, and of whom time-outs have others besides."""

    def __init__(self, timed_out: Mapping[str, Any], **fields: Any) -> None:
        self._fields = fields
        self._timed_out = {"category": Category.TIMEOUT, "took_s": 5, **timed_out}

    def call(self, at_s: float, asked: str = "a", said: str = "A", **fields: Any) -> Record:
        """One that was executed in a second and ended then, save what is said."""
        took_ns = round(fields.pop("took_s", 1.0) * NS)
        queue_ns = round(fields.pop("queue_s", 0.0) * NS)
        shape = {
            "input_hash": asked,
            "output_hash": None if fields.get("category") else said,
            "output_bytes": 100,
            "execute_ns": took_ns,
            "queue_ns": queue_ns,
            "total_ns": took_ns + queue_ns,
            "instance": "local:1",
        }
        at_ns = VirtualClock.EPOCH_NS + round(at_s * NS)
        return row(fields.pop("id", f"c{at_s}"), at_ns, **(self._fields | shape | fields))

    def answer(self, at_s: float, asked: str = "a", said: str = "A", **fields: Any) -> Record:
        """One that was answered from memory, unless another place is named."""
        kept: dict[str, Any] = {"took_s": 0.001, "attempts": 0, "source": Source.HOT}
        return self.call(at_s, asked, said, **(kept | fields))

    def timed_out(self, at_s: float, **fields: Any) -> Record:
        """One that was ended after five seconds."""
        return self.call(at_s, f"{at_s}", **(self._timed_out | fields))

    def repeats(self, n: int) -> list[Record]:
        """The same, from time to time."""
        return [self.call(100 * i) for i in range(n + 1)]

    def expiries(self, n: int) -> list[Record]:
        """The same, answered from memory for a while after each."""
        return [
            each for i in range(n + 1) for each in (self.call(200 * i), self.answer(200 * i + 10))
        ]

    def changes(self, n: int) -> list[Record]:
        """What comes out different each time."""
        return [
            each
            for i in range(n + 1)
            for each in (
                self.call(90 * i, said=f"{i}"),
                self.answer(90 * i + 9, said=f"{i}"),
            )
        ]

    def late(self, n: int) -> list[Record]:
        """Time-outs where the others nearly take as long."""
        good = [self.call(10 * i, f"{i}", took_s=3 + i % 2) for i in range(LEAST_FOR_P99)]
        return good + [self.timed_out(5_000 + i) for i in range(n)]

    def flaky(self, n: int) -> list[Record]:
        """Failures of the moment, after each of which the next succeeds."""
        failed = [self.call(20 * i, f"{i}", category=Category.NETWORK) for i in range(n)]
        return failed + [self.call(20 * i + 10, f"{i}b") for i in range(n)]
