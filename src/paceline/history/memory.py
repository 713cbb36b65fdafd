"""A history that lasts as long as its process: for tests, and for running without a disk."""

from collections import deque
from typing import final

from paceline.call import Call, Outcome
from paceline.clock import Clock
from paceline.history.record import Bill, Record, record
from paceline.history.store import MOST_OF_A_RUN, Tally, the_one, too_long
from paceline.redaction import Redactor
from paceline.usage import spent_on

__all__ = ["MemoryHistory"]


@final
class MemoryHistory:
    """Keeps the latest `max_records` records."""

    __slots__ = ("_clock", "_closed", "_keep_inputs", "_lost", "_records", "_redactor")

    def __init__(
        self,
        max_records: int = 1_000,
        *,
        clock: Clock,
        redactor: Redactor | None = None,
        keep_inputs: bool = True,
    ) -> None:
        self._clock = clock
        self._redactor = redactor or Redactor()
        self._keep_inputs = keep_inputs
        self._records: deque[Record] = deque(maxlen=max_records)
        self._lost = 0
        self._closed = False

    @property
    def lost(self) -> int:
        """Calls observed after `close`."""
        return self._lost

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Records a finished call; the oldest makes room."""
        if self._closed:
            self._lost += 1
            return
        self._records.append(
            record(
                call,
                outcome,
                clock=self._clock,
                redactor=self._redactor,
                keep_inputs=self._keep_inputs,
            )
        )

    def query(
        self,
        *,
        name: str | None = None,
        user: str | None = None,
        since_ns: int | None = None,
        errors_only: bool = False,
        limit: int = 50,
    ) -> list[Record]:
        """The newest records that fit, newest first."""
        fitting = [
            kept
            for kept in reversed(tuple(self._records))
            if (name is None or kept.name == name)
            and (user is None or kept.user == user)
            and (since_ns is None or kept.at_ns >= since_ns)
            and ((kept.failed and not kept.speculated) or not errors_only)
        ]
        return fitting[: max(0, limit)]

    def get(self, id: str) -> Record:  # noqa: A002 (the protocol's word)
        """The record of this id, or of the one id that begins so; else raises UsageError."""
        kept = {found.id: found for found in tuple(self._records) if found.id.startswith(id)}
        return kept[the_one(id, kept)]

    def trace(self, id: str, *, limit: int = MOST_OF_A_RUN) -> list[Record]:  # noqa: A002 (as above)
        """All calls of the run that this is, or the beginning of, the id of or in, in the order in
        which they began; else raises UsageError."""
        kept = tuple(self._records)
        exact = {one.run for one in kept if one.id == id} or {
            one.run for one in kept if one.run == id
        }
        begun = {one.run for one in kept if one.id.startswith(id) or one.run.startswith(id)}
        run = the_one(id, exact or begun, "run")
        found = sorted((one for one in kept if one.run == run), key=lambda one: one.start_ns)
        if len(found) > limit:
            raise too_long(run, limit)
        return found

    def fold(self, add: Tally, *, since_ns: int | None = None) -> int:
        """Calls `add` with the facts of each record; returns how many there were."""
        kept = [r for r in tuple(self._records) if since_ns is None or r.at_ns >= since_ns]
        for one in kept:
            add(one.facts)
        return len(kept)

    def bills(self, since_ns: int) -> list[Bill]:
        """What calls since a moment cost, each by itself."""
        return [
            Bill(
                one.name,
                one.user,
                one.tenant,
                spent.tokens.total,
                spent.raw_usd or 0.0,
                one.at_ns,
            )
            for one in tuple(self._records)
            if one.at_ns >= since_ns
            for spent in [spent_on(one, one.price_usd)]
        ]

    def prune(self, *, max_age_s: float | None = None, max_records: int | None = None) -> int:
        """Removes records older than an age (seconds), and the oldest beyond a number."""
        before = len(self._records)
        if max_age_s is not None:
            oldest_ns = self._clock.wall_ns() - round(max_age_s * 1e9)
            kept = [one for one in self._records if one.at_ns >= oldest_ns]
            self._records = deque(kept, self._records.maxlen)
        if max_records is not None:
            while len(self._records) > max(0, max_records):
                self._records.popleft()
        return before - len(self._records)

    def flush(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002 (the protocol's form)
        """Nothing to wait for: a record is there when `observe` returns."""
        return True

    def close(self) -> None:
        """Takes no more records; those there are can still be read."""
        self._closed = True
