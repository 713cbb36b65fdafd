"""A small world with tools that read and change it, for sessions with and without prediction."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

import pytest

from paceline import Runtime
from paceline.engine.states import ConversationTurn
from paceline.messages import Hear, ModelReply, ModelRequest, ToolMessage, ToolUse, UserMessage
from paceline.predict.events import Proposal
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.session import Session
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.sessions.quiet import a_runtime

__all__ = [
    "GENEROUS",
    "ITEMS",
    "Follows",
    "World",
    "foretelling",
    "runs_clean",
    "shop",
    "sure",
    "timeless",
    "told",
    "with_prediction",
]

T = TypeVar("T")

ITEMS: Final = ("bolt", "nut", "saw")
_ALL: Final = tuple(f"item:{item}" for item in ITEMS)


class World:
    """Counts of items. Reading takes a second, changing it half of one."""

    def __init__(self, runtime: Runtime, places: int | None = None) -> None:
        """Of `stock` so many run at once."""
        self.counts = dict.fromkeys(ITEMS, 0)
        self.ran: Counter[str] = Counter()
        runtime.tool(effect="read", tags=("item:{item}",), ttl_s=600, max_concurrency=places)(
            self.stock
        )
        runtime.tool(effect="read", tags=_ALL, ttl_s=600)(self.total)
        runtime.tool(effect="read", ttl_s=600)(self.look_round)
        runtime.tool(effect="write", tags=("item:{item}",))(self.buy)
        runtime.tool(effect="write", tags=("item:{item}", "item:{other}"))(self.swap)
        runtime.tool()(self.shake)
        runtime.tool(effect="read", tags=_ALL, ttl_s=600, outside=True)(self.ask_a_friend)
        runtime.tool(effect="read", tags=_ALL, ttl_s=600, approval=True)(self.secret)
        runtime.tool(effect="read", tags=_ALL)(self.now)

    async def stock(self, item: str) -> int:
        """How many there are."""
        return await self._run("stock", 1, item)

    async def total(self) -> int:
        """How many there are of all."""
        return await self._run("total", 1)

    async def look_round(self) -> int:
        """The same; it does not say what it reads."""
        return await self._run("look_round", 1)

    async def swap(self, item: str, other: str) -> str:
        """Three of one for one of the other."""
        self.ran["swap"] += 1
        await asyncio.sleep(0.25)
        self.counts[item] += 3
        self.counts[other] -= 1
        await asyncio.sleep(0.25)
        return "swapped"

    async def buy(self, item: str) -> int:
        """One more."""
        self.ran["buy"] += 1
        await asyncio.sleep(0.25)
        self.counts[item] += 1
        await asyncio.sleep(0.25)
        return self.counts[item]

    async def shake(self) -> str:
        """Nobody knows what it does."""
        self.ran["shake"] += 1
        await asyncio.sleep(0.25)
        for item in ITEMS:
            self.counts[item] += 10
        await asyncio.sleep(0.25)
        return "shaken"

    async def ask_a_friend(self) -> int:
        """Tells others."""
        return await self._run("ask_a_friend", 1)

    async def secret(self) -> int:
        """A person has to agree."""
        return await self._run("secret", 1)

    async def now(self) -> int:
        """Not kept."""
        return await self._run("now", 1)

    async def _run(self, name: str, took_s: float, item: str | None = None) -> int:
        self.ran[name] += 1
        await asyncio.sleep(took_s / 2)
        found = sum(self.counts.values()) if item is None else self.counts.get(item, 0)
        await asyncio.sleep(took_s / 2)
        return found


class Follows:
    """A model that asks for one list of tool uses after another, three seconds each, and in the end
    says what it was told."""

    name = "follows"

    def __init__(self, steps: Iterable[Iterable[tuple[str, dict[str, Any]]]]) -> None:
        self.steps = [tuple(step) for step in steps]
        self.told: list[str] = []
        self._made = 0

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The next step."""
        del hear
        await asyncio.sleep(3)
        last = [one.text for one in request.messages if isinstance(one, (ToolMessage, UserMessage))]
        self.told = last
        if not self.steps:
            return ModelReply(" ".join(last))
        uses: list[ToolUse] = []
        for name, arguments in self.steps.pop(0):
            self._made += 1
            uses.append(ToolUse(f"call{self._made}", name, json.dumps(arguments)))
        return ModelReply(uses=tuple(uses)) if uses else ModelReply("nothing")


