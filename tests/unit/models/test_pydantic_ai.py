"""Models of pydantic-ai as models of ours."""

import importlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic_ai import exceptions, messages
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from paceline.call import Tokens
from paceline.errors import AgentError, Category, ConfigError
from paceline.messages import (
    AssistantMessage,
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
from paceline.models.pydantic_ai import PydanticAIModel
from paceline.redaction import Redactor, Secret

SECRET = "correct-horse-battery"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = ToolDefinition("weather", "The weather of a city.", SCHEMA)
HELLO = ModelRequest((UserMessage("Hello"),))
Delta = str | dict[int, DeltaToolCall]


def nobody(_: Part) -> None:
    """Hears nothing."""


def streaming(*deltas: Delta | Exception) -> PydanticAIModel:
    """A model whose stream is this."""

    async def stream(_: Any, __: AgentInfo) -> AsyncIterator[Delta]:
        for delta in deltas:
            if isinstance(delta, Exception):
                raise delta
            yield delta

    known = Redactor([Secret(SECRET)])
    return PydanticAIModel(FunctionModel(stream_function=stream), redactor=known)


def answering(answer: Callable[[list[Any], AgentInfo], messages.ModelResponse]) -> PydanticAIModel:
    """A model that does not stream."""
    return PydanticAIModel(FunctionModel(answer), stream=False)


async def test_their_test_model_answers() -> None:
    """The library's own test model calls each tool with arguments of its schema, and then answers with
    what came of them (S2-41)."""
    model = PydanticAIModel(TestModel(), name="tried")
    heard: list[Part] = []
    reply = await model.complete(ModelRequest((UserMessage("Hi"),), (TOOL,)), heard.append)
    (use,) = reply.uses
    assert (model.name, use.name, reply.finish) == ("tried", "weather", "tools")
    assert heard == [UsePart(use)]
    assert set(json.loads(use.arguments)) == {"city"}
    done = (UserMessage("Hi"), AssistantMessage("", (use,)), ToolMessage(use.id, "weather", "sun"))
    reply = await model.complete(ModelRequest(done, (TOOL,)), nobody)
    assert "sun" in reply.text
    assert reply.uses == ()
    assert reply.tokens is not None


async def test_a_use_is_heard_before_the_answer_ends() -> None:
    """A tool use is heard as soon as the next part begins (S2-41)."""
    heard: list[Part] = []
    seen: list[int] = []

    async def stream(_: Any, __: AgentInfo) -> AsyncIterator[Delta]:
        yield {1: DeltaToolCall("weather", '{"city": ', tool_call_id="c1")}
        yield {1: DeltaToolCall(json_args='"Oslo"}')}
        yield {2: DeltaToolCall("weather", '{"city": "Rome"}', tool_call_id="c2")}
        seen.append(len(heard))
        yield {2: DeltaToolCall(json_args=" ")}
        seen.append(len(heard))

    model = PydanticAIModel(FunctionModel(stream_function=stream))
    await model.complete(HELLO, heard.append)
    assert seen[-1] == 1
    assert [part.use.id for part in heard if isinstance(part, UsePart)] == ["c1", "c2"]


async def test_uses_that_are_mixed_are_heard_whole() -> None:
    """A use that goes on after the next one has begun is heard when all of it is there (S2-41)."""
    model = streaming(
        {1: DeltaToolCall("weather", '{"city": ', tool_call_id="c1")},
        {2: DeltaToolCall("weather", '{"city": "Rome"}', tool_call_id="c2")},
        {1: DeltaToolCall(json_args='"Oslo"}')},
    )
    heard: list[Part] = []
    reply = await model.complete(HELLO, heard.append)
    assert heard == [UsePart(use) for use in reply.uses]
    assert {use.id: json.loads(use.arguments)["city"] for use in reply.uses} == {
        "c1": "Oslo",
        "c2": "Rome",
    }


async def test_arguments_that_are_no_json_are_told_at_the_end() -> None:
    """What a model writes wrong is handed on as it is, once nothing more can come (S2-41)."""
    model = streaming({0: DeltaToolCall("weather", '{"city": "Os', tool_call_id="c1")})
    heard: list[Part] = []
    reply = await model.complete(HELLO, heard.append)
    assert reply.uses == (ToolUse("c1", "weather", '{"city": "Os'),)
    assert heard == [UsePart(reply.uses[0])]


async def test_two_uses_of_one_id_are_refused() -> None:
    """An answer in which an id stands for two calls is an error, as results could not be told apart
    (S2-41)."""
    part = messages.ToolCallPart
    model = answering(
        lambda _, __: messages.ModelResponse([part("a", "{}", "c1"), part("b", "{}", "c1")])
    )
    with pytest.raises(AgentError, match="'c1'"):
        await model.complete(HELLO, nobody)


async def test_a_conversation_becomes_theirs() -> None:
    """Messages of each kind, tools and options arrive as the library has them; what comes between two
    answers of the model is one request (S2-41, V-12)."""
    got: list[Any] = []

    def answer(asked: list[Any], info: AgentInfo) -> messages.ModelResponse:
        got.extend((asked, info))
        return messages.ModelResponse([messages.TextPart("ok")])

    use = ToolUse("c1", "weather", '{"city": "Oslo"}')
    request = ModelRequest(
        (
            SystemMessage("Be short."),
            UserMessage("Weather?"),
            AssistantMessage("I look.", (use, use)),
            ToolMessage("c1", "weather", "sunny"),
            ToolMessage("c1", "weather", "no", failed=True),
        ),
        (TOOL,),
        temperature=0.5,
        max_tokens=9,
        seed=7,
    )
    model = PydanticAIModel(FunctionModel(answer), stream=False, settings={"top_p": 0.5, "seed": 1})
    await model.complete(request, nobody)
    asked, info = got
    kinds = [[part.part_kind for part in message.parts] for message in asked]
    assert kinds == [
        ["system-prompt", "user-prompt"],
        ["text", "tool-call", "tool-call"],
        ["tool-return", "tool-return"],
    ]
    assert [part.content for part in asked[0].parts] == ["Be short.", "Weather?"]
    call = asked[1].parts[1]
    assert (call.tool_name, call.tool_call_id, call.args) == ("weather", "c1", use.arguments)
    assert [(p.content, p.outcome) for p in asked[2].parts] == [
        ("sunny", "success"),
        ("no", "failed"),
    ]
    assert [(t.name, t.description, t.parameters_json_schema) for t in info.function_tools] == [
        ("weather", "The weather of a city.", SCHEMA)
    ]
    settings = {"top_p": 0.5, "seed": 7, "temperature": 0.5, "max_tokens": 9}
    assert info.model_settings == settings


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(None, "stop"), ("stop", "stop"), ("tool_call", "stop"), ("length", "length"),
     ("content_filter", "content_filter")],
)  # fmt: skip
async def test_what_is_known_of_an_answer_comes_over(theirs: Any, ours: str) -> None:
    """Tokens by kind, the reason to stop and the model's own name are in the reply; what it thinks aloud
    is not (S2-41)."""
    usage = RequestUsage(
        input_tokens=9, output_tokens=5, cache_read_tokens=3, cache_write_tokens=2, output_reasoning_tokens=1
    )  # fmt: skip
    parts: list[messages.ModelResponsePart] = [
        messages.ThinkingPart("Hm"),
        messages.TextPart("Hi"),
        messages.TextPart(" there"),
    ]
    model = answering(
        lambda _, __: messages.ModelResponse(parts, usage=usage, finish_reason=theirs)
    )
    reply = await model.complete(HELLO, nobody)
    assert reply == ModelReply("Hi there", (), Tokens(9, 5, 3, 2, 1), ours, reply.model)
    assert reply.model == model.name


