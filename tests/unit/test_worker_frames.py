"""What a worker and its parent say to each other."""

from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Tokens
from paceline.errors import AgentError, Category
from paceline.instances.frames import (
    MOST_BYTES,
    Answer,
    Cancel,
    Done,
    Failed,
    Frames,
    Order,
    Ping,
    Pong,
    Ready,
    Run,
    Unusable,
    Used,
    failed,
    frame,
)
from paceline.resources import ResourceUsage

NUMBERS = st.integers(0, 2**63 - 1)
ORDERS = st.one_of(
    st.builds(Run, NUMBERS, st.text(), st.binary(), st.booleans()),
    st.builds(Cancel, NUMBERS),
    st.just(Ping()),
)
USAGE = st.none() | st.builds(ResourceUsage, NUMBERS, NUMBERS, NUMBERS, st.none(), NUMBERS)
ANSWERS = st.one_of(
    st.sampled_from([Ready(), Pong()]),
    st.builds(Unusable, st.text()),
    st.builds(Done, NUMBERS, st.binary(), USAGE),
    st.builds(Used, NUMBERS, st.text(), st.builds(Tokens, NUMBERS), st.none() | st.floats(0, 1e9)),
    st.builds(Failed, NUMBERS, st.text(), st.text(), st.sampled_from(Category), st.none(), USAGE),
)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The data in pieces."""
    ends = sorted({min(place, len(data)) for place in at} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(st.lists(ORDERS), st.lists(NUMBERS.map(lambda n: n % 2_000)))
def test_orders_arrive_however_they_are_cut(orders: list[Order], at: list[int]) -> None:
    """Any orders come out as they went in, whatever the pieces they arrive in."""
    frames = Frames(cast("type[Order]", Order))
    data = b"".join(map(frame, orders))
    assert [order for piece in cut(data, at) for order in frames.feed(piece)] == orders


@given(st.lists(ANSWERS), st.lists(NUMBERS.map(lambda n: n % 2_000)))
def test_answers_arrive_however_they_are_cut(answers: list[Answer], at: list[int]) -> None:
    """Any answers come out as they went in, whatever the pieces they arrive in."""
    frames = Frames(cast("type[Answer]", Answer))
    data = b"".join(map(frame, answers))
    assert [answer for piece in cut(data, at) for answer in frames.feed(piece)] == answers


@given(st.binary())
def test_garbage_is_refused(data: bytes) -> None:
    """Whatever bytes come, they are messages, an error, or not enough."""
    frames = Frames(cast("type[Answer]", Answer))
    try:
        got = list(frames.feed(data))
    except ValueError:
        return
    assert len(b"".join(map(frame, got))) <= len(data)


def test_sizes_are_bounded() -> None:
    """A message too large is not sent, and one that would be is not waited for."""
    with pytest.raises(ValueError, match="larger"):
        frame(Done(1, bytes(MOST_BYTES)))
    with pytest.raises(ValueError, match="too large"):
        list(Frames(cast("type[Answer]", Answer)).feed(b"\xff" * 4))


@given(st.text(alphabet=st.characters()), st.sampled_from(Category), st.none() | st.floats(0, 9))
def test_errors_come_through(text: str, category: Category, wait_s: float | None) -> None:
    """An error says on the other side what it said, as far as text can be sent, and that the work
    may have started. (V-31)"""
    told = failed(1, AgentError(text, category=category, next_step="W", retry_after_s=wait_s))
    (got,) = Frames(cast("type[Answer]", Answer)).feed(frame(told))
    assert isinstance(got, Failed)
    error = got.error()
    assert error.message == (text.encode("utf-8", "backslashreplace").decode() or "AgentError")
    assert (error.category, error.next_step, error.retry_after_s) == (category, "W", wait_s)
    assert error.may_have_started
