"""The suite for models finds what is wrong with one: each broken promise by its check."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from paceline.call import Tokens
from paceline.errors import AgentError, PacelineError
from paceline.messages import (
    Hear,
    ModelReply,
    ModelRequest,
    Restarted,
    TextPart,
    ToolMessage,
    UsePart,
)
from paceline.testing import model_suite as suite
from paceline.testing.model_suite import ANSWERS, Check, check_model, play
from tests.model_stages import ModelStage, with_script

SECRET = "tok-4f9a8b7c6d5e4f3a"


class Broken:
    """A model that keeps all promises but one."""

    def __init__(self, how: str, model: Any) -> None:
        self.how = how
        self.model = model
        self.asked = 0
        self.left: list[asyncio.Future[Any]] = []

    def __repr__(self) -> str:
        return SECRET if self.how == "shows its secret" else "Broken()"

    @property
    def name(self) -> str:
        if self.how == "has no name":
            return ""
        return f"broken {self.asked}" if self.how == "changes its name" else "broken"

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        self.asked += 1
        reply = await self._asked(request, self._hearing(hear, request))
        if self.how == "talks on":
            asyncio.get_running_loop().call_soon(hear, TextPart("and"))
        if self.how == "changes a use" and reply.uses:
            return msgspec.structs.replace(reply, uses=reply.uses[:-1])
        if self.how == "says more than it replies" and reply.text:
            return msgspec.structs.replace(reply, text=reply.text[:-1])
        if self.how == "stops for nothing":
            return msgspec.structs.replace(reply, finish="")
        if self.how == "counts nothing":
            return msgspec.structs.replace(reply, tokens=Tokens())
        if self.how == "gives one id":
            uses = tuple(msgspec.structs.replace(use, id="x") for use in reply.uses)
            return msgspec.structs.replace(reply, uses=uses)
        return reply

    def _hearing(self, hear: Hear, request: ModelRequest) -> Hear:
        def heard(part: Any) -> None:
            if self.how == "repeats uses" and isinstance(part, UsePart):
                hear(part)
            if self.how == "tells nothing the second time" and self.asked > 1:
                return
            if self.how == "restarts":
                hear(Restarted())
            if self.how == "tells empty parts":
                hear(TextPart(""))
            hear(part)

        return heard

    async def _asked(self, request: ModelRequest, hear: Hear) -> ModelReply:
        last = request.messages[-1]
        if self.how == "has no options" and request.seed is not None:
            raise AgentError("seed")
        if self.how == "forgets results" and isinstance(last, ToolMessage):
            return ModelReply("what?")
        if self.how == "mixes" and last.text.startswith("request"):
            return await self._asked(suite.a_request("say"), hear)
        if self.how == "speaks before it hangs" and last.text == "hang":
            hear(TextPart("Hm"))
        if self.how == "leaves work behind" and last.text == "hang":
            self.left.append(asyncio.ensure_future(self.model.complete(request, hear)))
            return await asyncio.shield(self.left[0])
        return await self._failed(request, hear)

    async def _failed(self, request: ModelRequest, hear: Hear) -> ModelReply:
        try:
            reply: ModelReply = await self.model.complete(request, hear)
        except asyncio.CancelledError:
            if self.how == "swallows cancellation":
                return ModelReply()
            raise
        except PacelineError as exc:
            if self.how == "raises anything":
                raise KeyError("x") from exc
            if self.how == "tells its secret":
                raise AgentError(SECRET) from exc
            if self.how == "hides its failure":
                return ModelReply("fine")
            raise
        return reply


BREACHES: list[tuple[str, Check]] = [
    ("has no name", suite.is_a_model),
    ("changes its name", suite.is_a_model),
    ("says more than it replies", suite.the_parts_are_the_answer),
    ("tells empty parts", suite.the_parts_are_the_answer),
    ("repeats uses", suite.every_use_is_heard_once_and_whole),
    ("changes a use", suite.every_use_is_heard_once_and_whole),
    ("restarts", suite.every_use_is_heard_once_and_whole),
    ("changes a use", suite.asks_for_tools),
    ("gives one id", suite.asks_for_tools),
    ("stops for nothing", suite.asks_for_tools),
    ("talks on", suite.says_nothing_after_its_answer),
    ("forgets results", suite.reads_the_whole_conversation),
    ("has no options", suite.takes_every_option),
    ("counts nothing", suite.tells_its_tokens),
    ("raises anything", suite.errors_are_typed),
    ("hides its failure", suite.errors_are_typed),
    ("swallows cancellation", suite.cancelled_leaves_nothing),
    ("leaves work behind", suite.cancelled_leaves_nothing),
    ("speaks before it hangs", suite.cancelled_leaves_nothing),
    ("mixes", suite.answers_do_not_mix),
    ("tells nothing the second time", suite.is_asked_again),
    ("shows its secret", suite.secrets_stay_out),
    ("tells its secret", suite.secrets_stay_out),
]


@asynccontextmanager
async def broken(how: str) -> AsyncIterator[ModelStage]:
    """A stage for a model that is broken in this way."""
    async with with_script() as stage:
        model = stage.model = Broken(how, stage.model)
        stage.secrets = (SECRET,)
        yield stage
        for left in model.left:
            left.cancel()


@pytest.mark.parametrize(("how", "check"), BREACHES)
async def test_every_breach_is_found(
    how: str, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with one fault fails the check for it, while the sound one passes (S2-41)."""
    monkeypatch.setattr(suite, "_LOOKS", 50)
    async with broken("not at all") as stage:
        await check(stage)
    async with broken(how) as stage:
        with pytest.raises((AssertionError, KeyError, AgentError)):
            await check(stage)


def test_every_check_is_seen_to_fail() -> None:
    """There is a breach for each check."""
    assert {check for _, check in BREACHES} == set(suite.CHECKS)


async def test_all_checks_in_one() -> None:
    """A sound model passes the whole suite, with a stage of its own for each check."""
    stages = 0

    def make() -> Any:
        nonlocal stages
        stages += 1
        return with_script()

    await check_model(make)
    assert stages == len(suite.CHECKS)


async def test_the_far_side_plays() -> None:
    """What the far side does for each text is what the suite takes it to do."""
    assert await play("anything") == ModelReply("anything")
    for asked, reply in ANSWERS.items():
        assert await play(asked) is reply
    with pytest.raises(RuntimeError, match=suite.FAILURE):
        await play("fail")
    hanging = asyncio.ensure_future(play("hang"))
    await asyncio.sleep(0)
    assert not hanging.done()
    hanging.cancel()