def refused(status: int, **more: Any) -> exceptions.ModelHTTPError:
    """An error with this status."""
    return exceptions.ModelHTTPError(status, "m", **more)


def of_kind(kind: Any, status: int) -> exceptions.ModelHTTPError:
    """An error of a kind, and with this status."""
    return exceptions.ModelHTTPError.for_category(kind, status_code=status, model_name="m")


@pytest.mark.parametrize(
    ("error", "category", "started"),
    [
        (refused(400), Category.INVALID, False),
        (refused(401), Category.AUTHENTICATION, False),
        (refused(404), Category.NOT_FOUND, False),
        (refused(429), Category.RATE_LIMIT, False),
        (refused(500), Category.UNAVAILABLE, True),
        (refused(504), Category.TIMEOUT, True),
        (refused(429, in_stream=True), Category.RATE_LIMIT, True),
        (of_kind(exceptions.ModelQuotaExceededError, 429), Category.EXHAUSTED, False),
        (of_kind(exceptions.ModelContextWindowExceededError, 400), Category.TOO_LONG, False),
        (of_kind(exceptions.ModelOverloadedError, 529), Category.UNAVAILABLE, True),
        (exceptions.ModelConnectionError("m", "x", phase="connect"), Category.NETWORK, False),
        (exceptions.ModelConnectionError("m", "x", phase="read"), Category.NETWORK, True),
        (exceptions.ModelTimeoutError("m", "x"), Category.TIMEOUT, True),
        (exceptions.ModelRequestTimeout("m", 3.0), Category.TIMEOUT, True),
        (exceptions.ContentFilterError("x"), Category.POLICY, True),
        (exceptions.UnexpectedModelBehavior("x"), Category.EXECUTION, True),
        (exceptions.UserError("x"), Category.INVALID, False),
        (TimeoutError(), Category.TIMEOUT, True),
        (KeyError("x"), Category.EXECUTION, True),
    ],
)
async def test_their_errors_have_their_meaning(
    error: Exception, category: Category, started: bool
) -> None:
    """Each error of a provider is one of ours, of its kind, and says whether the work may have started
    (S2-41)."""
    for deltas in ((error,), ("Hel", error)):
        with pytest.raises(AgentError) as caught:
            await streaming(*deltas).complete(HELLO, nobody)
        assert (caught.value.category, caught.value.may_have_started) == (category, started)


