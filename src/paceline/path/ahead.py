"""What is executed before anybody asks for it, and what was made that way and nobody has used yet.

Speculation is cache warming that stands in nobody's way: a call at `Priority.SPECULATIVE` takes the
one path, and whoever asks for the same later joins it or finds its result. It may not wait, be
repeated, or be answered by anything else than its work, and goes when its place is needed.
"""

import contextlib
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, final

from msgspec.structs import replace

from paceline.balance.gate import Gate, enter_free
from paceline.cache.tiered import Hit, ResultCache
from paceline.call import (
    SPECULATED,
    Call,
    Effect,
    EffectKind,
    Outcome,
    Priority,
    Source,
    Tokens,
)
from paceline.errors import CallCancelledError, PacelineError, Shortage, UsageError
from paceline.path.identity import Identified

if TYPE_CHECKING:
    from paceline.path.job import Execution

__all__ = [
    "Ahead",
    "Guess",
    "Made",
    "be_guest",
    "enter_as_guest",
    "enter_thread",
    "leave_as_guest",
    "speculated",
]

_MOST: Final = 10_000
_NS: Final = 1_000_000_000
# Asking an enum for a member takes longer than comparing with it.
_READ: Final = EffectKind.READ
_WRITE: Final = EffectKind.WRITE


class Made(NamedTuple):
    """The call that made a result, how long that took, what its models used, whether its tags say what
    was read (None if nothing can change it), and until when there would be another result without it,
    that nobody would owe anything for."""

    call_id: str
    took_ns: int
    tokens: Tokens | None
    tagged: bool | None
    until_ns: int


