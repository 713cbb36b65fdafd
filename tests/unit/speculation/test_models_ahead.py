"""Models that are asked before the user has written."""

import asyncio
from datetime import date
from typing import Any

import pytest

from paceline.call import Caller, Outcome, Priority, Source, Tokens
from paceline.engine.states import ExecutionContext
from paceline.errors import AgentError
from paceline.messages import Hear, ModelReply, ModelRequest, UserMessage
from paceline.path.calls import Calls
from paceline.path.job import Job
from paceline.pricing import PriceList
from paceline.sessions.asking import ModelCalls
from paceline.sessions.models import DirectModel, FleetModel, Sampling
from paceline.settings import PriceSettings
from paceline.speculation.messages import NextMessage
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.sessions.quiet import a_runtime, seen
from tests.unit.speculation.worlds import GENEROUS, World, runs_clean, shop, sure

KEPT = Sampling(cache=True, cache_ttl_s=600.0)
SAID = ("standup", "and the open bugs?")


class Slow:
    """Answers in three seconds, always the same to the same, and counts."""

    name = "slow"

    def __init__(self) -> None:
        self.asked = 0

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """What was said last, once more."""
        del hear
        self.asked += 1
        await asyncio.sleep(3)
        return ModelReply(f"you said {request.messages[-1].text}")


async def sessions(
    count: int, *, tools: bool = True, **options: Any
) -> tuple[list[float], list[str], int]:
    """How long the second message of each of so many sessions took, what was answered, and how often
    the model was asked."""
    took: list[float] = []
    answers: list[str] = []
    model = Slow()
    loop = asyncio.get_running_loop()
    async with shop(**options) as runtime:
        if tools:
            World(runtime)
        runtime.add_model(model, sampling=KEPT)
        for number in range(count):
            async with runtime.session(f"s{number}", model="slow", user="ada") as session:
                await session.send(SAID[0])
                await asyncio.sleep(10)
                began = loop.time()
                turn = await session.send(SAID[1])
                took.append(loop.time() - began)
                answers.append(turn.agent_response)
                await asyncio.sleep(700)  # nothing of this session serves the next
    return took, answers, model.asked


def test_a_model_is_asked_what_the_user_always_writes() -> None:
    """Where it is allowed, and answers are kept, the model is asked ahead what follows by habit: the
    answer is there when the user writes, the same as without (S2-40, S2-43)."""
    took, answers, _ = run(sessions(25, models=True))
    slow, same, asked = run(sessions(25))
    assert answers == same
    assert (slow, asked) == ([3.0] * 25, 50)
    assert took[0] == 3.0
    assert took[-1] == 0.0


def test_a_session_without_tools_has_its_model_asked_ahead() -> None:
    """Where models may be asked ahead, that needs no tools (S2-40, S2-43)."""
    took, _, _ = run(sessions(22, tools=False, models=True))
    assert (took[0], took[-1]) == (3.0, 0.0)


def test_models_are_not_asked_ahead_unless_allowed() -> None:
    """By default no model is asked before somebody has written (P-02)."""

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)
            model = Slow()
            runtime.add_model(model, sampling=KEPT)
            for _ in range(20):
                async with runtime.session(model="slow", user="ada") as session:
                    for text in SAID:
                        await session.send(text)
                        await asyncio.sleep(10)
            assert (await runtime._parts.predictions()).figures().get("slow") is None
            assert model.asked == 2

    run(main())


@pytest.mark.parametrize(
    ("value", "error", "read"),
    [
        ({"content": "hello"}, None, ModelReply("hello")),
        (ModelReply("hello"), None, ModelReply("hello")),
        ({"content": 7}, None, None),
        ("hello", None, None),
        (None, AgentError("broken"), None),
    ],
)
def test_what_servers_answer_ahead_is_read(
    value: object, error: AgentError | None, read: ModelReply | None
) -> None:
    """What a server of a model answered ahead is read as the turn would read it; what is no answer, or
    failed, is none (S2-40)."""

    def never(*_: object) -> Any:
        raise AssertionError("nothing is run")

    model = FleetModel("m", KEPT, never)
    clock = VirtualClock()
    asked = ModelCalls([model], run=never, calls=Calls("r"), caller=Caller(), clock=clock)
    assert asked.reply(Outcome("1", "m", Source.EXECUTED, value, error)) == read