@pytest.mark.parametrize(
    ("asked", "wait_s"), [(3.0, 3.0), (-5.0, 0.0), (1e12, 86_400.0), (None, None)]
)
async def test_how_long_to_wait_is_bounded(asked: float | None, wait_s: float | None) -> None:
    """The time that a provider asks to wait comes over, never negative and never for years (S2-41)."""
    with pytest.raises(AgentError) as caught:
        await streaming(refused(429, retry_after=asked)).complete(HELLO, nobody)
    assert caught.value.retry_after_s == wait_s


async def test_no_secret_is_in_an_error() -> None:
    """Errors do not repeat a key, are short, and have no cause that could hold one (S2-41)."""
    with pytest.raises(AgentError) as caught:
        await streaming(refused(401, body=f"{SECRET} api_key=hunter2 {'x' * 999}")).complete(
            HELLO, nobody
        )
    error = caught.value
    assert SECRET not in error.message
    assert "hunter2" not in error.message
    assert len(error.message) < 400
    assert error.__cause__ is error.__context__ is None


async def test_an_answer_that_breaks_off_is_no_answer() -> None:
    """What is not complete is an error, and not a shorter answer (V-13)."""
    model = answering(
        lambda _, __: messages.ModelResponse([messages.TextPart("Hel")], state="incomplete")
    )
    with pytest.raises(AgentError, match="incomplete") as caught:
        await model.complete(HELLO, nobody)
    assert caught.value.category is Category.NETWORK


@pytest.mark.parametrize("name", ["nothing", "nobody:such-a-model", "anthropic:claude"])
def test_models_that_cannot_be_had_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is none, a provider that nobody knows, and one whose package or key is missing are a
    ConfigError that says so (S2-41)."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=name):
        PydanticAIModel(name)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is not installed, using it says which extra to install (S2-41)."""
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    monkeypatch.delitem(sys.modules, "paceline.models.pydantic_ai")
    with pytest.raises(ConfigError) as caught:
        importlib.import_module("paceline.models.pydantic_ai")
    assert "paceline[models]" in caught.value.next_step


async def test_empty_texts_are_not_heard() -> None:
    """Pieces without text are no parts."""
    heard: list[Part] = []
    reply = await streaming("", "Hi", "").complete(HELLO, heard.append)
    assert heard == [TextPart("Hi")]
    assert reply.text == "Hi"
