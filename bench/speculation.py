"""Recorded sessions played again in virtual time, with prediction and without: how much of the wait
for tools it hides, what that takes, and whether anything is different or later.

`paceline bench predict` runs it, with bench/predict.py.

A model says what was recorded, 3.5 s after it was asked and all at once. A tool takes 0.5 to 2 s, by its
name and arguments, and returns what was recorded for them as the session's world is then: each write is
the begin of another state. What was never asked for in the session is not found, so that wrong
predictions are run like right ones. Results are of one session; those before it, one after another,
are what can be learnt from.
"""

import asyncio
import gzip
import itertools
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

import msgspec

from bench.predict import API_BANK, DATA
from bench.tool_effects import BFCL, TAU_AIRLINE, Effects
from bench.verdicts import Bar, Section, Table, at_least, at_most, percent
from paceline import Runtime
from paceline.call import Effect, EffectKind, ScopeLevel, Source
from paceline.config import load
from paceline.engine.events import ToolChanged, TurnEnded
from paceline.engine.session import Session
from paceline.messages import Hear, ModelReply, ModelRequest, ToolDefinition, ToolUse
from paceline.predict.evaluation import groups
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.readers import trajectories
from paceline.predict.values import canonical, kind_of
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtually
from paceline.tools.spec import ToolSpec

__all__ = ["Figures", "run", "section"]

Turn = tuple[str, tuple[ModelReply, ...]]
"""What the user says, and the replies of the model to it."""

_MODEL_S: Final = 3.5
_LEAST_S: Final = 0.5
_MOST_S: Final = 2.0
_TTL_S: Final = 600.0
_OUTSIDE: Final = ("think", "transfer_to_human_agents")
"""Tools that are no part of their world."""
_DONE: Final = "Done."
_LETTERS: Final = "abcdefghijklmnoprstuvwz"
_SLACK_MS: Final = 1e-3
_PURE: Final = Effect.pure()
_READ: Final = Effect.read("world")
_WRITE: Final = Effect.write("world")
_ELSEWHERE: Final = Effect.write("elsewhere")
_BY_KIND: Final = {EffectKind.PURE: _PURE, EffectKind.READ: _READ, EffectKind.WRITE: _WRITE}
_QUIET: Final[dict[str, dict[str, object]]] = {
    "agents": {"watch": False},
    "alerts": {"enabled": False},
    "hostexec": {"mode": "off"},
    "history": {"enabled": False},
    "chat": {"keep": False, "max_steps": 1_000, "max_execution_s": 1e6, "max_turns_kept": 1_000},
}
_NOTES: Final = [
    (
        "Each set is played twice through a runtime with its default budget, in virtual time: as "
        "recorded, and with prediction, which learns session by session as it goes and begins with "
        "nothing. A model replies 3.5 s after it was asked, all at once; a tool takes 0.5 to 2 s, by its "
        "name and arguments, and returns what was recorded."
    ),
    (
        "Wait: from the end of a reply to the result of each call of it, all added up; hidden is the "
        "share that nobody waits with prediction. Of at most: the share that is for calls that change "
        "nothing, which alone can be hidden. Extra calls for one: runs of tools that would not have been "
        "without prediction, for one real call, right ones that were never used among them. Made ahead "
        "and used: calls whose result was there, or under way. Slower at worst: the turn that lost most. "
        "Texts that differ: results and answers. More of the processor: real time that prediction adds "
        "to a turn, on this machine, all of the runtime's work on what it launches included; it is no part "
        "of virtual time."
    ),
    (
        'All sessions learn as one circle (`share = "all"`), in the order of the file, sessions of a task '
        "or customer in a row: so that a later one may be foreseen from an earlier one of the same. "
        "Customers apart: only the first session of each such group is counted, which nothing of its task "
        "or customer came before. Made up: calls with sentences that nobody can know, and a habit that "
        "ends half-way."
    ),
]
_WITH: Final[dict[str, object]] = {"share": "all"}
_WITHOUT: Final[dict[str, object]] = {"learn": False, "speculate": False}


class Played(msgspec.Struct):
    """What came of one session: seconds that each call was waited for from the end of the reply, and
    that each turn took; all texts; how often tools ran, and calls got what was made ahead."""

    waits_s: list[float] = []
    turns_s: list[float] = []
    cpu_s: float = 0.0
    texts: list[str] = []
    runs: int = 0
    speculated: int = 0


