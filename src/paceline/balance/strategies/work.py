"""Learned work with externality: where a request, and all that it delays, is done soonest."""

import math
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final, final

from paceline.balance.circuit import counts
from paceline.balance.strategies.prefixes import BLOCK_TOKENS, PrefixIndex
from paceline.balance.strategy import Strategy
from paceline.clock import Clock

if TYPE_CHECKING:
    from paceline.balance.instance import AgentInstance
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["LearnedWork"]

_NS: Final = 1_000_000_000
_S: Final = 1e-9
_FEW: Final = 16
"""So many candidates are all looked at; of more, a sample and who holds the prompt."""

_SAMPLE: Final = 8
_HOLDERS: Final = 4
_SHARE: Final = 0.02
"""Of what is new, in the moving means of what requests are like."""

_DOUBT: Final = 0.5
"""Observations that the median of all instances counts as, against an instance's own."""

_KEPT: Final = 8
"""Observations of each instance that are not forgotten, however long they take to come."""

_MEMORY: Final = 32.0
"""Observations of an instance that count at most, so that it is soon believed to have changed."""

_PENALTY: Final = 2.0
"""Times that a failure counts as, of the usual time to a first token; each one more in a row counts
twice as much."""

_LONGEST_STREAK: Final = 5

_PATIENCE: Final = 20.0
"""The most that all failures of an instance count as, of the same."""

_NOTHING: Final = 1e-9
_TURN_S: Final = 1e-12

_MOST_APART: Final = 8.0
"""No instance is believed to be so many times as quick as the median."""


@final
class _Pace:
    """How quick one instance is, and what it has to do; work is in seconds at pace 1."""

    __slots__ = (
        "bit", "doubt_s", "doubt_work_s", "each_s", "instance", "lost_s", "pending_s", "seen",
        "streak", "time_s", "turn_s", "work_s",
    )  # fmt: skip

    def __init__(self, instance: "AgentInstance", bit: int) -> None:
        self.instance = instance
        self.bit = bit
        self.pending_s = 0.0
        """Work that was sent and of which no first token has come."""
        self.work_s = self.time_s = self.seen = 0.0
        """What was seen: work, how long it took, and how often. With what is lost, and with what
        is added in doubt."""
        self.lost_s = 0.0
        """Time in which nothing was done, for failures."""
        self.streak = 0
        """Failures since the last success."""
        self.doubt_work_s = self.doubt_s = 0.0
        """What is usual, as long as little is known of this one."""
        self.turn_s = 0.0
        """Grows with every request, so little that it only decides between equals."""
        self.each_s = 1.0
        """How long a second of work takes: with what is seen, it changes."""


_Note = tuple[float, float, int]
"""What a lease was sent with: its own work while that is pending; what was to be done before its
first token, its own included; and the blocks of its prompt that the instance was thought to hold.
"""


