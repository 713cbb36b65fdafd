"""Recorded sessions."""

import json

import pytest

from paceline.errors import InvalidInputError
from paceline.predict.events import Called, Said, Step, Trajectory
from paceline.predict.readers import openai_messages, trajectories


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
        Said("wait", by_user=False),
        Step((Called("f", {"x": 1}, {"y": 2}), Called("g", {}, "plain"))),
        Said("bye", by_user=False),
    )


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": 1}', '{"id": "1", "events": [{"k": "dance"}]}']
)
def test_a_bad_line_is_named(line: str) -> None:
    """A line of another form is refused by its number. (S2-51)"""
    with pytest.raises(InvalidInputError, match="line 2"):
        list(trajectories(["", line]))


def test_bad_arguments_are_named() -> None:
    """Arguments in a message log that are no object are refused. (S2-51)"""
    messages = [
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "7"}}]}
    ]
    with pytest.raises(InvalidInputError, match=r"line 1.*of f"):
        list(openai_messages([json.dumps({"messages": messages})]))