class Figures(msgspec.Struct):
    """Both ways of playing some sessions, compared. `extra_calls` are runs of tools that would not
    have been without prediction, for one call; `slower_ms` is by how much one turn took longer with it,
    at worst; `different` are texts of results and answers that are not the same; `reads` is the share
    of the wait that is for calls that change nothing: more cannot be hidden. `cpu_ms` is what a turn
    takes more of the processor, which is no part of virtual time."""

    sessions: int
    calls: int
    reads: float
    without_s: float
    with_s: float
    extra_calls: float
    speculated: int
    slower_ms: float
    different: int
    cpu_ms: float = 0.0

    @property
    def hidden(self) -> float:
        """The share of the wait for tools that is not waited with prediction."""
        return 1 - self.with_s / self.without_s if self.without_s else 0.0


class _Set(NamedTuple):
    """Sessions in the order in which they are played, and what their tools do; `first` are those before
    which no session of their task or customer is played, if others are like that."""

    name: str
    sessions: Sequence[Trajectory]
    effects: Effects
    first: Sequence[bool] = ()


@final
class _World:
    """What tools return in one session."""

    def __init__(self, session: Trajectory, effects: Effects) -> None:
        self.runs = 0
        self._effects = effects
        self._state = 0
        self._results: dict[tuple[str, str], dict[int, object]] = {}
        for call in _calls(session):
            effect = effects.get(call.name, _WRITE)
            known = self._results.setdefault((call.name, canonical(call.arguments)), {})
            known.setdefault(0 if effect == _PURE else self._state, call.result)
            self._state += effect == _WRITE
        self._state = 0

    async def work(self, name: str, arguments: Mapping[str, object]) -> object:
        """One run of a tool. What it returns is as it was at its beginning."""
        self.runs += 1
        key = (name, canonical(arguments))
        result = self._found(self._results.get(key))
        await asyncio.sleep(random.Random(repr(key)).uniform(_LEAST_S, _MOST_S))
        self._state += self._effects.get(name, _WRITE) == _WRITE
        return result

    def _found(self, known: Mapping[int, object] | None) -> object:
        if known is None:
            return "not found"
        before = [state for state in known if state <= self._state]
        return known[max(before, default=min(known))]


@final
class _Replay:
    """A model that says what was recorded."""

    name = "replay"

    def __init__(self, replies: Iterable[ModelReply]) -> None:
        self._replies = iter(replies)
        self.ended_s = 0.0

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:  # noqa: ARG002 (it knows)
        """The next reply; streams nothing."""
        await asyncio.sleep(_MODEL_S)
        self.ended_s = asyncio.get_running_loop().time()
        return next(self._replies)


@final
class _Stage:
    """The tools of a set, which work in the world of the session that is played."""

    def __init__(self, played: _Set) -> None:
        self.world = _World(Trajectory("", ()), {})
        self._effects = played.effects
        self.tools = [self._tool(*each) for each in _schemas(played.sessions).items()]

    def enter(self, session: Trajectory) -> _World:
        """The world of the session that is played next."""
        self.world = _World(session, self._effects)
        return self.world

    def _tool(self, name: str, schema: dict[str, object]) -> ToolSpec:
        async def work(**arguments: object) -> object:
            return await self.world.work(name, arguments)

        effect = self._effects.get(name, _WRITE)
        return ToolSpec(
            definition=ToolDefinition(name, f"The tool {name}.", schema),
            run=work,
            check=dict,
            effect=effect,
            is_async=True,
            ttl_s=_TTL_S if effect.repeatable else 0.0,
            scope=ScopeLevel.SESSION,
            max_result_chars=1_000_000,
            version="1",
        )


def run(sessions: int = 200, data: Path = DATA) -> dict[str, object]:
    """The figures by set, of as many sessions of each."""
    figures = dict(each for played in _sets(sessions, data) for each in _compared(played))
    found: dict[str, object] = msgspec.to_builtins(figures)
    return found


