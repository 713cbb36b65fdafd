"""What every model must do, as checks to run on one's own.

::

    @pytest.mark.parametrize("check", CHECKS)
    async def test_my_model(check):
        async with my_stage() as stage:
            await check(stage)

A stage is a model, and whatever is behind it: that has to do what `play` does, which plays by what it
was told last. `check_model` runs all checks, each on a stage of its own. They raise AssertionError
where the model breaks a promise.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from paceline.errors import PacelineError
from paceline.messages import (
    AssistantMessage,
    Message,
    ModelReply,
    ModelRequest,
    Part,
    SystemMessage,
    TextPart,
    ToolDefinition,
    ToolMessage,
    ToolUse,
    UsePart,
    UserMessage,
)
from paceline.models.model import Model

__all__ = [
    "ANSWERS",
    "CHECKS",
    "FAILURE",
    "TOOLS",
    "Check",
    "Stage",
    "a_request",
    "answers_do_not_mix",
    "asks_for_tools",
    "cancelled_leaves_nothing",
    "check_model",
    "errors_are_typed",
    "every_use_is_heard_once_and_whole",
    "is_a_model",
    "is_asked_again",
    "play",
    "reads_the_whole_conversation",
    "says_nothing_after_its_answer",
    "secrets_stay_out",
    "takes_every_option",
    "tells_its_tokens",
    "the_parts_are_the_answer",
]

_AT_ONCE: Final = 5
_LOOKS: Final = 10_000
FAILURE: Final = "the far side failed"

ANSWERS: Final[dict[str, ModelReply]] = {
    "say": ModelReply("Hello, world.\n\nIt is 20 °C, “mild” {so to say}. "),
    "call": ModelReply(
        uses=(ToolUse("a1", "weather", '{"city": "Oslo \\"}{ é", "days": [1, {}]}'),),
        finish="tools",
    ),
    "call both": ModelReply(
        "Let me look.",
        (
            ToolUse("b1", "weather", '{"city": "Oslo"}'),
            ToolUse("b2", "time", "{}"),
            ToolUse("b3", "weather", '{"city": "Rome"}'),
        ),
        finish="tools",
    ),
}
"""What is answered to these words. Ids are whatever the far side makes them."""

TOOLS: Final = (
    ToolDefinition(
        "weather",
        "The weather of a city.",
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "array"}},
            "required": ["city"],
        },
    ),
    ToolDefinition("time", "The time of day.", {"type": "object", "properties": {}}),
)


async def play(asked: str) -> ModelReply:
    """What the far side answers to the text of the last message: that of `ANSWERS`; nothing, ever, to
    "hang"; an error to "fail"; and to anything else the same text."""
    if asked == "hang":
        await asyncio.get_running_loop().create_future()
    if asked == "fail":
        raise RuntimeError(FAILURE)
    return ANSWERS.get(asked) or ModelReply(asked)


class Stage(Protocol):
    """A model with its far side."""

    @property
    def model(self) -> Model:
        """What is checked."""
        ...

    @property
    def cannot(self) -> Collection[str]:
        """Of "hang" and "fail", what the far side cannot play."""
        ...

    @property
    def counts(self) -> bool:
        """Whether the model's answers say how many tokens they took."""
        ...

    @property
    def secrets(self) -> Sequence[str]:
        """What is shown nowhere."""
        ...

    def busy(self) -> int:
        """Requests that are being answered."""
        ...


Check = Callable[[Stage], Awaitable[None]]


async def check_model(make_stage: Callable[[], AbstractAsyncContextManager[Stage]]) -> None:
    """All checks, one after the other."""
    for check in CHECKS:
        async with make_stage() as stage:
            await check(stage)


def a_request(asked: str, *before: Message, **options: float) -> ModelRequest:
    """A request that ends with these words."""
    request = ModelRequest((*before, UserMessage(asked)), TOOLS)
    return msgspec.structs.replace(request, **options)


