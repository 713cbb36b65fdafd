"""Recorded sessions."""

import json
from typing import Any

import pytest

from paceline.engine.states import ToolCall, ToolStatus
from paceline.errors import InvalidInputError
from paceline.predict.events import Called, Said, Step, Trajectory
from paceline.predict.readers import openai_messages, trajectories
from paceline.redaction import Redactor
from paceline.speculation.written import Redacted


def test_the_common_form_is_read() -> None:
    """A run of the common form is read with its messages, calls, results, task and user. (S2-51)"""
    line = json.dumps({
        "id": "1", "dataset": "d", "task": "t", "user": "u", "trial": 0,
        "events": [
            {"k": "user", "text": "hi"},
            {"k": "step", "calls": [{"name": "f", "args": {"x": 1}, "result": [2]}]},
            {"k": "asst", "text": "bye"},
        ],
    })  # fmt: skip
    events = (Said("hi"), Step((Called("f", {"x": 1}, [2]),)), Said("bye", by_user=False))
    assert list(trajectories([line, ""])) == [Trajectory("1", events, "t", "u")]


def test_message_logs_are_read() -> None:
    """A log of chat messages is read: parallel calls are one step, results are decoded. (S2-51)"""
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": "wait", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "b", "content": "plain"},
        {"role": "tool", "tool_call_id": "a", "content": '{"y": 2}'},
        {"role": "assistant", "content": "bye"},
    ]
    (read,) = openai_messages([json.dumps({"messages": messages, "user": "u"})])
    assert read.scope == "u"
    assert read.events == (
        Said("hi"),
        Step((Called("f", {"x": 1}, {"y": 2}), Called("g", {}, "plain")), "wait"),
        Said("bye", by_user=False),
    )


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": 1}', '{"id": "1", "events": [{"k": "dance"}]}']
)
def test_a_bad_line_is_named(line: str) -> None:
    """A line of another form is refused by its number. (S2-51)"""
    with pytest.raises(InvalidInputError, match="line 2"):
        list(trajectories(["", line]))


@pytest.mark.parametrize(
    "message",
    [
        {"content": "no role"},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "other"}]},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]},
        {"role": "assistant", "content": 7},
    ],
)
def test_a_line_that_is_no_log_is_named(message: dict[str, Any]) -> None:
    """A log with what is no message, or with a call that names no tool, is refused by its number.
    (S2-51)"""
    good = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
    with pytest.raises(InvalidInputError, match="line 2"):
        list(openai_messages([good, json.dumps({"messages": [message]})]))


def test_words_right_before_a_step_are_of_the_same_answer() -> None:
    """In the common form what a model says right before it calls is said with the calls; what it says
    otherwise is an answer by itself, and a step without calls is none. (S2-51)"""
    calls = [{"name": "f", "args": {}}]
    events = [
        {"k": "asst", "text": "hello"}, {"k": "user", "text": "hi"}, {"k": "asst", "text": "so"},
        {"k": "asst", "text": "wait"}, {"k": "step", "calls": calls}, {"k": "step", "calls": calls},
        {"k": "asst", "text": "bye"}, {"k": "step", "calls": []},
    ]  # fmt: skip
    (read,) = trajectories([json.dumps({"id": 1, "events": events})])
    step = (Called("f", {}),)
    assert read.events == (
        Said("hello", by_user=False),
        Said("hi"),
        Said("so", by_user=False),
        Step(step, "wait"),
        Step(step),
        Said("bye", by_user=False),
    )


def test_ids_that_come_again_are_told_apart() -> None:
    """A result is of the latest call that has its id; calls of one answer with the same id, or none,
    have the results in their order. (S2-51)"""
    assert logged(
        {"role": "user", "content": "hi"},
        asks(("call_0", "f", '{"n": 1}'), ("call_1", "f", '{"n": 2}')),
        answer("call_1", "second"),
        answer("call_0", "first"),
        asks(("call_0", "f", '{"n": 3}')),
        {"role": "user", "content": "and?"},
        asks(("call_0", "f", '{"n": 4}')),
        answer("call_0", "fourth"),
        answer("call_0", "nobody's"),
        asks((None, "f", '{"n": 5}'), (None, "f", '{"n": 6}')),
        answer(None, "fifth"),
        answer(None, "sixth"),
    ) == [
        [Called("f", {"n": 1}, "first"), Called("f", {"n": 2}, "second")],
        [Called("f", {"n": 3})],
        [Called("f", {"n": 4}, "fourth")],
        [Called("f", {"n": 5}, "fifth"), Called("f", {"n": 6}, "sixth")],
    ]


@pytest.mark.parametrize("arguments", ['{"n": 1', "7", "[1]", "null", "[" * 100_000])
def test_a_call_with_broken_arguments_has_failed(arguments: str) -> None:
    """A call whose arguments are no object is one that failed, as in a session of ours, and the rest of
    the file is read. (S2-51)"""
    assert logged(asks(("a", "f", arguments)), answer("a", '{"bad": "JSON"}')) == [
        [Called("f", {}, '{"bad": "JSON"}', failed=True)]
    ]
    use = ToolCall("a", "f", arguments, ToolStatus.REJECTED, error='{"bad": "JSON"}')
    assert Redacted(Redactor()).called(use) == Called("f", {}, '{"bad": "JSON"}', failed=True)


@pytest.mark.parametrize("arguments", ["", " ", None, {}, "{}"])
def test_a_call_without_arguments_has_none(arguments: object) -> None:
    """A call that gives nothing has no arguments, and has not failed. (S2-51)"""
    assert logged(asks(("a", "f", arguments)), answer("a", "1")) == [[Called("f", {}, 1)]]


def test_calls_of_older_logs_are_read() -> None:
    """Calls as `function_call`, with results of the role function, are read as others are. (S2-51)"""
    assert logged(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "g", "arguments": "{"}},
        {"role": "function", "name": "g", "content": "2"},
        {"role": "assistant", "content": "bye", "function_call": None, "tool_calls": None},
    ) == [[Called("f", {}, 1)], [Called("g", {}, "2", failed=True)]]


def test_a_custom_tool_is_called_with_its_input() -> None:
    """The text that a custom tool is called with is its argument `input`. (S2-51)"""
    custom = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    assert logged({"role": "assistant", "tool_calls": [custom]}, answer("a", "1")) == [
        [Called("sql", {"input": "select 1"}, 1)]
    ]


def test_parts_without_text_say_nothing() -> None:
    """Of a message in parts what is text is read, and a text that is null is none. (S2-51)"""
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "hi"}]
    null = [{"type": "text", "text": None}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": null}]
    (read,) = openai_messages([json.dumps({"messages": messages})])
    assert read.events == (Said("hi"),)


def logged(*messages: dict[str, Any]) -> list[list[Called]]:
    """The calls of each answer, as they are read."""
    (read,) = openai_messages([json.dumps({"messages": messages})])
    return [list(each.calls) for each in read.events if isinstance(each, Step)]


def asks(*calls: tuple[str | None, str, object]) -> dict[str, Any]:
    """An answer that calls, by id, name and arguments."""
    uses = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id_, name, arguments in calls
    ]
    return {"role": "assistant", "content": None, "tool_calls": uses}


def answer(id_: str | None, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": text}
