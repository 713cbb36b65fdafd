"""Predictions on recorded sessions, on made-up free text, and what one costs.

`paceline bench predict` runs it, with bench/speculation.py. The trajectories are looked for beside the
project.
"""

import asyncio
import gzip
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, final

import msgspec

from bench.tool_effects import BFCL, TAU_AIRLINE, Effects
from paceline.call import EffectKind
from paceline.clock import SystemClock
from paceline.predict.arguments import ArgumentModel
from paceline.predict.evaluation import Evaluation, Launching, evaluate, evaluate_each
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.readers import trajectories
from paceline.predict.session import Session

__all__ = [
    "API_BANK", "COMPLETE", "DATA", "FREE_TEXT", "LAUNCHABLE", "LEAST", "LONG", "NEXT", "OBSERVED",
    "RECORDED", "SHORT", "WORK", "Cost", "Figures", "Taken", "Tuned",
    "run",
]  # fmt: skip

DATA: Final = Path(__file__).parents[2] / "shared/data/trajectories"
FREE_TEXT: Final = "free text"
API_BANK: Final = frozenset(
    [
        "Calculator",
        "Dictionary",
        "DocumentQA",
        "EmergencyKnowledge",
        "GetToday",
        "ImageCaption",
        "QueryAgenda",
        "QueryAlarm",
        "QueryBalance",
        "QueryHealthData",
        "QueryHistoryToday",
        "QueryMeeting",
        "QueryRegistration",
        "QueryReminder",
        "QueryScene",
        "QueryStock",
        "SearchEngine",
        "SymptomSearch",
        "ToolSearcher",
        "Translate",
        "Wiki",
    ]
)
"""What of its tools changes nothing, by their descriptions."""

LEAST: Final = (0.05, 0.1, 0.25)
NEXT: Final = "next tools"
LAUNCHABLE: Final = "calls that may be launched"
COMPLETE: Final = "complete calls"
OBSERVED: Final = "observe"
WORK: Final = (NEXT, LAUNCHABLE, COMPLETE, OBSERVED)
SHORT: Final = "10,000 patterns"
LONG: Final = "10,000 patterns, long session"
RECORDED: Final = "tau airline"
_ASKED: Final = (NEXT, LAUNCHABLE, COMPLETE)
_STEPS: Final = 10
_PATTERNS: Final = 10_000
_TOOLS: Final = 200
_WORDS: Final = 3_000
_LETTERS: Final = "abcdefghijklmnoprstuvwz"


class Taken(msgspec.Struct):
    """What one of `WORK` takes, each moment being timed right before the reference: microseconds of
    the processor and multiples of the reference, their mean and 95th percentile over the moments."""

    moments: int
    mean_us: float
    most_us: float
    mean: float
    most: float


class Cost(msgspec.Struct):
    """What predictions take, by kind of session and by what is done; `reference_us` is the median of
    what a bare `asyncio.TaskGroup` under `asyncio.timeout` with one task takes. `contexts` and
    `features` are what the predictor of the made-up sessions holds, `saved_bytes` what it takes
    to keep."""

    patterns: int
    sessions: dict[str, dict[str, Taken]]
    reference_us: float = 0.0
    contexts: int = 0
    features: int = 0
    saved_bytes: int = 0


class Tuned(msgspec.Struct):
    """A set by other constants than those that were chosen on it."""

    constant: str
    value: float
    name: str
    evaluation: Evaluation


class Figures(msgspec.Struct):
    """What this benchmark returns."""

    sets: dict[str, Evaluation]
    cost: Cost
    tuned: list[Tuned] = []


def run(data: Path = DATA, sessions: int = 1_500) -> dict[str, object]:
    """The figures; `sessions` are learnt before a prediction is timed."""
    sets: dict[str, Evaluation] = {}
    tuned: list[Tuned] = []
    for name, read in _sets().items():
        sets[name], others = _with_others(_recorded(data, name), name, read)
        tuned += others
    launching = Launching(read_only=frozenset({"search_web", "write_note", "ask_expert"}))
    sets[FREE_TEXT] = evaluate(_free_text(300), _predictor, launching=launching)
    figures = Figures(sets, _cost(sessions, data), tuned)
    found: dict[str, object] = msgspec.to_builtins(figures, str_keys=True)
    return found


def _sets() -> dict[str, Collection[str]]:
    return {
        "tau_airline_gpt4o": _read_only(TAU_AIRLINE),
        "bfcl_multi_turn": _read_only(BFCL),
        "apibank": API_BANK,
    }


def _read_only(effects: Effects) -> frozenset[str]:
    kinds = {EffectKind.PURE, EffectKind.READ}
    return frozenset(name for name, effect in effects.items() if effect.kind in kinds)


def _predictor() -> PerformancePredictor:
    return PerformancePredictor(clock=SystemClock(), arguments=ArgumentModel, patterns=_PATTERNS)


def _recorded(data: Path, name: str) -> list[Trajectory]:
    with gzip.open(data / f"{name}.jsonl.gz") as lines:
        return list(trajectories(lines))


def _with_others(
    recorded: list[Trajectory], name: str, read: Collection[str]
) -> tuple[Evaluation, list[Tuned]]:
    """A set by the constants that were chosen on these sets, and by others."""
    chosen = Launching(read_only=read)
    others = [Launching(read_only=read, least=least) for least in LEAST]
    ours, *by_least = evaluate_each(recorded, _predictor, [chosen, *others])
    found = [Tuned("least", chosen.least, name, ours)]
    found += [Tuned("least", least, name, one) for least, one in zip(LEAST, by_least, strict=True)]
    return ours, found


def _text(rng: random.Random, words: int) -> str:
    return " ".join("".join(rng.choices(_LETTERS, k=rng.randint(3, 9))) for _ in range(words))


