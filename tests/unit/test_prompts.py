"""What is known of a prompt before it is sent."""

import subprocess
import sys
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.balance.request import ANYTHING
from paceline.balance.strategies.prefixes import BLOCK_TOKENS
from paceline.instances.prompts import CHARACTERS_A_TOKEN, blocks_of, request_of
from paceline.testing.target_suite import a_call

BLOCK = BLOCK_TOKENS * CHARACTERS_A_TOKEN
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def user(content: object) -> dict[str, object]:
    """A message of the user."""
    return {"role": "user", "content": content}


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many blocks they have in common from the beginning."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


@given(st.integers(0, 5 * BLOCK), st.integers(0, 3 * BLOCK), st.integers(0, 3 * BLOCK))
def test_prompts_that_begin_alike_have_their_first_blocks_in_common(
    same: int, one: int, other: int
) -> None:
    """Two prompts have as many blocks in common, all at the beginning, as the text that they begin
    with has whole blocks. (S0-80)"""
    first = blocks_of([user("s" * same + "a" * one)])
    second = blocks_of([user("s" * same + "b" * other)])
    whole = (len("\0user\0") + same) // BLOCK
    assert len(first) == (len("\0user\0") + same + one) // BLOCK
    shorter = min(len(first), len(second))
    assert common(first, second) == (whole if one and other else shorter)
    assert not set(first[whole:]) & set(second[whole:]) or not (one and other)


def test_a_conversation_that_goes_on_keeps_its_blocks() -> None:
    """Each turn begins with all blocks of the one before, and its tools come first."""
    turns: list[dict[str, object]] = [{"role": "system", "content": "x" * 5_000}]
    before = blocks_of(turns)
    for n in range(5):
        turns += [
            user(f"{n}" * 3_000),
            {"role": "assistant", "content": None, "tool_calls": [{"n": n}]},
        ]
        now = blocks_of(turns)
        assert now[: len(before)] == before
        assert len(now) > len(before)
        before = now
    assert common(blocks_of(turns, [{"name": "tool"}]), before) == 0


def test_a_block_stands_for_all_that_is_before_it() -> None:
    """The same text further on in a prompt, or after another beginning, is another block."""
    blocks = blocks_of([user("x" * 5 * BLOCK)])
    assert len({*blocks, *blocks_of([user("y" + "x" * 5 * BLOCK)])}) == 2 * len(blocks)


def test_who_speaks_is_a_part_of_the_prompt() -> None:
    """The same words of another speaker are another prompt."""
    assert blocks_of([user("x" * BLOCK)]) != blocks_of([{"role": "tool", "content": "x" * BLOCK}])


def test_blocks_are_the_same_in_every_process() -> None:
    """Hashes do not depend on the process that makes them."""
    program = (
        "from paceline.instances.prompts import blocks_of;"
        "assert blocks_of([{'role': 'user', 'content': 'x' * 5000}]) == (%d, %d)"
    )
    blocks = blocks_of([user("x" * 5_000)])
    assert len(blocks) == 2
    ended = subprocess.run([sys.executable, "-c", program % blocks], check=False)
    assert ended.returncode == 0


def test_pictures_count_without_their_bytes() -> None:
    """An image counts for as many tokens as images do, is told from others, and has to be
    understood. (S0-80)"""
    parts: list[Any] = [{"type": "text", "text": "What is this?"}, PICTURE]
    request = request_of(a_call(None, messages=[user(parts)]))
    assert request.needs.modalities == {"text", "image"}
    assert 512 < request.input_tokens < 600
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}
    filler = {"type": "text", "text": "x" * BLOCK}
    assert blocks_of([user([PICTURE, filler])]) != blocks_of([user([other, filler])])


@pytest.mark.parametrize(
    ("characters", "most", "window"),
    [(100, None, 0), (4 * 4_000, None, 0), (4 * 5_000, None, 4_096), (4 * 9_000, None, 8_192),
     (100, 10_000, 8_192), (100, "many", 0)],
)  # fmt: skip
def test_a_window_is_asked_for_where_it_matters(characters: int, most: object, window: int) -> None:
    """Long calls need an instance with room for them, in a few sizes that are rather too small than
    too large. (S0-80)"""
    more: dict[str, Any] = {} if most is None else {"max_tokens": most}
    request = request_of(a_call("x" * characters, **more))
    assert request.needs.context_window == window
    assert (request.needs is ANYTHING) == (not window)


def test_a_call_of_anything_else_has_its_session_only() -> None:
    """What is no call of a model keeps to the instance of its session, and what is one does too."""
    assert request_of(a_call(None, city="Oslo")).affinity == "s-1"
    request = request_of(a_call("Hello"))
    assert (request.affinity, request.output_tokens) == ("s-1", None)
    assert request.input_tokens == -(-len("\0user\0Hello") // 4)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner)
                    | st.dictionaries(st.sampled_from(["type", "text", "x"]), inner), max_leaves=9))  # fmt: skip
def test_no_content_is_too_strange(content: object) -> None:
    """Whatever stands in a message, it can be weighed."""
    assert request_of(a_call(None, messages=[user(content)])).input_tokens >= 2
