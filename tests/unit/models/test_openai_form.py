"""Requests and replies in the form of chat completions."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import AgentError
from paceline.instances.completion import Completion
from paceline.instances.prompts import messages_of, request_of
from paceline.messages import (
    AssistantMessage,
    ModelReply,
    ModelRequest,
    SystemMessage,
    TextPart,
    ToolDefinition,
    ToolMessage,
    ToolUse,
    UserMessage,
)
from paceline.models.openai import arguments_of, calls_of, reply_of, uses_of
from paceline.testing.target_suite import a_call

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
USE = ToolUse("c1", "weather", '{"city":"Oslo"}')
REQUEST = ModelRequest(
    (
        SystemMessage("Be short."),
        UserMessage("Weather?"),
        AssistantMessage("I look.", (USE,)),
        ToolMessage("c1", "weather", "sunny"),
        AssistantMessage("", (USE,)),
        ToolMessage("c1", "weather", "no", failed=True),
        AssistantMessage("It is sunny."),
    ),
    (ToolDefinition("weather", "The weather.", SCHEMA),),
    temperature=0.0,
    max_tokens=9,
    seed=0,
)


def test_a_request_becomes_a_chat_completion() -> None:
    """Every kind of message, tools and options have the form that servers of chat completions take
    (S2-41, V-12)."""
    call: dict[str, object] = {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
    }
    assert arguments_of(REQUEST) == {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "no"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "The weather.",
                    "parameters": SCHEMA,
                },
            }
        ],
        "temperature": 0.0,
        "max_tokens": 9,
        "seed": 0,
    }


def test_what_is_left_to_the_model_is_not_said() -> None:
    """Options without a value, and tools that are none, are not in the request at all."""
    assert set(arguments_of(ModelRequest((UserMessage("Hi"),)))) == {"messages"}


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (UserMessage("other"),)},
        {"messages": (SystemMessage("a"),)},
        {"tools": ()},
        {"tools": (ToolDefinition("weather", "Other.", SCHEMA),)},
        {"temperature": 0.5},
        {"temperature": None},
        {"max_tokens": 8},
        {"seed": 1},
        {"seed": None},
    ],
)
def test_all_that_decides_an_answer_is_in_the_arguments(change: dict[str, Any]) -> None:
    """A request that differs in anything has other arguments, and so another key, and equal ones have
    the same; sampled answers are never taken for others (V-13)."""
    assert arguments_of(msgspec.structs.replace(REQUEST, **change)) != arguments_of(REQUEST)
    again = msgspec.json.decode(msgspec.json.encode(REQUEST), type=ModelRequest)
    assert arguments_of(again) == arguments_of(REQUEST)


def test_targets_take_the_arguments() -> None:
    """The messages are ones that instances accept, and an instance is chosen by them."""
    arguments: Any = arguments_of(REQUEST)
    call = a_call(None, **arguments)
    assert messages_of(call) == arguments_of(REQUEST)["messages"]
    assert request_of(call).input_tokens


@given(st.text(), st.text(), st.dictionaries(st.text(max_size=3), st.integers(), max_size=3))
def test_tool_uses_come_back_as_they_were(
    id: str,  # noqa: A002 (what it is)
    name: str,
    arguments: dict[str, int],
) -> None:
    """A use with JSON arguments is the same after it was a tool call (S2-41)."""
    use = ToolUse(id or "x", name, json.dumps(arguments, ensure_ascii=False))
    if all(ord(c) < 0xD800 for c in use.arguments):
        assert uses_of(calls_of([use])) == (use,)


@pytest.mark.parametrize("arguments", ["", '{"city": "Os', "[1]", "nonsense", "1", '{"a": \ud800}'])
def test_no_server_gets_arguments_that_are_no_object(arguments: str) -> None:
    """What a model wrote wrong goes back to it as a text inside an object, as servers read it (S2-41)."""
    (call,) = calls_of([ToolUse("c1", "weather", arguments.replace("\ud800", "?"))])
    function: Any = call["function"]
    assert json.loads(function["arguments"]) == {"invalid_json": arguments.replace("\ud800", "?")}


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        ({"content": "Hi", "finish_reason": "stop"}, ModelReply("Hi")),
        ({"content": "Hi"}, ModelReply("Hi")),
        ({"content": "Half", "finish_reason": "length"}, ModelReply("Half", finish="length")),
        ({"content": None, "finish_reason": "content_filter"}, ModelReply(finish="content_filter")),
        ({"refusal": "No.", "finish_reason": "stop"}, ModelReply("No.", finish="refusal")),
        ({"content": "Yes", "refusal": "No."}, ModelReply("Yes")),
        ({"content": "Hi", "finish_reason": "tool_calls"}, ModelReply("Hi")),
        ({"role": "assistant", "content": "Hi", "reasoning": "Hm"}, ModelReply("Hi")),
    ],
)
def test_a_message_becomes_a_reply(message: dict[str, object], reply: ModelReply) -> None:
    """Text, refusals and reasons to stop come over; tokens do not, as the meter has them (S2-41)."""
    assert reply_of(message) == reply


@pytest.mark.parametrize("finish", ["tool_calls", "function_call", "stop", "", None, "length"])
@pytest.mark.parametrize("arguments", ['{"city":"Oslo"}', {"city": "Oslo"}])
def test_tool_calls_become_uses(finish: str | None, arguments: object) -> None:
    """Tools are asked for whatever the server says that it stopped for, unless it was cut off; their
    arguments may be an object, their ids missing (S2-41)."""
    call = {"id": "c1", "function": {"name": "weather", "arguments": arguments}}
    bare = {"function": {"name": "time", "arguments": None}}
    reply = reply_of({"content": None, "tool_calls": [call, bare], "finish_reason": finish})
    assert reply.uses == (USE, ToolUse("call_1", "time", "{}"))
    assert reply.finish == ("length" if finish == "length" else "tools")


@pytest.mark.parametrize(
    "message",
    [{"content": 5}, {"content": ["a"]}, {"tool_calls": [{}]}, {"tool_calls": "x"},
     {"tool_calls": [{"function": {"name": None}}]}, {"tool_calls": [{"function": {"name": "a", "arguments": 5}}]}],
)  # fmt: skip
def test_what_is_no_message_is_a_typed_error(message: dict[str, object]) -> None:
    """A value that is no message of a model is an AgentError (S2-41)."""
    with pytest.raises(AgentError) as caught:
        reply_of(message)
    assert caught.value.may_have_started


def test_what_is_no_tool_call_is_a_typed_error() -> None:
    """Tool calls of another form are an AgentError (S2-41)."""
    with pytest.raises(AgentError):
        uses_of([{"name": "weather"}])


@given(st.lists(st.sampled_from(["He", "llo ", "\n", "é"]), max_size=5), st.booleans())
def test_what_is_heard_is_the_reply(texts: list[str], refuses: bool) -> None:
    """The text parts of a completion add up to the text of the reply that its message becomes, refusals
    too (S2-41)."""
    completion, heard = Completion(), []
    for text in texts:
        delta = {"refusal" if refuses else "content": text}
        heard += completion.add(json.dumps({"choices": [{"delta": delta}]}).encode())
    heard += completion.end()
    text = "".join(part.text for part in heard if isinstance(part, TextPart))
    assert text == reply_of(completion.message()).text == "".join(texts)