def _free_text(count: int) -> Iterator[Trajectory]:
    """Tools that are called with sentences nobody can know."""
    rng = random.Random(1)
    for number in range(count):
        events: list[Event] = [Said(_text(rng, 12))]
        for tool in rng.choices(("search_web", "write_note", "ask_expert"), k=rng.randint(1, 5)):
            call = Called(tool, {"query": _text(rng, rng.randint(2, 9))}, _text(rng, 20))
            events.append(Step((call,)))
        events.append(Said(_text(rng, 12), by_user=False))
        yield Trajectory(str(number), tuple(events), task=str(number))


def _session(rng: random.Random, words: list[str], turns: int) -> Iterator[Event]:
    """Calls of 200 tools, each with an id that the one before returned."""

    def often(most: int) -> int:
        return min(int(rng.paretovariate(0.8)) - 1, most - 1)

    def text(count: int) -> str:
        return " ".join(words[often(_WORDS)] for _ in range(count))

    for _ in range(turns):
        key = rng.randint(1_000, 9_999)
        yield Said(f"{text(25)} {key}")
        tool = often(_TOOLS)
        for _ in range(4):
            tool = (tool * 7 + often(20)) % _TOOLS
            ids = rng.sample(range(1_000, 10_000), 4)
            rows = [{"id": each, "kind": words[often(50)]} for each in ids]
            yield Step((Called(f"get_{words[tool]}", {"id": key}, rows),))
            key = ids[0]
        yield Said(text(30), by_user=False)


def _cost(sessions: int, data: Path) -> Cost:
    rng = random.Random(7)
    words = [_text(rng, 1) for _ in range(_WORDS)]
    predictor = _predictor()
    for number in range(sessions):
        predictor.learn(Trajectory(str(number), tuple(_session(rng, words, 3))))
    saved = predictor.save()
    short = [list(_session(rng, words, 3)) for _ in range(15)]
    long = list(_session(rng, words, 150))
    recorded = [each.events for each in _recorded(data, "tau_airline_gpt4o")]
    place = len(recorded) * 7 // 8
    learnt = _predictor()
    for events in recorded[:place]:
        learnt.learn(Trajectory("", events))
    held = msgspec.convert(saved, _Saved).scopes[""].parts.sequence
    clock = _Clock()
    try:
        return Cost(
            _PATTERNS,
            {
                SHORT: _timed(clock, saved, short),
                LONG: _timed(clock, saved, [long], heard=len(long) - 150),
                RECORDED: _timed(clock, learnt.save(), recorded[place:]),
            },
            contexts=len(held.contexts),
            features=len(held.features),
            saved_bytes=len(msgspec.msgpack.encode(saved)),
            reference_us=statistics.median(clock.references_us),
        )
    finally:
        clock.close()


class _Held(msgspec.Struct):
    contexts: dict[str, object]
    features: dict[str, object]


class _Parts(msgspec.Struct):
    sequence: _Held


class _Knowledge(msgspec.Struct):
    parts: _Parts


class _Saved(msgspec.Struct):
    scopes: dict[str, _Knowledge]


@final
class _Clock:
    """Times work beside the reference."""

    def __init__(self) -> None:
        self.references_us: list[float] = []
        self._loop = asyncio.new_event_loop()

    def took(self, work: Callable[[], object]) -> tuple[float, float]:
        """Microseconds of the processor, and that as a multiple of the reference right after."""
        begin = time.process_time_ns()
        work()
        between = time.process_time_ns()
        self._loop.run_until_complete(_bare(_STEPS))
        reference_us = (time.process_time_ns() - between) / _STEPS / 1e3
        self.references_us.append(reference_us)
        us = (between - begin) / 1e3
        return us, us / reference_us

    def close(self) -> None:
        """Ends its event loop."""
        self._loop.close()


async def _bare(times: int) -> None:
    async def nothing() -> None:
        pass

    for _ in range(times):
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(nothing())


def _timed(
    clock: _Clock, saved: object, sessions: Sequence[Sequence[Event]], *, heard: int = 0
) -> dict[str, Taken]:
    """Each moment as it comes, learnt of once it was timed, one kind of work after the other; the
    first `heard` events of a session are only heard. Of three runs from the same beginning the
    median counts, for each moment: so that each kind is timed with nothing prepared by another."""
    found: dict[str, dict[int, list[tuple[float, float]]]] = {what: {} for what in WORK}
    for turn in range(3 * len(_ASKED)):
        predictor = _predictor()
        predictor.load(saved)
        asked = _ASKED[turn % len(_ASKED)]
        moment = 0
        for events in sessions:
            session = predictor.session()
            for place, event in enumerate(events):
                if place < heard:
                    session.hear(event)
                    continue
                moment += 1
                if session.awaits_reply:
                    took = clock.took(partial(_ask, asked, predictor, session))
                    found[asked].setdefault(moment, []).append(took)
                observing = clock.took(partial(predictor.observe, session, event))
                found[OBSERVED].setdefault(moment, []).append(observing)
    return {what: _taken(list(took.values())) for what, took in found.items()}


def _ask(what: str, predictor: PerformancePredictor, session: Session) -> object:
    if what == NEXT:
        return predictor.next_tools(session)
    if what == LAUNCHABLE:
        return predictor.propose(session, 4, least=0.1)
    return predictor.propose(session)


def _taken(moments: Sequence[Sequence[tuple[float, float]]]) -> Taken:
    us, ratios = (
        sorted(statistics.median(each[part] for each in took) for took in moments)
        for part in (0, 1)
    )
    last = int(len(us) * 0.95)
    return Taken(len(us), statistics.mean(us), us[last], statistics.mean(ratios), ratios[last])
