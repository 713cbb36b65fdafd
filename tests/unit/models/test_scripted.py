"""A model that says what it was told to say."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import AgentError, Category, OverloadedError
from paceline.messages import (
    ModelReply,
    ModelRequest,
    Part,
    TextPart,
    ToolUse,
    UsePart,
    UserMessage,
)
from paceline.models.parts import parts_of
from paceline.models.scripted import ScriptedModel

REQUEST = ModelRequest((UserMessage("Hi"),))


def nobody(_: Part) -> None:
    """Hears nothing."""


@given(st.text(), st.lists(st.builds(ToolUse, st.text(), st.text(), st.text()), max_size=3))
def test_a_reply_is_the_sum_of_its_parts(text: str, uses: list[ToolUse]) -> None:
    """Whatever a reply holds, its parts hold the same, and none is empty (S2-41)."""
    parts = list(parts_of(ModelReply(text, tuple(uses))))
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    assert "".join(texts) == text
    assert all(texts)
    assert [part.use for part in parts if isinstance(part, UsePart)] == uses


async def test_replies_come_in_their_order() -> None:
    """Replies, errors and what is made of the request come one after the other, and the requests are
    kept (S2-41)."""

    async def later(request: ModelRequest) -> ModelReply:
        await asyncio.sleep(0)
        return ModelReply(request.messages[0].text)

    model = ScriptedModel(
        [ModelReply("one"), OverloadedError("busy"), lambda _: ModelReply("three"), later]
    )
    assert (await model.complete(REQUEST, nobody)).text == "one"
    with pytest.raises(OverloadedError, match="busy"):
        await model.complete(REQUEST, nobody)
    assert (await model.complete(REQUEST, nobody)).text == "three"
    assert (await model.complete(REQUEST, nobody)).text == "Hi"
    assert model.requests == [REQUEST] * 4


async def test_a_script_that_is_over_says_so() -> None:
    """Without a reply left, the error says so and how often it was asked, and nobody tries again
    (S2-41)."""
    model = ScriptedModel([ModelReply("one")], name="small")
    await model.complete(REQUEST, nobody)
    with pytest.raises(AgentError, match="small has no reply left: it was asked 2 times") as caught:
        await model.complete(REQUEST, nobody)
    assert caught.value.category is Category.INVALID


async def test_errors_of_others_end_here() -> None:
    """An exception that is none of ours becomes the cause of one that is (S2-41)."""

    def broken(_: ModelRequest) -> ModelReply:
        raise KeyError("x")

    for reply in (ValueError("x"), broken):
        with pytest.raises(AgentError) as caught:
            await ScriptedModel([reply]).complete(REQUEST, nobody)
        assert isinstance(caught.value.__cause__, (ValueError, KeyError))


async def test_others_run_between_the_parts() -> None:
    """A text comes word by word, and what else there is to do is done in between (S2-41)."""
    heard: list[Part] = []
    model = ScriptedModel([ModelReply("one two three")])
    task = asyncio.ensure_future(model.complete(REQUEST, heard.append))
    counts = []
    while not task.done():
        await asyncio.sleep(0)
        counts.append(len(heard))
    assert counts[0] < counts[-1] == 3
