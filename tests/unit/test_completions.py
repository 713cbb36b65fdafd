"""Streams of models: events made of bytes, and answers made of events."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Tokens
from paceline.instances.completion import Completion
from paceline.instances.events import Events

LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


def events(data: bytes, at: list[int]) -> list[bytes]:
    """What comes of these bytes, cut at these places."""
    ends = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    reader = Events()
    pieces = [data[start:end] for start, end in pairwise(ends)]
    return [event for piece in pieces for event in reader.feed(piece)]


@given(
    st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(0, 10**6)),
)
def test_events_come_out_however_they_are_cut(
    told: list[list[str]], end: str, at: list[int]
) -> None:
    """Any data come out as they were told, in whatever pieces and with either end of line, among
    comments and other fields."""
    lines: list[str] = []
    for event in told:
        lines += [": a comment", "event: message", *[f"data: {line}" for line in event], ""]
    data = "".join(line + end for line in lines).encode()
    assert events(data, at) == ["\n".join(event).encode() for event in told]


def test_what_is_not_complete_is_no_event() -> None:
    """An event counts when the empty line after it is there; one without data does not."""
    assert events(b"data:a\n", []) == []
    assert events(b"event: x\n\ndata\n\n", []) == [b""]
    assert events(b"data:  a\n\n", []) == [b" a"]


def add(*parts: object) -> Completion:
    """A completion of these parts."""
    completion = Completion()
    for part in parts:
        completion.add(json.dumps(part).encode())
    return completion


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_the_text_is_that_of_all_parts(texts: list[str]) -> None:
    """However a text is divided, all of it is there, and it has begun when there is some."""
    completion = add(*({"choices": [{"delta": {"content": text}}]} for text in texts))
    assert (completion.text or "") == "".join(texts)
    assert completion.begun == any(texts)
    assert completion.empty == (not any(texts))


def test_only_the_choice_asked_for_counts() -> None:
    """Other choices than the first are left out."""
    completion = add(
        {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]}
    )
    assert completion.text is None
    assert completion.finish_reason == ""


def test_open_models_think_aloud() -> None:
    """What a model says of its reasoning begins the answer, and is in the message apart."""
    completion = add(
        {"choices": [{"delta": {"reasoning_content": "Hm"}}]},
        {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]},
    )
    message = completion.message()
    assert (message["content"], message["reasoning_content"]) == ("Hi", "Hm")
    assert completion.begun


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3}, Tokens(5, 3)),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 4}, Tokens(5, cached_input=4)),
        (
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
            Tokens(5, cached_input=4),
        ),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Tokens(5)),
        ({"prompt_tokens": None, "completion_tokens": -7}, Tokens()),
        ({"completion_tokens": 10**15}, Tokens(0, 10**12)),
    ],
)
def test_usage_is_read_as_providers_tell_it(usage: dict[str, object], tokens: Tokens) -> None:
    """Cached tokens are found where either of two families of servers puts them, and numbers that
    make no sense are none."""
    assert add({"usage": usage}).tokens == tokens


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"choices": 3}', b"[" * 100_000])
def test_what_is_no_part_is_refused(data: bytes) -> None:
    """Bytes that are no part of a completion are an error and not a part without content."""
    with pytest.raises(ValueError, match="completion"):
        Completion().add(data)


def test_tool_calls_have_a_limit() -> None:
    """A stream cannot make us keep any number of tool calls."""
    calls = [{"index": n, "id": "c"} for n in range(1_001)]
    with pytest.raises(ValueError, match="tool calls"):
        add({"choices": [{"delta": {"tool_calls": calls}}]})
