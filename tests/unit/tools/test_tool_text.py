"""What a model is told of a tool's value."""

import dataclasses
import datetime as dt
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.hostexec.result import CommandResult
from paceline.tools.text import shortened, told


@dataclasses.dataclass
class Item:
    sku: str
    at: dt.date


class Odd:
    def __repr__(self) -> str:
        return "odd"


class Worse:
    def __repr__(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it\nis", "as it\nis"),
        ("", ""),
        (None, "null"),
        (5, "5"),
        (2**80, str(2**80)),
        ({"a": [1, True, "é"]}, '{"a":[1,true,"é"]}'),
        (Item("a", dt.date(2026, 11, 21)), '{"sku":"a","at":"2026-11-21"}'),
        ([1, Odd()], '[1,"odd"]'),
        (Odd(), '"odd"'),
        (Worse(), "<Worse>"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_values_have_a_text(value: Any, text: str) -> None:
    """A text is told as it is, any other value as JSON, and what has no form there all the same."""
    assert told(value, 0) == text


def test_a_value_may_contain_itself() -> None:
    """A value without end is told by its type."""
    value: list[object] = []
    value.append(value)
    assert told(value, 100) == "<list>"


class Says:
    def __init__(self, said: object) -> None:
        self.said = said

    def __repr__(self) -> str:
        return "plain"

    def for_model(self) -> object:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def test_a_value_says_itself_how_it_reads() -> None:
    """What has `for_model` is told as what that says; where it fails, or says no text, the value is told
    as any other. (S2-09)"""
    assert told(Says("two lines\nof it"), 0) == "two lines\nof it"
    for useless in ("", 1, None, ValueError("no")):
        assert told(Says(useless), 0) == told([Says("")], 0).strip("[]")
    assert told(Says("x" * 999), 100) == told("x" * 999, 100)
    assert "for_model" not in told(Says, 0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "out\nerr"),
        ({"stdout": "", "stderr": ""}, "(no output)"),
        ({"truncated": True}, "out\nerr\n(it printed more than is here)"),
        ({"exit_code": 1}, "out\nerr\n(exit code: 1)"),
        ({"exit_code": None, "ok": False}, "out\nerr\n(exit code: none)"),
    ],
)
def test_a_command_is_told_as_what_it_printed(change: dict[str, Any], text: str) -> None:
    """Of a host command a model is told what it printed, and its exit code if that is not 0. (S2-09)"""
    result: dict[str, Any] = {
        "id": "1",
        "command": "x",
        "rule": "x",
        "exit_kind": "exited",
        "exit_code": 0,
        "ok": True,
        "stdout": "out\n",
        "stderr": "err\n",
        "truncated": False,
        "lossy": False,
        "duration_ms": 1.0,
        "sandbox": "none",
    }
    assert told(CommandResult(**result | change), 0) == text


@given(st.text(min_size=1, max_size=300), st.integers(1, 300))
def test_long_texts_lose_their_middle(text: str, most: int) -> None:
    """A text is never longer than asked for, and is whole if it fits; else its head and tail stand,
    and between them how much is left out. (S2-09)"""
    short = shortened(text, most)
    assert len(short) <= most
    if len(text) <= most:
        assert short == text
        return
    found = re.search(r"\n\[\.\.\. (\d+) characters left out \.\.\.\]\n", short)
    if found is None:
        assert text.startswith(short)
        return
    head, tail = short[: found.start()], short[found.end() :]
    assert (text.startswith(head), text.endswith(tail)) == (True, True)
    assert len(head) + int(found[1]) + len(tail) == len(text)


def test_the_room_is_used() -> None:
    """What is left out is little more than has to be, the end of the text is there, and no limit is
    none."""
    text = json.dumps(list(range(10_000)))
    short = told(text, 1_000)
    assert 990 <= len(short) <= 1_000
    assert short.endswith(text[-200:])
    assert told(text, 0) == text
