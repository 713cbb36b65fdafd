"""Text for a chat: pages, blocks of code, files."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.integrations.discord.pages import (
    LIMIT,
    MOST_PAGES,
    blocks_reply,
    fenced,
    pages,
    size,
    text_reply,
)

LINES = st.text(st.sampled_from("ab 🎉*"), min_size=1, max_size=12)
BLOCKS = st.lists(st.lists(LINES, min_size=1, max_size=4).map("\n".join), max_size=6)
FENCE = "```"


def in_pages(blocks: Sequence[str], limit: int) -> list[str] | None:
    return pages(blocks, limit=limit)


def check_pages(cut: Callable[[Sequence[str], int], list[str] | None]) -> None:
    """No page is too long, no line is cut or lost, and no block is that a page can hold."""

    @settings(report_multiple_bugs=False, max_examples=300)
    @given(BLOCKS, st.integers(8, 40))
    def law(blocks: list[str], limit: int) -> None:
        found = cut(blocks, limit)
        lines = [line for block in blocks for line in block.split("\n")]
        if any(size(line) > limit for line in lines):
            assert found is None
            return
        assert found is not None
        assert all(0 < size(page) <= limit for page in found)
        assert [line for page in found for line in page.split("\n") if line] == lines
        for block in blocks:
            assert size(block) > limit or any(block in page for page in found)
        for page, following in itertools.pairwise(found):
            assert size(f"{page}\n\n{following}") > limit

    law()


def test_pages_keep_blocks_and_lines_whole() -> None:
    """No page is too long, no line is cut or lost, and no block is that a page can hold. (S1-17)"""
    check_pages(in_pages)


def test_the_check_finds_cuts() -> None:
    """The check fails for pages that are cut anywhere, lose the end, or take too much."""

    def anywhere(blocks: Sequence[str], limit: int) -> list[str] | None:
        text = "\n\n".join(blocks)
        return [text[at : at + limit] for at in range(0, len(text), limit)]

    def the_first_only(blocks: Sequence[str], limit: int) -> list[str] | None:
        found = pages(blocks, limit=limit)
        return found[:1] if found else found

    def by_lines(blocks: Sequence[str], limit: int) -> list[str] | None:
        return pages("\n".join(blocks).split("\n"), limit=limit)

    def too_much(blocks: Sequence[str], limit: int) -> list[str] | None:
        return pages(blocks, limit=limit + 1)

    for mutant in (anywhere, the_first_only, by_lines, too_much):
        with pytest.raises(AssertionError):
            check_pages(mutant)


def check_fenced(fence: Callable[[str], str]) -> None:
    """Whatever the text, the block of code ends where we end it."""

    @settings(report_multiple_bugs=False, max_examples=300)
    @given(st.text(st.sampled_from("`a\n\u200b\u202e\x00🎉"), max_size=60))
    def law(text: str) -> None:
        block = fence(text)
        assert block.startswith(f"{FENCE}\n")
        assert block.endswith(f"\n{FENCE}")
        assert FENCE not in block[3:-3]
        assert all(c.isprintable() or c in "\n\u200b" for c in block)

    law()


def test_a_text_stays_in_its_block() -> None:
    """Whatever the text, the block of code ends where we end it, and nothing in it is hidden."""
    check_fenced(fenced)


def test_the_check_finds_ways_out() -> None:
    """The check fails for blocks that runs of backticks can end."""

    def as_it_is(text: str) -> str:
        return f"{FENCE}\n{text}\n{FENCE}"

    def once(text: str) -> str:
        return f"{FENCE}\n{text.replace(FENCE, '`` `')}\n{FENCE}"

    for mutant in (as_it_is, once):
        with pytest.raises(AssertionError):
            check_fenced(mutant)


@given(st.text(max_size=50), st.integers(0, 3_000))
def test_a_block_fits_a_message(text: str, times: int) -> None:
    """A block of code is never longer than a message, also of characters that count twice."""
    block = fenced(text * times, where="it is elsewhere")
    assert size(block) <= LIMIT
    assert block.endswith(f"\n{FENCE}")


def test_characters_are_counted_as_the_strictest_does() -> None:
    """Characters beyond the first plane count twice."""
    assert (size("aé"), size("🎉")) == (2, 2)


def test_short_texts_are_unchanged() -> None:
    """A text without backticks or control characters is in its block as it is."""
    assert (
        fenced("  ls -l\n\tünï 🎉 👩\u200d🚀\n")
        == f"{FENCE}\n  ls -l\n\tünï 🎉 👩\u200d🚀\n{FENCE}"
    )
    assert fenced("a\r\nb") == f"{FENCE}\na\nb\n{FENCE}"


def test_a_long_text_is_a_file_as_it_was() -> None:
    """What is too long for a message is a file, character for character, if that may be so long."""
    text = "`" * 10 + "\x00é" * 2_000
    reply = text_reply(text, file_name="x.txt", file_bytes=len(text.encode()))
    assert (reply.file, reply.file_name) == (text, "x.txt")
    assert "all of it is in the file" in reply.pages[0]
    reply = text_reply(text, file_name="x.txt", file_bytes=len(text.encode()) - 1)
    assert reply.file == ""
    assert "too long for a file" in reply.pages[0]


def test_many_blocks_are_a_file() -> None:
    """Blocks for more pages than allowed are all in a file, and the first of them on a page."""
    blocks = ["x" * 900] * (2 * MOST_PAGES)
    assert len(blocks_reply(blocks, file_name="x.txt").pages) == MOST_PAGES
    reply = blocks_reply([*blocks, "y" * 900], file_name="x.txt")
    assert len(reply.pages) == 1
    assert reply.file == "\n\n".join([*blocks, "y" * 900])
    long = blocks_reply(["x" * 3_000], file_name="x.txt")
    assert (long.pages, long.file) == (("The rest is in the file.",), "x" * 3_000)