def section(title: str, data: object) -> Section:
    """What `run` returned, judged."""
    sets = msgspec.convert(data, dict[str, Figures])
    bars: list[Bar] = []
    for name, one in sets.items():
        if name.startswith("tau"):
            bars.append(at_least(f"{name}: wait hidden", 100 * one.hidden, 30, percent))
        bars.append(at_most(f"{name}: slower at worst", one.slower_ms, _SLACK_MS, _ms))
        bars.append(at_most(f"{name}: texts that differ", one.different, 0, "{:.0f}".format))
    columns = [
        "set", "sessions", "calls", "wait without", "with", "hidden", "of at most",
        "extra calls for one", "made ahead and used", "a turn slower at worst", "texts that differ",
        "processor, more for a turn",
    ]  # fmt: skip
    rows = [
        [
            name, str(one.sessions), str(one.calls), f"{one.without_s:,.0f} s",
            f"{one.with_s:,.0f} s", f"{one.hidden:.1%}", f"{one.reads:.1%}",
            f"{one.extra_calls:.2f}", str(one.speculated), _ms(one.slower_ms), str(one.different),
            _ms(one.cpu_ms),
        ]
        for name, one in sets.items()
    ]  # fmt: skip
    return Section(title, bars, [Table(columns, rows)], _NOTES)


def _compared(each: _Set) -> Iterator[tuple[str, Figures]]:
    """All of its sessions; and where some are of one task or customer, the first of those only."""
    without, ahead = _played(each, _WITHOUT), _played(each, _WITH)
    pairs = list(zip(each.sessions, without, ahead, strict=True))
    yield each.name, _figures(pairs, each.effects)
    if each.first:
        first = list(itertools.compress(pairs, each.first))
        yield f"{each.name}, customers apart", _figures(first, each.effects)


def _figures(pairs: Sequence[tuple[Trajectory, Played, Played]], effects: Effects) -> Figures:
    waits_s = [wait_s for _, before, _ in pairs for wait_s in before.waits_s]
    with_s = sum(wait_s for _, _, after in pairs for wait_s in after.waits_s)
    reads = [
        effects.get(call.name, _WRITE).repeatable for each, *_ in pairs for call in _calls(each)
    ]
    later_s = [
        after_s - before_s
        for _, before, after in pairs
        for before_s, after_s in zip(before.turns_s, after.turns_s, strict=True)
    ]
    texts = [
        text != other
        for _, before, after in pairs
        for text, other in zip(before.texts, after.texts, strict=True)
    ]
    runs = sum(after.runs - before.runs for _, before, after in pairs)
    return Figures(
        sessions=len(pairs),
        calls=len(waits_s),
        reads=sum(itertools.compress(waits_s, reads)) / sum(waits_s),
        without_s=sum(waits_s),
        with_s=with_s,
        extra_calls=runs / len(waits_s),
        speculated=sum(after.speculated for *_, after in pairs),
        slower_ms=1e3 * max(0.0, *later_s),
        different=sum(texts),
        cpu_ms=1e3 * sum(after.cpu_s - before.cpu_s for _, before, after in pairs) / len(later_s),
    )


# --- playing


def _played(each: _Set, predict: Mapping[str, object]) -> list[Played]:
    return run_virtually(_play(each, predict))


async def _play(each: _Set, predict: Mapping[str, object]) -> list[Played]:
    """All sessions, one after another, in one runtime."""
    stage = _Stage(each)
    settings = load(overrides={**_QUIET, "predict": dict(predict)})
    runtime = Runtime(
        settings,
        agents=[],
        persist=False,
        environ={},
        clock=VirtualClock(),
        rng=random.Random(1),
    )
    async with runtime:
        return [await _session(runtime, stage, session) for session in each.sessions]


async def _session(runtime: Runtime, stage: _Stage, played: Trajectory) -> Played:
    turns = list(_turns(played.events))
    model = _Replay(reply for _, replies in turns for reply in replies)
    world, found = stage.enter(played), Played()
    user = played.scope or played.id
    begin_s = time.process_time()
    async with runtime.session(model=model, tools=stage.tools, user=user) as session:
        for said, _ in turns:
            await _turn(session, said, model, found)
    found.runs = world.runs
    found.cpu_s = time.process_time() - begin_s
    return found


async def _turn(session: Session, said: str, model: _Replay, found: Played) -> None:
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    async for event in session.stream(said, most=10_000):
        if isinstance(event, ToolChanged) and event.status.terminal:
            found.waits_s.append(now_s() - model.ended_s)
            found.speculated += event.source == Source.SPECULATED
        elif isinstance(event, TurnEnded):
            found.turns_s.append(now_s() - began_s)
            found.texts += [call.result for call in event.turn.tool_calls]
            found.texts.append(event.turn.agent_response)