async def is_a_model(stage: Stage) -> None:
    """It has a name, which stays as it is."""
    assert isinstance(stage.model, Model), "it has not all that a model has"
    name = stage.model.name
    assert name, "it has no name"
    await _answer(stage, "say")
    assert stage.model.name == name, "its name changed"


async def the_parts_are_the_answer(stage: Stage) -> None:
    """The text that is heard is that of the reply, and the one that was given, to the last space."""
    for asked in ("say", "call both", "é\n\n", "0"):
        reply, heard = await _answer(stage, asked)
        text = "".join(part.text for part in heard if isinstance(part, TextPart))
        assert text == reply.text, f"heard {text!r}, and the reply is {reply.text!r}"
        assert text == (await play(asked)).text, f"{text!r} instead of what was given"
        assert all(part.text for part in heard if isinstance(part, TextPart)), "an empty part"


async def every_use_is_heard_once_and_whole(stage: Stage) -> None:
    """Each tool use is heard once, as it is in the reply, and in its order; what is heard is text and
    tool uses, and nothing else."""
    for asked in ("call", "call both", "say"):
        reply, heard = await _answer(stage, asked)
        uses = [part.use for part in heard if isinstance(part, UsePart)]
        assert uses == list(reply.uses), f"heard {uses}, and the reply has {reply.uses}"
        others = [part for part in heard if not isinstance(part, TextPart | UsePart)]
        assert not others, f"heard {others}"


async def asks_for_tools(stage: Stage) -> None:
    """Names and arguments of tool uses are those that were given, each use has an id of its own, and
    the reply says that it stopped for them."""
    for asked in ("call", "call both"):
        reply, _ = await _answer(stage, asked)
        given = await play(asked)
        got = [(use.name, msgspec.json.decode(use.arguments)) for use in reply.uses]
        expected = [(use.name, msgspec.json.decode(use.arguments)) for use in given.uses]
        assert got == expected, f"{got} instead of {expected}"
        ids = [use.id for use in reply.uses]
        assert all(ids), "a tool use without an id"
        assert len(set(ids)) == len(ids), f"two tool uses of one id: {ids}"
        assert reply.finish == "tools", reply.finish
    reply, _ = await _answer(stage, "say")
    assert reply.finish == "stop", reply.finish


async def says_nothing_after_its_answer(stage: Stage) -> None:
    """All parts are heard before the reply is there."""
    for asked in ("say", "call both"):
        _, heard = await _answer(stage, asked)
        count = len(heard)
        for _ in range(_AT_ONCE):
            await asyncio.sleep(0)
        assert len(heard) == count, "something was heard after the answer"


async def reads_the_whole_conversation(stage: Stage) -> None:
    """A conversation with messages of every kind is understood, results of tools too, failed ones,
    and those of a tool use that was no JSON."""
    before = (
        SystemMessage("Be short."),
        UserMessage("What is the weather?"),
        AssistantMessage("I look.", (ToolUse("c1", "weather", '{"city": "Oslo"}'),)),
        ToolMessage("c1", "weather", "no such city", failed=True),
        AssistantMessage("", (ToolUse("c2", "weather", '{"city": "Os'),)),
    )
    request = ModelRequest((*before, ToolMessage("c2", "weather", "sunny")), TOOLS)
    reply = await stage.model.complete(request, _nobody)
    assert reply.text == "sunny", f"{reply.text!r} instead of the result of the tool"
    reply, _ = await _answer(stage, "again", *before, ToolMessage("c2", "weather", "sunny"))
    assert reply.text == "again", reply.text


async def takes_every_option(stage: Stage) -> None:
    """What a request says of the temperature, the length and the seed is accepted, and so is nothing,
    and no tools."""
    for options in ({"temperature": 0.0}, {"max_tokens": 1_000}, {"seed": 7}):
        reply = await stage.model.complete(a_request("say", **options), _nobody)
        assert reply.text == ANSWERS["say"].text
    reply = await stage.model.complete(ModelRequest((UserMessage("say"),)), _nobody)
    assert reply.text == ANSWERS["say"].text


