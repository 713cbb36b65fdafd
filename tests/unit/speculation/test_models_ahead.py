"""Models that are asked before the user has written."""

import asyncio
from typing import Any

import pytest

from paceline.call import Caller, Outcome, Source
from paceline.errors import AgentError
from paceline.messages import Hear, ModelReply, ModelRequest
from paceline.path.calls import Calls
from paceline.sessions.asking import ModelCalls
from paceline.sessions.models import FleetModel, Sampling
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.speculation.worlds import World, shop

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