def _turns(events: Iterable[Event]) -> Iterator[Turn]:
    """Messages of the user that the model replied to. Where that ends with a call, it says that it is
    done."""
    said, text = "", ""
    replies: list[ModelReply] = []
    for event in [*events, Said("")]:
        if isinstance(event, Step):
            words = f"{text}\n{event.said}".strip()
            replies.append(ModelReply(words, tuple(map(_use, event.calls, itertools.count()))))
            text = ""
        elif not event.by_user:
            text = f"{text}\n{event.text}".strip()
        else:
            if replies or text:
                yield said or "Go on.", (*replies, ModelReply(text or _DONE))
                said, text, replies = "", "", []
            said = f"{said}\n{event.text}".strip()


def _use(call: Called, place: int) -> ToolUse:
    return ToolUse(str(place), call.name, msgspec.json.encode(call.arguments).decode())


def _calls(session: Trajectory) -> Iterator[Called]:
    for event in session.events:
        if isinstance(event, Step):
            yield from event.calls


def _schemas(sessions: Iterable[Trajectory]) -> dict[str, dict[str, object]]:
    """What tools take, by what they were given."""
    given: dict[str, list[Mapping[str, object]]] = {}
    for call in itertools.chain.from_iterable(map(_calls, sessions)):
        given.setdefault(call.name, []).append(call.arguments)
    return {name: _schema(each) for name, each in given.items()}


def _schema(given: Sequence[Mapping[str, object]]) -> dict[str, object]:
    kinds: dict[str, set[str]] = {}
    for name, value in (pair for each in given for pair in each.items()):
        kinds.setdefault(name, set()).add(kind_of(value))
    return {
        "type": "object",
        "properties": {
            name: {"type": next(iter(each))} if len(each) == 1 else {}
            for name, each in kinds.items()
        },
        "required": [name for name in kinds if all(name in each for each in given)],
    }


# --- sets


def _sets(sessions: int, data: Path) -> Iterator[_Set]:
    for name, effects in (
        ("tau_airline_gpt4o", {**_simple(TAU_AIRLINE), **dict.fromkeys(_OUTSIDE, _ELSEWHERE)}),
        ("bfcl_multi_turn", _simple(BFCL)),
        ("apibank", dict.fromkeys(API_BANK, _READ)),
    ):
        with gzip.open(data / f"{name}.jsonl.gz") as lines:
            together = groups(trajectories(lines), _apart)
        played = list(itertools.chain.from_iterable(together))[:sessions]
        first = [place == 0 for each in together for place in range(len(each))][:sessions]
        yield _Set(name, played, effects, () if all(first) else first)
    habits = dict.fromkeys(("find", "look_up", "price"), _READ)
    yield _Set("free text", list(_free_text(sessions)), {"search": _READ, "ask": _READ})
    yield _Set("a habit that ends", list(_drift(sessions)), habits)


def _simple(effects: Effects) -> Effects:
    """With one world: whatever changes something changes all that is read."""
    return {name: _BY_KIND[effect.kind] for name, effect in effects.items()}


def _apart(session: Trajectory) -> Iterator[str]:
    """What sessions must not share of which one is learnt before the other is predicted."""
    if session.task:
        yield f"task {session.task}"
    if session.scope:
        yield f"scope {session.scope}"


def _free_text(sessions: int) -> Iterator[Trajectory]:
    """Calls with sentences nobody can know."""
    rng = random.Random(1)

    def text(words: int) -> str:
        return " ".join("".join(rng.choices(_LETTERS, k=rng.randint(3, 9))) for _ in range(words))

    for number in range(sessions):
        names = rng.choices(("search", "ask"), k=rng.randint(1, 5))
        steps = [Step((Called(name, {"query": text(5)}, text(20)),)) for name in names]
        yield Trajectory(str(number), (Said(text(12)), *steps, Said(text(12), by_user=False)))


def _drift(sessions: int) -> Iterator[Trajectory]:
    """For half of the sessions each call is given what the one before returned; then never again,
    though all else is the same."""
    rng = random.Random(2)

    def key() -> str:
        return "".join(rng.choices(_LETTERS, k=8))

    for number in range(sessions):
        name, found, item = key(), key(), key()
        other = [key(), key()] if number >= sessions // 2 else [found, item]
        yield Trajectory(
            str(number),
            (
                Said(f"What does {name} cost?"),
                Step((Called("find", {"name": name}, {"id": found}),)),
                Step((Called("look_up", {"id": other[0]}, {"item": item}),)),
                Step((Called("price", {"item": other[1]}, rng.randint(1, 99)),)),
                Said("That is all.", by_user=False),
            ),
        )


def _ms(number: float) -> str:
    return f"{number:.1f} ms"
