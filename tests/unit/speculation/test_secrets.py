"""What is secret is neither learnt nor proposed nor kept."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from paceline import Runtime
from paceline.config import load
from paceline.engine.states import ExecutionContext, PerformanceHints
from paceline.messages import Hear, ModelReply, ModelRequest, ToolUse
from paceline.predict.events import Called, Event, Said, Step
from paceline.predict.predictor import PerformancePredictor
from paceline.redaction import MASK, Redactor
from paceline.testing.virtual_time import VirtualClock
from tests.unit.speculation.test_predictions import NoTools
from tests.unit.speculation.test_resumed import predictions
from tests.unit.speculation.worlds import Follows, runs_clean

IN_ENVIRONMENT = "correct-horse-battery"
KEY = "sk-proj-abcdefghijklmnopqrstuv"
PASSWORD = "hunter2-hunter2"


def environed() -> Runtime:
    """A runtime with a secret in its environment."""
    quiet: dict[str, dict[str, Any]] = {
        "agents": {"watch": False},
        "hostexec": {"mode": "off"},
        "alerts": {"enabled": False},
    }
    return Runtime(
        load(overrides=quiet),
        agents=[],
        persist=False,
        environ={"DB_PASSWORD": IN_ENVIRONMENT},
        clock=VirtualClock(),
        rng=random.Random(1),
    )


async def tells(model: Any, runtime: Runtime) -> tuple[list[PerformanceHints], bytes]:
    """All hints of sessions in which secrets are said, given and returned; and what was learnt."""

    @runtime.tool(effect="read", ttl_s=60)
    async def log_in(password: str, token: str, note: str) -> dict[str, str]:
        del password, token
        return {"api_key": KEY, "note": note, "said": IN_ENVIRONMENT}

    @runtime.tool(effect="read", ttl_s=60)
    async def fetch(url: str) -> str:
        return f"Authorization: Bearer {KEY} of {url}"

    hints: list[PerformanceHints] = []
    steps = [
        (("log_in", {"password": PASSWORD, "token": KEY, "note": IN_ENVIRONMENT}),),
        (("fetch", {"url": f"https://u:{PASSWORD}@h/{KEY}"}),),
    ]
    async with runtime.session(model=model, user="ada") as session:
        for _ in range(12):
            model.steps = list(steps)
            text = f"My password is {PASSWORD}, password={PASSWORD}, {KEY} and {IN_ENVIRONMENT}"
            going = asyncio.create_task(session.send(text))
            for _ in range(12):
                await asyncio.sleep(1)
                hints.append(session.hints)
            await going
    predictions = await runtime._parts.predictions()
    return hints, msgspec.json.encode(predictions.predictor.save())


def observed(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What the predictor is told from now on."""
    heard: list[Event] = []
    observe = PerformancePredictor.observe

    def noted(self: PerformancePredictor, session: Any, event: Event, **more: Any) -> None:
        heard.append(event)
        observe(self, session, event, **more)

    monkeypatch.setattr(PerformancePredictor, "observe", noted)
    return heard


def test_secrets_are_neither_proposed_nor_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of the environment, in arguments and results that are called so, in addresses and in the
    form of keys are in no hint, and neither told to the predictor nor learnt but as a mask (S2-10,
    S2-51)."""
    heard = observed(monkeypatch)

    async def main() -> None:
        async with environed() as runtime:
            hints, learnt = await tells(Follows([]), runtime)
        told = "".join(map(repr, hints))
        assert "log_in" in learnt.decode()
        assert MASK in learnt.decode()
        for secret in (KEY, IN_ENVIRONMENT, f":{PASSWORD}@", f"={PASSWORD}"):
            assert secret not in told
            assert secret not in "".join(map(repr, heard))
            assert secret not in learnt.decode()
        assert MASK not in told

    runs_clean(main())


class Talks(Follows):
    """Says something in each answer that calls."""

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        reply = await super().complete(request, hear)
        return ModelReply(f"I log in with {IN_ENVIRONMENT}.", reply.uses) if reply.uses else reply


def test_words_of_an_answer_are_heard_with_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model says in an answer with calls reaches prediction once these are over, in one event
    with them and without secrets. (S2-10, S2-40, S2-51)"""
    heard, before = observed(monkeypatch), list[Event]()

    async def main() -> None:
        async with environed() as runtime:

            @runtime.tool(effect="read", ttl_s=60)
            async def log_in() -> str:
                await asyncio.sleep(2)
                before.extend(heard)
                return "done"

            model = Talks([[("log_in", {})]])
            async with runtime.session(model=model, user="ada") as session:
                await session.send("Go on.")

    runs_clean(main())
    assert before == [Said("Go on.")]
    step = Step((Called("log_in", {}, "done"),), f"I log in with {MASK}.")
    assert heard[:2] == [Said("Go on."), step]
    assert all(isinstance(event, Said) for event in heard[2:])


def test_words_of_calls_that_were_given_up_are_heard_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a turn is over and its tools are not, what the model said is heard with the calls, which
    failed, and without secrets. (S2-10, S2-40)"""
    heard = observed(monkeypatch)

    async def main() -> None:
        known = predictions()
        session = known.foresight(NoTools(), ExecutionContext("s", "ada", None))
        session.began("Go on.")
        session.replied(f"I log in with {KEY}.", [ToolUse("1", "log_in", "{}")])
        await asyncio.sleep(1)
        session.ended()
        await asyncio.sleep(1)
        session.close()
        await known.close()

    runs_clean(main())
    said = Redactor().text(f"I log in with {KEY}.")
    assert KEY not in said
    assert heard == [Said("Go on."), Step((Called("log_in", {}, failed=True),), said)]