@final
class Ahead:
    """What the cache has that was made ahead, until somebody uses it.

    Of more than `most` keys the oldest are dropped, with what was read, as nobody could drop that
    later. What is known of a key is compared with what the cache says of the result: what another
    process or a later call put in its place, wherever that happened, never passes for it.
    """

    __slots__ = ("_cache", "_most", "_now_ns", "_read", "_running", "made", "running")

    def __init__(self, cache: ResultCache, now_ns: Callable[[], int], most: int = _MOST) -> None:
        self._cache = cache
        self._now_ns = now_ns
        self._most = most
        self.made: dict[bytes, Made] = {}
        """By key, the oldest first. Where it is empty nothing need be asked."""
        self._read: dict[bool, dict[bytes, None]] = {False: {}, True: {}}
        """Its keys of what was read, by whether tags say what that was."""
        self.running = 0
        """Calls ahead that are under way."""
        self._running: dict[Execution, None] = {}
        """Executions ahead."""

    def part_of(self, around: "Execution | None") -> "Execution | None":
        """The execution ahead in whose course something is called, if that around it is one."""
        return around if around is not None and around.speculative else None

    def refusal(
        self,
        call: Call,
        identified: Identified | None,
        found: "Execution | None",
        part_of: "Execution | None",
    ) -> PacelineError | None:
        """Why a call must not be executed ahead; None if it may be. `found` is what it would join.
        What is part of one need not be kept."""
        error = _harm(call)
        if error is None and part_of is None and (identified is None or not call.plan.cacheable):
            error = UsageError(
                f"{call.name} was not run ahead: nobody could find its result",
                next_step="Let its results be kept (`ttl_s` above 0, plain data as arguments).",
            )
        if error is None and found is not None and not found.speculative:
            # It would keep that going when those who asked for it have left.
            error = CallCancelledError(f"{call.name} is being executed, as somebody asked for it")
        if error is not None:
            _fail(part_of)
        return error

    @contextlib.contextmanager
    def begun(
        self,
        execution: "Execution",
        call: Call,
        part_of: "Execution | None",
        end: Callable[[], object],
    ) -> Generator[None]:
        """While a call ahead is waited for, that leads this execution or has joined it. `end`
        cancels the execution, so that nobody can join it any more."""
        leads = execution.call is call
        if leads:
            execution.guess = Guess(part_of, end, self._until_ns(execution))
            self._running[execution] = None
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            if leads:
                del self._running[execution]

    def look(self, identified: Identified, result_type: object) -> Hit | None:
        """What is there already, for a call that is nobody's request and counts as none."""
        totals = self._cache.totals
        before = totals.copy()
        hit = self._cache.get(identified.key, result_type, identified.scope)
        totals.become(before)
        if hit is None:
            totals.misses += 1
            totals.ahead += 1
            self.forget(identified.key)
        return hit

    def _until_ns(self, execution: "Execution") -> int:
        """Until when the result is valid that this execution replaces; 0 if it replaces none, or one
        that nobody has asked for either."""
        identified = execution.identified
        if identified is None or not execution.refresh:
            return 0
        if (made := self.made.get(identified.key)) is not None:
            return made.until_ns
        return self._now_ns() + round(self._cache.left_s(identified.key) * _NS)

    def left_s(self, identified: Identified | None) -> float:
        """For how many more seconds what is there is valid; infinite where nothing ends."""
        return math.inf if identified is None else self._cache.left_s(identified.key)

    def ended(self, outcome: Outcome, part_of: "Execution | None") -> Outcome:
        """The outcome of a call ahead. What was found in a lower tier is counted as found."""
        if outcome.source.cached and outcome.source is not Source.JOINED:
            self._cache.totals.ahead -= 1
        if outcome.error is not None:
            _fail(part_of)
        return outcome

    def stored(self, execution: "Execution", key: bytes) -> None:
        """An execution has made what is kept under this key from now on, if anything is."""
        self._take(key)
        guess = execution.guess
        if execution.snapshot is None or guess is None or not execution.speculative:
            return
        call, meter = execution.call, execution.meter
        effect = call.plan.effect
        tagged = bool(effect.tags) if effect.kind is _READ else None
        spent = None if meter is None else meter.spent
        tokens = None if spent is None else spent.tokens
        self.made[key] = Made(call.id, execution.execute_ns, tokens, tagged, guess.until_ns)
        if tagged is not None:
            self._read[tagged][key] = None
        if len(self.made) > self._most:
            oldest = next(iter(self.made))
            self._drop(() if self.made[oldest].tagged is None else (oldest,))
            self._take(oldest)

    def changes(self, call: Call) -> None:
        """This call is about to change something: what is being made of that would be of no use."""
        effect = call.plan.effect
        for execution in list(self._running):
            # One that is not speculative any more was asked for.
            if execution.speculative and _meets(effect, execution.call.plan.effect):
                execution.give_way()

    def changed(self, call: Call) -> None:
        """This call may have changed something: what was made of that before is of no more use, and
        what is being made neither.

        Without speculation it would have been read afterwards, by whomever. What a write with tags does
        to results with tags is seen to by the tags.
        """
        effect = call.plan.effect
        self._drop(self._read[False])
        if effect.kind is not _WRITE or not effect.tags:
            self._drop(self._read[True])
        self.changes(call)

    def _drop(self, keys: Iterable[bytes]) -> None:
        for key in list(keys):
            self._take(key)
            self._cache.delete(key)

    def _take(self, key: bytes) -> Made | None:
        """What was made ahead under this key, which nobody can use any more."""
        made = self.made.pop(key, None)
        if made is not None and made.tagged is not None:
            del self._read[made.tagged][key]
        return made

    def forget(self, key: bytes) -> None:
        """Nothing is kept under this key any more."""
        self._take(key)

    def used(self, outcome: Outcome, key: bytes, hit: Hit) -> Outcome:
        """The outcome of who got this result, with whom that is owed to, if it was made ahead and
        this is its first use. Time is saved then, but no money: it was paid for this, as is said; but
        not where it was made in place of one that would be there still."""
        made = self._take(key)
        if made is None or made.took_ns != hit.cost_ns or hit.source is Source.STALE:
            return outcome
        self._cache.totals.saved_usd -= hit.cost_usd
        owed = self._now_ns() >= made.until_ns
        return replace(
            outcome,
            source=Source.SPECULATED,
            link=made.call_id,
            saved_usd=None,
            ahead_usd=hit.cost_usd or None if owed else None,
            ahead_tokens=made.tokens if owed else None,
        )

    def joined(
        self, call: Call, shared: Outcome, outcome: Outcome, execution: "Execution"
    ) -> Outcome:
        """The same for the first who joined a call ahead while it ran."""
        guess = execution.guess
        if guess is None or guess.joiner != call.id or outcome.source is not Source.EXECUTED:
            return shared
        if outcome.attempts:
            paid, tokens = execution.cost_usd, outcome.tokens
            shared = replace(shared, ahead_usd=paid, ahead_tokens=tokens)
        if outcome.error is not None:
            return shared
        totals = self._cache.totals
        totals.saved_ns -= shared.saved_ns - guess.ran_ns
        totals.saved_usd -= shared.saved_usd or 0.0
        return replace(shared, source=Source.SPECULATED, saved_ns=guess.ran_ns, saved_usd=None)


