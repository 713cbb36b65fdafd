"""What is secret is neither learnt nor proposed nor kept."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from paceline import Runtime
from paceline.config import load
from paceline.engine.states import PerformanceHints
from paceline.predict.predictor import PerformancePredictor
from paceline.redaction import MASK
from paceline.testing.virtual_time import VirtualClock
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


def test_secrets_are_neither_proposed_nor_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of the environment, in arguments and results that are called so, in addresses and in the
    form of keys are in no hint, and neither told to the predictor nor learnt but as a mask (S2-10,
    S2-51)."""
    heard: list[str] = []
    observe = PerformancePredictor.observe

    def noted(self: PerformancePredictor, session: Any, event: Any, **more: Any) -> None:
        heard.append(repr(event))
        observe(self, session, event, **more)

    monkeypatch.setattr(PerformancePredictor, "observe", noted)

    async def main() -> None:
        async with environed() as runtime:
            hints, learnt = await tells(Follows([]), runtime)
        told = "".join(map(repr, hints))
        assert "log_in" in learnt.decode()
        assert MASK in learnt.decode()
        for secret in (KEY, IN_ENVIRONMENT, f":{PASSWORD}@", f"={PASSWORD}"):
            assert secret not in told
            assert secret not in "".join(heard)
            assert secret not in learnt.decode()
        assert MASK not in told

    runs_clean(main())