async def tells_its_tokens(stage: Stage) -> None:
    """Where it says how many tokens it used, there are some of both kinds."""
    reply, _ = await _answer(stage, "say")
    if stage.counts:
        assert reply.tokens is not None, "no tokens"
    if reply.tokens is not None:
        assert min(reply.tokens.input, reply.tokens.output) > 0, reply.tokens


async def errors_are_typed(stage: Stage) -> None:
    """What goes wrong is an error of ours; the model works on."""
    if "fail" in stage.cannot:
        return
    error = await _error(stage, "fail")
    assert error.next_step, "it does not say what to do"
    reply, _ = await _answer(stage, "say")
    assert reply.text == ANSWERS["say"].text


async def cancelled_leaves_nothing(stage: Stage) -> None:
    """Cancelled, it stops asking, says no more, and no error takes the place of that."""
    if "hang" in stage.cannot:
        return
    heard: list[Part] = []
    task = asyncio.ensure_future(stage.model.complete(a_request("hang"), heard.append))
    await _until(stage, 1)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled(), "cancelled, it ended in another way"
    await _until(stage, 0)
    assert heard == [], f"heard {heard}"
    reply, _ = await _answer(stage, "say")
    assert reply.text == ANSWERS["say"].text


async def answers_do_not_mix(stage: Stage) -> None:
    """Of many requests at once, each is answered for itself, and heard by its own listener."""
    asked = [*ANSWERS, *(f"request {n}" for n in range(_AT_ONCE))]
    got = await asyncio.gather(*(_answer(stage, words) for words in asked))
    for words, (reply, heard) in zip(asked, got, strict=True):
        text = "".join(part.text for part in heard if isinstance(part, TextPart))
        assert reply.text == text == (await play(words)).text, f"{reply.text!r} to {words!r}"


async def is_asked_again(stage: Stage) -> None:
    """The same request again gets an answer again, and all of it is heard again."""
    first = await _answer(stage, "call both")
    second = await _answer(stage, "call both")
    assert len(first[1]) == len(second[1]), "not all was heard again"


async def secrets_stay_out(stage: Stage) -> None:
    """No secret is in an error, its causes, their tracebacks, or in what the model looks like."""
    shown = [repr(stage.model), str(stage.model), stage.model.name]
    if "fail" not in stage.cannot:
        error = await _error(stage, "fail")
        shown += [*traceback.format_exception(error), error.next_step]
    for secret in stage.secrets:
        assert not any(secret in text for text in shown), "a secret is shown"


CHECKS: Final[tuple[Check, ...]] = (
    is_a_model,
    the_parts_are_the_answer,
    every_use_is_heard_once_and_whole,
    asks_for_tools,
    says_nothing_after_its_answer,
    reads_the_whole_conversation,
    takes_every_option,
    tells_its_tokens,
    errors_are_typed,
    cancelled_leaves_nothing,
    answers_do_not_mix,
    is_asked_again,
    secrets_stay_out,
)


def _nobody(_: Part) -> None:
    pass


async def _answer(stage: Stage, asked: str, *before: Message) -> tuple[ModelReply, list[Part]]:
    """What is answered, and what was heard of it."""
    heard: list[Part] = []
    return await stage.model.complete(a_request(asked, *before), heard.append), heard


async def _error(stage: Stage, asked: str) -> PacelineError:
    try:
        reply, _ = await _answer(stage, asked)
    except PacelineError as exc:
        return exc
    raise AssertionError(f"{reply!r} instead of an error")


async def _until(stage: Stage, busy: int) -> None:
    """Waits until so many requests are being answered."""
    for _ in range(_LOOKS):
        if stage.busy() == busy:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{stage.busy()} requests are being answered instead of {busy}")
