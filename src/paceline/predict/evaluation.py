"""How good predictions are on recorded sessions.

Each call is predicted from the sessions of other tasks, and of other customers, that came before,
and from its own session so far. All sessions of a task, and of the customers in it, are predicted
before anything is learnt of one of them. Nothing is launched: what would have been is counted.

What users wait for is simulated, as the engine would run the calls of an answer: those that only read
side by side, however many, all others one after another; and as the cache would answer them: a read that
the session made before is not run again until something is changed. A read that was launched ahead is
waited for as much less as the model takes for one answer.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple, final

import msgspec

from paceline.predict.events import Called, Event, Proposal, Said, Step, Tools, Trajectory
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.sequence import END
from paceline.predict.session import Guess, Session
from paceline.predict.values import canonical

__all__ = ["Evaluation", "Launching", "Reliability", "evaluate", "evaluate_each", "groups"]

_BINS: Final = 10
_GRID: Final = 100  # thresholds between 0 and 1
_DECAY: Final = 0.95  # of what the threshold goes by stays from one group to the next
_RANKS: Final = (1, 3, 10)


class Launching(msgspec.Struct, frozen=True):
    """What may be launched ahead: calls of these tools, that change nothing; above a threshold
    found by what was scored, so that no more than `extra_calls` a real call are in vain, and not at
    all while the real calls so far allow no more; and never below `least`, the probability at which a call in vain costs as much as a hit saves. (Its 0.15
    was chosen on the recorded sessions that bench/predict.py reads, which shows others.)

    `model_s` is how long a model takes for an answer, `tool_s` how long a tool takes, by name,
    `other_tool_s` the others.
    """

    read_only: Collection[str] = ()
    extra_calls: float = 0.35
    least: float = 0.15
    at_once: int = 3
    model_s: float = 3.5
    tool_s: Mapping[str, float] = {}
    other_tool_s: float = 1.0


class Reliability(msgspec.Struct):
    """Proposals of like probability: how many, the mean probability, how many came true."""

    seen: int = 0
    said: float = 0.0
    right: int = 0


class Evaluation(msgspec.Struct):
    """What came out. Rates are shares of calls, of the first calls of steps, of read-only calls."""

    sessions: int = 0
    calls: int = 0
    steps: int = 0
    read_only_calls: int = 0
    first_reads: int = 0
    """Of the read-only calls, those that are run: no earlier one of the session answers them."""
    tool_top: dict[int, float] = {}
    """Of all calls, those whose tool was among the first 1 and 3."""
    call_top: dict[int, float] = {}
    """Of first calls of a step, those that were among the first 1, 3 and 10, arguments and all."""
    hits: float = 0.0
    """Of the read-only calls, those that would have been launched right before."""
    extra_calls: float = 0.0
    """Calls launched that were not used right after, for one real call."""
    kept_hits: float = 0.0
    """Of `first_reads`, those that would have been launched, if that is kept until it is used or
    something is changed."""
    kept_extra_calls: float = 0.0
    """Calls launched and never used, for one real call, where they are kept."""
    brier: float = 0.0
    """The mean squared error of the probability of proposals; 0 is perfect."""
    reliability: list[Reliability] = []
    wait_s: float = 0.0
    """What users wait for calls, in seconds, if nothing is launched ahead."""
    saved_s: float = 0.0

    @property
    def calibration_error(self) -> float:
        """The mean distance of what was said from what came true, over tenths of probability."""
        seen = sum(each.seen for each in self.reliability)
        away = sum(abs(each.said - each.right) for each in self.reliability)
        return away / seen if seen else 0.0

    @property
    def hidden(self) -> float:
        """The share of the wait for tools that launching ahead would have hidden."""
        return self.saved_s / self.wait_s if self.wait_s else 0.0


def evaluate(
    trajectories: Iterable[Trajectory],
    make: Callable[[], PerformancePredictor],
    *,
    launching: Launching | None = None,
    apart: Callable[[Trajectory], Iterable[str]] | None = None,
    tools: Tools | None = None,
    far: Callable[[float], object] = lambda _: None,
) -> Evaluation:
    """Predicts all calls of recorded sessions, in the order in which they come.

    `apart` says what a session shares with those it must not be predicted from; by default its
    task and its scope. As its customers are apart, all sessions are learnt in one scope. `far` is
    told how far it is, from 0 to 1, as each session is predicted and again as it is learnt.
    """
    found = evaluate_each(
        trajectories,
        make,
        [launching or Launching()],
        apart=apart,
        tools=tools,
        far=far,
    )
    return found[0]


def evaluate_each(
    trajectories: Iterable[Trajectory],
    make: Callable[[], PerformancePredictor],
    launchings: Iterable[Launching],
    *,
    apart: Callable[[Trajectory], Iterable[str]] | None = None,
    tools: Tools | None = None,
    far: Callable[[float], object] = lambda _: None,
) -> list[Evaluation]:
    """What the same predictions come to by several ways of launching; otherwise as `evaluate`."""
    predictor = make()
    counts = [_Count(launching) for launching in launchings]
    together = groups(trajectories, apart or _task_and_scope)
    done, all_of_it = 0, 2 * sum(map(len, together))
    for group in together:
        moments: list[tuple[Sequence[Event], list[_Moment]]] = []
        for trajectory in group:
            events = trajectory.events
            session = predictor.session("", tools)
            moments.append((events, list(_moments(predictor, session, events, counts))))
            done += 1
            far(done / all_of_it)
        for heard, made in moments:
            for moment in made:
                predictor.score("", moment.guesses, moment.event)
                for count in counts:
                    count.learn(moment)
            predictor.learn(Trajectory("", tuple(heard)), tools)
            done += 1
            far(done / all_of_it)
        for count in counts:
            count.decide()
    return [count.finish() for count in counts]


def groups(
    trajectories: Iterable[Trajectory], apart: Callable[[Trajectory], Iterable[str]]
) -> list[list[Trajectory]]:
    """Sessions by what they share, directly or by way of others, in order of first sight."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    all_of_them = list(trajectories)
    shared = [[*apart(each)] or [f"alone {place}"] for place, each in enumerate(all_of_them)]
    for first, *others in shared:
        for other in others:
            parents[root(other)] = root(first)
    found: dict[str, list[Trajectory]] = {}
    for trajectory, (first, *_) in zip(all_of_them, shared, strict=True):
        found.setdefault(root(first), []).append(trajectory)
    return list(found.values())