def shop(
    *,
    speculate: bool = True,
    clock: VirtualClock | None = None,
    run: dict[str, Any] | None = None,
    **predict: Any,
) -> Runtime:
    """A runtime with prediction, or without."""
    wanted = {"learn": speculate, "speculate": speculate, **predict}
    return a_runtime(clock=clock, predict=wanted, run=run or {})


def told(turn: ConversationTurn) -> tuple[Any, ...]:
    """What of a turn anybody can see, but for how long it took."""
    calls = [
        (call.tool_name, call.args, timeless(call.result), call.error) for call in turn.tool_calls
    ]
    return timeless(turn.agent_response), calls, turn.status


def timeless(text: str) -> str:
    """Without how long ago something was."""
    return re.sub(r"of \d+ s ago", "of late", text)


def foretelling(
    monkeypatch: pytest.MonkeyPatch, rng: random.Random, proposals: Iterable[tuple[str, Any]]
) -> list[tuple[Moment, str]]:
    """Has predictors say that some of these calls come, each for sure; right or wrong. What they said,
    by moment."""
    known = list(proposals)
    said: list[tuple[Moment, str]] = []

    def chosen(moment: Moment, most: int) -> list[tuple[str, Any]]:
        some = rng.sample(known, rng.randint(0, min(most, len(known))))
        said.extend((moment, name) for name, _ in some)
        return some

    _say(monkeypatch, chosen)
    return said


def sure(
    monkeypatch: pytest.MonkeyPatch, **calls: Iterable[tuple[str, Any]]
) -> list[tuple[Moment, str]]:
    """Has predictors say that these calls come, by moment: `reply=`, `tools=`, `idle=`, as these lists
    are then. What they said."""
    known = {Moment(moment): some for moment, some in calls.items()}
    said: list[tuple[Moment, str]] = []

    def chosen(moment: Moment, most: int) -> list[tuple[str, Any]]:
        some = list(known.get(moment, ()))[:most]
        said.extend((moment, name) for name, _ in some)
        return some

    _say(monkeypatch, chosen)
    return said


def _say(
    monkeypatch: pytest.MonkeyPatch, chosen: Callable[[Moment, int], list[tuple[str, Any]]]
) -> None:
    def propose(
        _: PerformancePredictor,
        __: Session,
        most: int = 10,
        *,
        moment: Moment = Moment.REPLY,
        least: float = 0.0,
    ) -> list[Proposal]:
        assert least < 1
        return [Proposal(name, arguments, 0.95) for name, arguments in chosen(moment, most)]

    monkeypatch.setattr(PerformancePredictor, "propose", propose)
    monkeypatch.setattr(PerformancePredictor, "known", lambda *_, **__: True)
    monkeypatch.setattr(PerformancePredictor, "takes_s", lambda *_: 1.0)


GENEROUS: Final[dict[str, Any]] = {
    "extra_calls": 1.0,
    "launches_per_minute": 10_000,
    "tool_launches_per_minute": 10_000,
    "session_launches_per_minute": 10_000,
    "work_s_per_minute": 10_000.0,
    "at_once": 100,
}
"""What is looked for is what may go wrong, not how seldom."""


def with_prediction(speculate: bool) -> dict[str, Any]:
    """Generous limits, with prediction or without."""
    return {**GENEROUS, "speculate": speculate}


def runs_clean(main: Coroutine[Any, Any, T]) -> T:
    """What comes of it in virtual time. Fails where something went wrong of which nobody was told
    but the loop, or where a task is left."""
    wrong: list[dict[str, Any]] = []

    async def watched() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        found = await main
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return found

    found = run(watched())
    assert not wrong, wrong
    return found
