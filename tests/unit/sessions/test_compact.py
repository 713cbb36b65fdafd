"""Summaries that a session's own model makes, as calls like all others."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from paceline.call import Kind, Priority, Tokens
from paceline.engine.states import ResourceLimits
from paceline.errors import AgentError, Category, InvalidInputError
from paceline.messages import ModelReply, SystemMessage
from paceline.testing.virtual_time import run
from tests.unit.sessions.quiet import Said, a_runtime, asks, seen

TWO = ResourceLimits(max_turns_kept=2)
SHORT = ModelReply("ada wants bolts", tokens=Tokens(30, 3))


def answer(text: str = "yes") -> ModelReply:
    return ModelReply(text, tokens=Tokens(10, 1))


async def settled() -> None:
    await asyncio.sleep(1)


@pytest.mark.parametrize("by", ["settings", "option"])
def test_the_model_sums_up_what_it_is_no_longer_shown(by: str) -> None:
    """With `compact = "model"` the session's model is asked, between turns and as the least urgent of
    all, to sum up what it is no longer shown; it is one of its calls, in the tree of its turn, and its
    tokens are that turn's (S2-42, S2-57)."""
    settings: dict[str, Any] = {"chat": {"compact": "model"}} if by == "settings" else {}
    option: Any = {} if by == "settings" else {"compact": "model"}

    async def main() -> None:
        async with a_runtime(**settings) as runtime:
            model = Said(answer(), answer(), answer(), SHORT, answer())
            found = seen(runtime)
            async with runtime.session(model=model, limits=TWO, user="ada", **option) as session:
                for text in ("bolts, please", "eight", "blue"):
                    await session.send(text)
                assert len(model.requests) == 3
                await settled()
                task, record = model.requests[3].messages
                assert isinstance(task, SystemMessage)
                assert "user: bolts, please\nassistant: yes" in record.text
                assert model.requests[3].tools == ()
                turn = await session.send("go on")
                assert "ada wants bolts" in model.requests[4].messages[0].text
                assert not any("bolts, please" in m.text for m in model.requests[4].messages)
                assert [t.tokens for t in session.turns] == [Tokens(40, 4), Tokens(10, 1)]
            summary = next(call for call, _ in found if call.priority is Priority.LOW)
            assert (summary.kind, summary.name, summary.caller.user) == (Kind.MODEL, "said", "ada")
            assert summary.parent_id == turn.id.removesuffix(".4") + ".3"

    run(main())


def test_lines_stand_for_turns_unless_a_model_is_to_be_asked() -> None:
    """Unless it is asked for no model is asked for summaries (S2-42)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            model = Said(answer())
            async with runtime.session(model=model, limits=TWO) as session:
                for _ in range(5):
                    await session.send("hello")
                    await settled()
                assert "user: hello" in session.conversation.summary
            assert len(model.requests) == 5

    run(main())


def test_a_model_that_cannot_sum_up_costs_nothing_but_the_summary() -> None:
    """Where the model fails, or says nothing, the lines stay and the session goes on (S2-42)."""

    async def main() -> None:
        async with a_runtime(run={"max_attempts": 1}) as runtime:
            gone = AgentError("gone", category=Category.EXHAUSTED)
            model = Said(
                answer(), answer(), answer(), gone, answer("four"), answer(" "), answer("5")
            )
            async with runtime.session(model=model, limits=TWO, compact="model") as session:
                for _ in range(4):
                    await session.send("hello")
                    await settled()
                assert session.turns[-1].agent_response == "four"
                assert (await session.send("hello")).agent_response == "5"
                assert "user: hello" in session.conversation.summary

    run(main())


def test_a_summary_is_told_what_tools_did() -> None:
    """What tools were asked and what they gave is in what is summed up, long results without their
    middle (S2-42)."""

    async def main() -> None:
        async with a_runtime() as runtime:

            @runtime.tool(effect="read")
            async def look(item: str) -> str:
                return item * 10_000

            model = Said(asks("look", item="bolt"), answer(), answer(), SHORT)
            limits = ResourceLimits(max_turns_kept=1)
            async with runtime.session(model=model, limits=limits, compact="model") as session:
                await session.send("what is there?")
                await session.send("thanks")
                await settled()
            told = model.requests[3].messages[1].text
            assert 'assistant calls look: {"item": "bolt"}' in told
            assert "look returned: boltbolt" in told
            assert len(told) < 3_000

    run(main())


def test_summaries_take_one_of_two_words() -> None:
    """`compact` is "digest" or "model"; anything else is refused where it is given (S2-42)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            with pytest.raises(InvalidInputError, match="compact"):
                runtime.session(compact="yes")  # type: ignore[arg-type]

    run(main())


async def test_a_session_that_goes_on_has_its_summary(tmp_path: Path) -> None:
    """What is on disk is the summary, with what it took: whoever goes on with the session asks for no
    second one (S2-42, S2-56)."""
    async with a_runtime(tmp_path) as runtime:
        model = Said(answer(), answer(), answer(), SHORT)
        async with runtime.session("s", model=model, limits=TWO, compact="model") as session:
            for _ in range(3):
                await session.send("hello")
    async with a_runtime(tmp_path) as runtime:
        model = Said(answer())
        options: Any = {"model": model, "limits": TWO, "compact": "model", "resume": True}
        async with runtime.session("s", **options) as session:
            assert "ada wants bolts" in session.conversation.summary
            assert session.conversation.turns == 2
            assert session._budget.tokens == 3 * 11 + 33
            assert model.requests == []