class _Moment(NamedTuple):
    """A model was to reply: what was proposed, and what came."""

    guesses: Sequence[Guess]
    known: Sequence[bool]
    event: Event


@final
class _Count:
    """Counts while it goes on. The threshold moves between groups only."""

    def __init__(self, launching: Launching) -> None:
        self.result = Evaluation(reliability=[Reliability() for _ in range(_BINS)])
        self.launching = launching
        self.threshold = 1.0
        self._tools = dict.fromkeys(_RANKS[:2], 0)
        self._calls = dict.fromkeys(_RANKS, 0)
        self._hits = self._extra = self._kept_hits = self._kept_extra = self._scored = 0
        self._ahead: set[tuple[str, str]] = set()  # launched, and not used
        self._there: set[tuple[str, str]] = set()  # asked for, and kept
        self._square = 0.0
        self._real = 0.0
        self._vain = [0.0] * (_GRID + 1)  # that would be launched at a threshold, and not above it

    def tool(self, name: str, ranked: Sequence[tuple[str, float]]) -> None:
        """One call, and what was thought of its tool."""
        self.result.calls += 1
        names = [each for each, _ in ranked if each != END][: max(self._tools)]
        for rank in self._tools:
            self._tools[rank] += name in names[:rank]

    def proposals(self, moment: _Moment) -> None:
        """One reply of the model, and what was proposed before it."""
        came = _identities(moment.event)
        proposals = [guess.proposal for guess in moment.guesses]
        identities = [_identity(each.name, each.arguments) for each in proposals]
        if isinstance(moment.event, Step):
            self.result.steps += 1
            first = _identity(moment.event.calls[0].name, moment.event.calls[0].arguments)
            for rank in _RANKS:
                self._calls[rank] += first in identities[:rank]
        for proposal, identity in zip(proposals, identities, strict=True):
            right = identity in came
            bin_ = self.result.reliability[min(int(proposal.probability * _BINS), _BINS - 1)]
            bin_.seen += 1
            bin_.said += proposal.probability
            bin_.right += right
            self._square += (proposal.probability - right) ** 2
            self._scored += 1
        self._launch(moment, came)
        if isinstance(moment.event, Step):
            self._run(moment.event.calls)

    def over(self) -> None:
        """The session is over."""
        self.result.sessions += 1
        self._drop()

    def _drop(self) -> None:
        """Something changed: what is kept is of no more use."""
        self._kept_extra += len(self._ahead)
        self._ahead, self._there = set(), set()

    def learn(self, moment: _Moment) -> None:
        """Takes a moment into account for the threshold of what comes later."""
        came = _identities(moment.event)
        self._real += len(came)
        for proposal in self._launched(moment, self.launching.least):
            if _identity(proposal.name, proposal.arguments) not in came:
                self._vain[int(proposal.probability * _GRID)] += 1

    def decide(self) -> None:
        """The lowest threshold at which no more than allowed would have been in vain."""
        allowed = self.launching.extra_calls * self._real
        vain = 0.0
        place = _GRID
        while place >= 0 and vain + self._vain[place] <= allowed:
            vain += self._vain[place]
            place -= 1
        self.threshold = max((place + 1) / _GRID, self.launching.least)
        self._real *= _DECAY
        self._vain = [each * _DECAY for each in self._vain]

    def finish(self) -> Evaluation:
        """The rates."""
        result = self.result
        result.tool_top = {rank: _share(hits, result.calls) for rank, hits in self._tools.items()}
        result.call_top = {rank: _share(hits, result.steps) for rank, hits in self._calls.items()}
        result.hits = _share(self._hits, result.read_only_calls)
        result.extra_calls = _share(self._extra, result.calls)
        result.kept_hits = _share(self._kept_hits, result.first_reads)
        result.kept_extra_calls = _share(self._kept_extra, result.calls)
        result.brier = self._square / self._scored if self._scored else 0.0
        return result

    def _launch(self, moment: _Moment, came: Collection[tuple[str, str]]) -> None:
        left = int(self.launching.extra_calls * self.result.calls - self._extra)
        for proposal in self._launched(moment, self.threshold)[: max(0, left)]:
            identity = _identity(proposal.name, proposal.arguments)
            if identity in came:
                self._hits += 1
            else:
                self._extra += 1
            if identity not in self._there:  # else nothing is run
                self._ahead.add(identity)

    def _run(self, calls: Sequence[Called]) -> None:
        """The calls of an answer, in its order."""
        for reads, some in groupby(calls, lambda call: call.name in self.launching.read_only):
            waits = [self._read(call) if reads else self._change(call) for call in some]
            alone, ahead = ((max if reads else sum)(each) for each in zip(*waits, strict=True))
            self.result.wait_s += alone
            self.result.saved_s += alone - ahead

    def _read(self, call: Called) -> tuple[float, float]:
        """What is waited for it if nothing is launched ahead, and as it is."""
        self.result.read_only_calls += 1
        identity, takes_s = _identity(call.name, call.arguments), self._takes(call.name)
        if identity in self._there:
            return 0.0, 0.0
        self.result.first_reads += 1
        if call.failed:  # errors are not kept
            return takes_s, takes_s
        self._there.add(identity)
        if identity not in self._ahead:
            return takes_s, takes_s
        self._ahead.remove(identity)
        self._kept_hits += 1
        return takes_s, max(takes_s - self.launching.model_s, 0.0)

    def _change(self, call: Called) -> tuple[float, float]:
        """The same of what may change something."""
        self._drop()
        takes_s = self._takes(call.name)
        return takes_s, takes_s

    def _takes(self, name: str) -> float:
        return self.launching.tool_s.get(name, self.launching.other_tool_s)

    def _launched(self, moment: _Moment, threshold: float) -> list[Proposal]:
        """What is launched: the likeliest, of tools that change nothing, once they are known."""
        read_only = self.launching.read_only
        known = [
            guess.proposal
            for guess, known in zip(moment.guesses, moment.known, strict=True)
            if known and guess.proposal.name in read_only
        ]
        return [each for each in known if each.probability >= threshold][: self.launching.at_once]


