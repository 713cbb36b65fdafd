"""Making results ahead: from a list, or for the calls of the past that are worth most."""

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, final

import msgspec

from paceline.cache.statistics import Totals
from paceline.cache.warming import Use, ranked
from paceline.call import Call, Caller, Outcome, ScopeLevel, Source
from paceline.clock import Clock
from paceline.codec import encode
from paceline.errors import InvalidInputError, PacelineError
from paceline.history.record import AHEAD, Record
from paceline.path import Job

__all__ = ["Ahead", "WarmCall", "WarmReport", "Warmer", "worth_most"]

_NS: Final = 1_000_000_000
_MOST_TROUBLE: Final = 10
_Result = Literal["warmed", "present", "refused", "failed"]


class WarmCall(msgspec.Struct, frozen=True):
    """A call whose result is wanted ahead: as `Runtime.run` would be asked for it."""

    agent: str
    input: str
    caller: Caller | None = None
    context: Mapping[str, object] | None = None


class WarmReport(msgspec.Struct, frozen=True):
    """What came of making results ahead.

    Of the calls, `warmed` were executed and their results kept, `present` had results already.
    `refused` were not run: what they do may not be done for nothing, or their results are not
    kept. `failed` were run in vain or cannot be run at all. `took_s` is how long it took in all;
    `trouble` are the first few reasons, each with its agent.
    """

    warmed: int = 0
    present: int = 0
    refused: int = 0
    failed: int = 0
    took_s: float = 0.0
    trouble: tuple[str, ...] = ()


class Ahead(NamedTuple):
    """The way into the call path. `prepare` raises PacelineError for what no call can be made of."""

    prepare: Callable[[WarmCall], tuple[Call, Job]]
    run: Callable[[Call, Job], Awaitable[Outcome]]


@final
class Warmer:
    """One round of making results ahead.

    Its calls take the way of all calls, at the lowest priority: who asks for the same meanwhile
    joins. A call is run only if its plan lets its result be kept; so one that writes, or may, is
    never run.
    """

    def __init__(
        self,
        ahead: Ahead,
        is_there: Callable[[Call, Job], bool | None],
        *,
        totals: Totals,
        clock: Clock,
    ) -> None:
        """`is_there` says whether there is a result already; None if it would not be kept.
        `totals` is told of what is no request of anybody's."""
        self._ahead = ahead
        self._is_there = is_there
        self._totals = totals
        self._clock = clock
        self._counts: dict[_Result, int] = {
            "warmed": 0,
            "present": 0,
            "refused": 0,
            "failed": 0,
        }
        self._trouble: list[str] = []

    async def run(self, calls: Iterable[WarmCall], concurrency: int) -> WarmReport:
        """Runs them, so many at once. When this is cancelled, so are they."""
        if concurrency < 1:
            raise InvalidInputError(
                f"{concurrency} calls at once make no sense", next_step="Give 1 or more."
            )
        start_ns = self._clock.monotonic_ns()
        waiting = iter(calls)
        first = list(itertools.islice(waiting, concurrency))
        async with asyncio.TaskGroup() as group:
            for call in first:
                group.create_task(self._work(itertools.chain((call,), waiting)))
        took_s = (self._clock.monotonic_ns() - start_ns) / _NS
        return WarmReport(**self._counts, took_s=took_s, trouble=tuple(self._trouble))

    async def _work(self, calls: Iterator[WarmCall]) -> None:
        for wanted in calls:
            result: _Result
            try:
                result = await self._one(wanted)
            except PacelineError as exc:
                self._note(wanted, exc)
                result = "failed"
            self._counts[result] += 1
            await asyncio.sleep(0)  # so that a list of which all is there does not stall others

    async def _one(self, wanted: WarmCall) -> _Result:
        call, job = self._ahead.prepare(wanted)
        if not call.plan.cacheable:
            return "refused"
        there = self._is_there(call, job)
        if there is not False:
            return "refused" if there is None else "present"
        self._totals.ahead += 1
        outcome = await self._ahead.run(msgspec.structs.replace(call, id=call.id + AHEAD), job)
        if outcome.error is not None:
            raise outcome.error
        if outcome.source is Source.EXECUTED:
            return "warmed"
        if outcome.source is Source.JOINED:
            self._totals.joins -= 1
        else:  # found in the moment between, and counted as found
            self._totals.ahead -= 1
        return "present"

    def _note(self, wanted: WarmCall, error: PacelineError) -> None:
        if len(self._trouble) < _MOST_TROUBLE:
            self._trouble.append(f"{wanted.agent}: {error.message}")


def worth_most(records: Sequence[Record]) -> Iterator[WarmCall]:
    """The calls whose results would have saved time, the most first, of those that can be made
    again. Ranks them at once; each is made when it is asked for.

    `records` have the newest first. What was not recorded in full (inputs are masked, or not
    kept) cannot be asked again; nor is what only the session of a runtime can find, which is
    over when that is.
    """
    fitting = [record for record in records if record.trouble is None and _lasting(record)]
    uses = [_use(record, place) for place, record in enumerate(reversed(fitting))]
    latest = list(reversed(fitting))
    places = [one.place for one in ranked(uses) if one.worth_s > 0]
    return filter(None, (_again(latest[place]) for place in places))


def _use(record: Record, place: int) -> Use:
    return Use(
        (record.name, record.input_hash, *record.sharers),
        place,
        record.execute_ns if record.source is Source.EXECUTED else 0,
        asked=record.asked,
    )


def _lasting(record: Record) -> bool:
    """Whether others than the runtime that made the call may find its result."""
    own = record.session is not None and record.id.startswith(f"{record.session}-")
    return record.input_hash is not None and not (own and record.scope is ScopeLevel.SESSION)


def _again(record: Record) -> WarmCall | None:
    """The same call once more; None if it was not recorded in full."""
    if record.input is None:
        return None
    try:
        arguments = msgspec.json.decode(record.input, type=dict[str, object])
        same = hashlib.blake2b(encode(arguments), digest_size=16).hexdigest() == record.input_hash
    except (msgspec.DecodeError, PacelineError):
        return None
    query = arguments.pop("query", None)
    if not same or not isinstance(query, str):
        return None
    caller = Caller(record.user, record.session, record.tenant)
    return WarmCall(record.name, query, caller, arguments or None)