@final
class LearnedWork(Strategy):
    """The least of what a request is expected to take and of how much it delays the others.

    At an instance of pace p, with b requests in flight, that is ::

        (pending + u + o * (step + answer * (b + 1)) + externality * (u * b + answer * o * b)) / p

    where `pending` is the work of prompts sent there before without a first token yet, u the work
    of what this prompt has that the instance does not hold already (`PrefixIndex`), o the length
    of the answer: as the request says, or the moving mean. Work is measured in seconds that it
    takes at pace 1. The pace is work over the time to the first token, both summed with forgetting,
    drawn to the median of all (by weight) while little is known.

    Requests without tokens count as one unit of work that is over when they are: then it is the
    least work by learned speed. A failure counts as time in which nothing was done, so who fails
    fast looks slow. Work given up counts if it took longer than was expected.

    The form is ours, after what NVIDIA Dynamo's and SGLang's routers weigh; that the delay of
    others (externality) belongs to the cost of a choice is A. Pigou's (1920).
    """

    __slots__ = (
        "_alone_s", "_answer_s", "_block_s", "_due_ns", "_enough", "_everybody", "_externality",
        "_forget_ns", "_forgot_ns", "_index", "_more_s", "_new", "_output", "_paces",
        "_per_token_s", "_random", "_step_s", "_turn_s", "_unit_s", "_usual", "_usual_s",
    )  # fmt: skip

    def __init__(
        self,
        *,
        clock: Clock,
        rng: Random,
        prefill_per_s: float = 8_000.0,
        step_s: float = 0.012,
        answer_s: float = 0.000_25,
        externality: float = 1.0,
        forget_s: float = 30.0,
        index: PrefixIndex | None = None,
    ) -> None:
        """What is not learned, but only how it relates: at pace 1 an instance reads `prefill_per_s`
        tokens of prompts in a second, and makes one token of each answer in `step_s` seconds, and
        `answer_s` more for every answer that it makes at once. `externality` is the dial between a
        short time to the first token (0) and a short time in all (1). Paces are forgotten in
        `forget_s` seconds, slower where little is asked. `index` is one of another size than
        usual, used by nobody else."""
        self._random = rng.random
        self._per_token_s = 1 / prefill_per_s
        self._block_s = BLOCK_TOKENS / prefill_per_s
        self._step_s = step_s
        self._answer_s = answer_s
        self._externality = externality
        self._alone_s = step_s + answer_s
        self._more_s = answer_s * (1 + externality)
        """What a token of an answer costs with no other in flight, and more for each that is."""
        self._forget_ns = forget_s * _NS
        self._index = PrefixIndex() if index is None else index
        self._paces: dict[AgentInstance, _Pace] = {}
        self._everybody = 0
        """All their bits."""
        self._output = 256.0
        self._unit_s = 1.0
        self._turn_s = 0.0
        self._usual = 1.0
        """The pace of an instance of weight 1: the median, as one may seem quicker than it is."""
        self._usual_s = 1.0
        """The time to a first token."""
        self._new, self._enough = 0, 1
        """Observations since the last survey, and how many there are to be for the next."""
        self._forgot_ns = self._due_ns = clock.monotonic_ns()

    def joined(self, instance: "AgentInstance") -> None:
        pace = instance.note = _Pace(instance, self._index.joined(instance))
        self._paces[instance] = pace
        self._everybody |= pace.bit
        self._doubt(pace)

    def left(self, instance: "AgentInstance") -> None:
        self._index.left(instance)
        self._everybody ^= self._paces.pop(instance).bit

    def pick(
        self, candidates: Sequence["AgentInstance"], request: "Request", now_ns: int
    ) -> "AgentInstance":
        if now_ns >= self._due_ns:
            self._survey(now_ns)
        levels = self._index.levels(request.blocks) if request.blocks else ()
        if len(candidates) > _FEW:
            candidates = self._sample(candidates, levels)
        tokens = request.input_tokens
        output: float | None = request.output_tokens
        if output is None:
            output = self._output if tokens else 0.0
        work_s = tokens * self._per_token_s or self._work_s(request)
        if levels:
            whole_s, everybody = work_s, self._everybody
            left: list[tuple[int, float]] = []
            for bits, depth in levels:
                done_s = depth * self._block_s  # too much if the last block is a part of one
                left_s = whole_s - done_s if whole_s > done_s else 0.0
                if bits == everybody:  # of instructions, say: it makes no difference
                    work_s = left_s
                else:
                    left.append((bits, left_s))
            if left:
                return self._best_of_holders(candidates, left, work_s, output)
        own_s = work_s + output * self._alone_s
        delay_s = work_s * self._externality + output * self._more_s
        best, least = candidates[0], math.inf
        for instance in candidates:
            pace: _Pace = instance.note
            added_s = own_s + delay_s * instance.in_flight
            cost = (pace.pending_s + added_s) * pace.each_s + pace.turn_s
            if cost < least:
                best, least = instance, cost
        return best

    def _best_of_holders(
        self,
        candidates: Sequence["AgentInstance"],
        left: Sequence[tuple[int, float]],
        work_s: float,
        output: float,
    ) -> "AgentInstance":
        """The least where some hold a part of the prompt, and have so much left of it to read."""
        answer_s, answer_delay_s = output * self._alone_s, output * self._more_s
        delays, holders = self._externality, left[0][0]
        best, least = candidates[0], math.inf
        for instance in candidates:
            pace: _Pace = instance.note
            unread_s, bit = work_s, pace.bit
            if bit & holders:
                for bits, left_s in left:
                    if not bit & bits:
                        break
                    unread_s = left_s
            added_s = unread_s + answer_s
            added_s += (unread_s * delays + answer_delay_s) * instance.in_flight
            cost = (pace.pending_s + added_s) * pace.each_s + pace.turn_s
            if cost < least:
                best, least = instance, cost
        return best

    def _sample(
        self, candidates: Sequence["AgentInstance"], levels: Sequence[tuple[int, int]]
    ) -> list["AgentInstance"]:
        """Some by chance, and some who hold the most; one may be there twice."""
        chance, count = self._random, len(candidates)
        some = [candidates[int(chance() * count)] for _ in range(_SAMPLE)]
        if levels:
            some += self._index.holders(levels[-1][0], candidates, _HOLDERS, chance())
        return some

    def sent(self, lease: "Lease") -> None:
        instance, request = lease.instance, lease.request
        pace: _Pace = instance.note
        work_s = ahead_s = request.input_tokens * self._per_token_s or self._work_s(request)
        held = 0
        if request.blocks:
            held = self._index.insert(instance, request.blocks)
            done_s = held * self._block_s
            work_s = ahead_s = work_s - done_s if work_s > done_s else 0.0
        if request.input_tokens:
            self._unit_s += (work_s - self._unit_s) * _SHARE
            ahead_s += self._step_s + self._answer_s * instance.in_flight
        lease.note = (work_s, ahead_s + pace.pending_s, held)
        pace.pending_s += work_s
        self._turn_s = pace.turn_s = self._turn_s + _TURN_S

    def answered(self, lease: "Lease") -> None:
        note: _Note = lease.note
        work_s, ahead_s, held = note
        lease.note = (0.0, ahead_s, held)
        pace: _Pace = lease.instance.note
        pace.pending_s -= work_s
        self._learn(pace, ahead_s, lease.first_ns - lease.started_ns)

    def ended(self, lease: "Lease") -> None:
        note: _Note = lease.note
        work_s, ahead_s, held = note
        instance = lease.instance
        pace: _Pace = instance.note
        pace.pending_s = pace.pending_s - work_s if instance.in_flight else 0.0
        if lease.error is not None:
            if counts(lease.error):
                self._lose(pace)
            return
        output = 0
        if not lease.abandoned:
            pace.streak = 0
            if lease.tokens is not None:
                output = lease.tokens.output
                if output:
                    self._output += (output - self._output) * _SHARE
                if lease.request.blocks:
                    cached = lease.tokens.cached_input / BLOCK_TOKENS
                    self._index.calibrate(instance, held, cached)
        if not lease.first_ns:  # all of it was the time to a first token, then
            ahead_s += output * (self._alone_s + self._answer_s * instance.in_flight)
            took_ns = lease.ended_ns - lease.started_ns
            if not lease.abandoned or took_ns * pace.work_s > ahead_s * pace.time_s * _NS:
                self._learn(pace, ahead_s, took_ns)

    def _work_s(self, request: "Request") -> float:
        """The work of a prompt of unknown length: that of its blocks, or the usual."""
        return len(request.blocks) * self._block_s or self._unit_s

    def _learn(self, pace: _Pace, work_s: float, took_ns: int) -> None:
        """Work was done in so much time."""
        pace.work_s += work_s
        pace.time_s += took_ns * _S
        pace.each_s = pace.time_s / pace.work_s
        pace.seen += 1
        self._new += 1
        if self._new >= self._enough:
            self._due_ns = 0

    def _lose(self, pace: _Pace) -> None:
        """Work has failed."""
        lost_s = _PENALTY * self._usual_s * 2.0**pace.streak
        pace.streak = min(_LONGEST_STREAK, pace.streak + 1)
        pace.lost_s += lost_s
        pace.time_s += lost_s
        pace.each_s = pace.time_s / pace.work_s

    def _survey(self, now_ns: int) -> None:
        """What is usual among all: found once in a second, and sooner while little is known. What
        was learned counts less from then on."""
        paces = self._paces.values()
        enough = _KEPT * len(paces)
        share = math.exp(-min((now_ns - self._forgot_ns) / self._forget_ns, self._new / enough))
        time_s = seen = 0.0
        found: list[float] = []
        for pace in paces:
            kept = min(share, _MEMORY / pace.seen) if pace.seen else share
            pace.work_s = max(0.0, pace.work_s - pace.doubt_work_s) * kept
            pace.time_s = max(0.0, pace.time_s - pace.doubt_s - pace.lost_s) * kept
            pace.lost_s = min(pace.lost_s * share, _PATIENCE * self._usual_s)
            pace.seen *= kept
            time_s += pace.time_s
            seen += pace.seen
            if pace.work_s > _NOTHING and pace.time_s > _NOTHING:
                found.append(pace.work_s / pace.time_s / (pace.instance.weight or 1.0))
        if found:
            self._usual = sorted(found)[(len(found) - 1) // 2]
            self._usual_s = time_s / seen
        self._new, self._enough = 0, min(enough, int(seen) + 1)
        self._forgot_ns, self._due_ns = now_ns, now_ns + _NS
        for pace in paces:
            self._doubt(pace)

    def _doubt(self, pace: _Pace) -> None:
        """Adds what is usual to what was seen of one, and bounds what is believed of it."""
        usual = self._usual * (pace.instance.weight or 1.0)
        least_s = pace.work_s / (usual * _MOST_APART)
        pace.doubt_s = max(_DOUBT * self._usual_s, least_s - pace.time_s)
        pace.doubt_work_s = _DOUBT * self._usual_s * usual
        pace.work_s += pace.doubt_work_s
        pace.time_s += pace.doubt_s + pace.lost_s
        pace.each_s = pace.time_s / pace.work_s