def _moments(
    predictor: PerformancePredictor,
    session: Session,
    events: Sequence[Event],
    counts: Sequence[_Count],
) -> Iterable[_Moment]:
    """Predicts one session, learning nothing."""
    for event in events:
        step = isinstance(event, Step) and bool(event.calls)
        if step or (isinstance(event, Said) and not event.by_user and session.awaits_reply):
            proposals = predictor.propose(session, most=_RANKS[-1])
            known = [predictor.known(session, proposal) for proposal in proposals]
            moment = _Moment(session.proposed, known, event)
            for count in counts:
                count.proposals(moment)
            yield moment
        if isinstance(event, Step):
            for call in event.calls:
                ranked = predictor.next_tools(session)
                for count in counts:
                    count.tool(call.name, ranked)
                session.ask(call)
        session.hear(event)
    for count in counts:
        count.over()


def _task_and_scope(trajectory: Trajectory) -> Iterable[str]:
    if trajectory.task:
        yield f"task {trajectory.task}"
    if trajectory.scope:
        yield f"scope {trajectory.scope}"


def _identity(name: str, arguments: Mapping[str, object]) -> tuple[str, str]:
    return name, canonical(arguments)


def _identities(event: Event) -> set[tuple[str, str]]:
    if isinstance(event, Said):
        return set()
    return {_identity(call.name, call.arguments) for call in event.calls}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