@final
class Guess:
    """What is particular to an execution that was begun ahead.

    `around` is the one in whose course it was begun, if that was begun ahead too: it is a part of
    that, and goes with it. Until `until_ns` the result that it replaces is valid.
    """

    __slots__ = ("around", "end", "failed", "joiner", "ran_ns", "until_ns")

    def __init__(
        self, around: "Execution | None", end: Callable[[], object], until_ns: int = 0
    ) -> None:
        """`end` cancels it, so that nobody can join it any more."""
        self.around = around
        self.end = end
        self.until_ns = until_ns
        self.failed = False
        """Whether something was not done in its course that would have been, had it been asked
        for: what came of it is for nobody else, and not kept."""
        self.joiner: str | None = None
        """The first call that asked for it."""
        self.ran_ns = 0
        """How long it had run by then."""

    def join(self, call_id: str, ran_ns: int) -> None:
        """A call asked for it, when it had run for so long."""
        if self.joiner is None:
            self.joiner, self.ran_ns = call_id, ran_ns

    def fail(self) -> None:
        """Something was left undone, here and in all that it is a part of."""
        self.failed = True
        _fail(self.around)

    def give_way(self) -> None:
        """Ends it, with what it is a part of."""
        around = self.around
        if around is not None and around.guess is not None:
            around.guess.give_way()
        else:
            self.end()


def speculated(call: Call) -> Call:
    """The call as one that nobody asked for, which its id says too."""
    return replace(call, id=call.id + SPECULATED, priority=Priority.SPECULATIVE)


def _meets(change: Effect, other: Effect) -> bool:
    """Whether what has the effect `other` would have to wait for this change; see `engine.schedule`."""
    if other.kind is not _READ:
        return False
    if change.kind is not _WRITE or not change.tags or not other.tags:
        return True
    return not set(change.tags).isdisjoint(other.tags)


def _fail(around: "Execution | None") -> None:
    """Something was left undone in the course of an execution ahead, if it is one."""
    if around is not None and around.guess is not None:
        around.guess.fail()


def _harm(call: Call) -> PacelineError | None:
    """What is wrong with a call for nothing; None if it leaves the world as it is."""
    if call.plan.effect.repeatable:
        return None
    return UsageError(
        f"{call.name} was not run ahead: its effect is {call.plan.effect.kind}, and only what "
        "leaves the world as it is may be run for nothing",
        next_step="Declare `pure` or `read` if that is true, or wait until somebody asks for it.",
    )


def enter_thread(workers: Gate) -> None:
    """A place for an execution ahead among the threads. Raises OverloadedError.

    A thread goes on when its work is cancelled, so nobody would get its place then: half of the
    threads are left to what is asked for.
    """
    if 2 * (workers.free - 1) < workers.capacity:
        raise workers.overloaded(
            Shortage.SPECULATIVE, "and half of that is left to what somebody asks for"
        )
    enter_free((workers,))


def enter_as_guest(execution: "Execution", gates: Sequence[Gate]) -> None:
    """Places in all of these gates for an execution ahead, if they are free now. Raises
    OverloadedError, with nothing entered."""
    workers = execution.job.workers
    enter_free([gate for gate in gates if gate is not workers])
    try:
        if workers is not None and workers in gates:
            enter_thread(workers)
    except PacelineError:
        for gate in gates:
            if gate is not workers:
                gate.leave()
        raise
    be_guest(execution, gates)


def be_guest(execution: "Execution", gates: Sequence[Gate]) -> None:
    """Lets it give way at these gates, where it has places."""
    for gate in gates:
        if gate is not execution.job.workers:
            gate.guests.add(execution, None)


def leave_as_guest(execution: "Execution", gates: Sequence[Gate]) -> None:
    """It is about to leave these gates."""
    for gate in gates:
        gate.guests.remove(execution)
    if execution.job.dispatch is not None:
        execution.job.dispatch.gone(execution)