class Paid(Slow):
    """One that says what it used, and its own name, if that is another."""

    def __init__(self, own_name: str = "") -> None:
        super().__init__()
        self.own_name = own_name

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """A cent's worth, where it has a price."""
        reply = await super().complete(request, hear)
        return ModelReply(reply.text, tokens=Tokens(1_000, 0), model=self.own_name)


def priced(**usd: float) -> dict[str, Any]:
    """Prices of a million tokens of input."""
    return {
        name: {"from": "2020-01-01", "input": price, "output": 0.0} for name, price in usd.items()
    }


@pytest.mark.parametrize(
    ("prices", "own_name", "usd_a_day", "asked"),
    [
        (priced(slow=10.0), "", 0.0, (False, False)),
        (priced(slow=10.0), "", 1.0, (True, True)),
        (priced(slow=0.0), "", 0.0, (True, True)),
        (priced(other=10.0), "other", 0.0, (False, False)),
        (priced(other=10.0), "other", 1.0, (False, True)),
        (priced(other=10.0), "", 0.0, (False, True)),
        ({}, "", 0.0, (True, True)),
    ],
)
def test_nothing_is_spent_before_it_is_known_what_it_costs(
    monkeypatch: pytest.MonkeyPatch,
    prices: dict[str, Any],
    own_name: str,
    usd_a_day: float,
    asked: tuple[bool, bool],
) -> None:
    """What a model costs that has not answered yet in this process is reckoned by its price; one that
    prices do not name waits for its first answer, where there are prices. What costs money is asked
    ahead only within `usd_a_day`, and what costs nothing always (P-02, S2-40)."""
    sure(monkeypatch)
    monkeypatch.setattr(NextMessage, "said", lambda *_: None)
    monkeypatch.setattr(NextMessage, "likely", lambda _: ("and the open bugs?", 0.95))

    async def main() -> None:
        predict = {**GENEROUS, "models": True, "usd_a_day": usd_a_day, "usd_an_hour": 1e6}
        async with a_runtime(predict=predict, prices=prices) as runtime:
            found = seen(runtime)
            runtime.add_model(Paid(own_name), sampling=KEPT)

            def ahead() -> bool:
                some = any(call.priority is Priority.SPECULATIVE for call, _ in found)
                found.clear()
                return some

            async with runtime.session(model="slow", user="ada") as session:
                await asyncio.sleep(60)
                assert ahead() is asked[0]
                await session.send("something else")
                await asyncio.sleep(60)
                assert ahead() is asked[1]

    runs_clean(main())


@pytest.mark.parametrize(
    ("model", "prices", "max_tokens", "usd"),
    [
        ("direct", {"slow": (10.0, 40.0)}, None, 0.05014),
        ("direct", {"slow": (10.0, 40.0)}, 10, 0.01059),
        ("direct", {"slow": (0.0, 0.0)}, None, 0.0),
        ("free", {"slow": (10.0, 40.0)}, None, 0.0),
        ("direct", {}, None, 0.0),
        ("direct", {"other": (10.0, 40.0)}, None, None),
        ("fleet", {"fleet": (10.0, 40.0)}, None, 0.05014),
        ("fleet", {"slow": (10.0, 40.0)}, None, None),
    ],
)
def test_what_a_model_is_likely_to_cost(
    model: str, prices: dict[str, tuple[float, float]], max_tokens: int | None, usd: float | None
) -> None:
    """About what an answer costs is reckoned from the price of the model and the length of the request;
    nothing where it is free or there are no prices, and not where prices do not name it (P-02)."""

    def never(*_: object) -> Any:
        raise AssertionError("nothing is run")

    listed = {
        each: PriceSettings(since=date(2020, 1, 1), input=read, output=said)
        for each, (read, said) in prices.items()
    }
    sampling = Sampling(cache=True, max_tokens=max_tokens)
    kinds: dict[str, Any] = {
        "fleet": FleetModel("fleet", sampling, lambda: Job(execute=never, version="1")),
        "free": DirectModel("mine", Slow(), sampling, free=True),
        "direct": DirectModel("mine", Slow(), sampling),
    }
    asked = ModelCalls(
        [kinds[model]], run=never, calls=Calls("r"), caller=Caller(session="s"), clock=VirtualClock(),
        prices=PriceList(listed),
    )  # fmt: skip
    request = ModelRequest((UserMessage("word" * 1_000),))
    ahead = asked.at(Priority.LOW).ahead(request, ExecutionContext("s"))
    assert ahead is not None
    assert ahead.usd == (None if usd is None else pytest.approx(usd, rel=0.01))
