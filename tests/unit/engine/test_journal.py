"""What a journal tells of a session."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Tokens
from paceline.engine.journal import (
    Entry,
    Replied,
    StepEnded,
    ToolBegan,
    ToolEnded,
    TurnBegan,
    TurnEnded,
    read,
    restore,
    write,
)
from paceline.engine.states import ConversationTurn, ToolCall, ToolStatus, TurnStatus
from paceline.errors import Category, CodecError, CorruptStoreError
from paceline.messages import AssistantMessage, ToolMessage, ToolUse, UserMessage

A, B = ToolUse("m1", "pay", "{}"), ToolUse("m2", "read", "[1]")
PAID = ToolCall("t.1", "pay", "{}", ToolStatus.COMPLETED, "paid")
FAILED = ToolCall("t.2", "read", "[1]", ToolStatus.FAILED, "Failed: no", "no")
BEGAN = TurnBegan("t", "go", 5)
ASKED = Replied("t", "first", (A, B), Tokens(1, 2), 0.5, "m")
ENTRIES: tuple[Entry, ...] = (
    BEGAN,
    ASKED,
    ToolBegan("t", 0, "t.1"),
    ToolEnded("t", 0, "paid"),
    StepEnded("t", (PAID, FAILED)),
    Replied("t", "bye", (), Tokens(3, 4), 1.0, "n"),
    TurnEnded("t", TurnStatus.COMPLETED, 9),
)


def told(*entries: Entry) -> list[bytes]:
    return [write(entry) for entry in entries]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    """Every kind of entry is read as it was written (S2-56, S2-06)."""
    assert read(write(entry)) == entry


def test_what_is_damaged_is_refused() -> None:
    """Bytes of another version, cut off, or of no entry are an error and no guess (S2-56)."""
    data = write(ENTRIES[1])
    for bad in (b"", b"\x02" + data[1:], data[:-1], data[:1] + b"\xc0"):
        with pytest.raises(CodecError):
            restore([bad])


def test_a_turn_is_told_by_its_entries() -> None:
    """A turn that is over has its words, tools, models and costs, and the conversation each use
    with its result (S2-06, S2-56, S2-57)."""
    restored = restore(told(*ENTRIES))
    assert restored.messages == (
        ("t", UserMessage("go")),
        ("t", AssistantMessage("first", (A, B))),
        ("t", ToolMessage("m1", "pay", "paid")),
        ("t", ToolMessage("m2", "read", "Failed: no", failed=True)),
        ("t", AssistantMessage("bye")),
    )
    assert restored.turns == (
        ConversationTurn(
            "t", "go", "bye", (PAID, FAILED), TurnStatus.COMPLETED, 5, 9, 2,
            Tokens(4, 6), 1.5, ("m", "n"), finish="stop",
        ),
    )  # fmt: skip
    assert restored.interrupted is None


def test_no_journal_is_a_new_session() -> None:
    """A session without entries begins with nothing (S2-56)."""
    restored = restore([])
    assert (restored.messages, restored.turns, restored.interrupted) == ((), (), None)


def test_a_tool_that_began_is_not_run_again() -> None:
    """Of an interrupted turn, a use that ended has its result, one that only began is told to be
    uncertain, and one that did neither is free to run (S2-56)."""
    began = (BEGAN, ASKED, ToolBegan("t", 0, "t.1"))
    free = restore(told(BEGAN, ASKED)).interrupted
    unsure = restore(told(*began)).interrupted
    ended = restore(told(*began, ToolEnded("t", 0, "paid"))).interrupted
    broken = restore(told(*began, ToolEnded("t", 0, "no money", failed=True))).interrupted
    assert free
    assert unsure
    assert ended
    assert broken
    assert [free.call(n) for n in (0, 1)] == [None, None]
    call = unsure.call(0)
    assert call
    assert (call.id, call.status) == ("t.1", ToolStatus.CANCELLED)
    assert "may or may not have taken effect" in call.result
    assert unsure.call(1) is None
    assert ended.call(0) == PAID
    assert broken.call(0) == ToolCall("t.1", "pay", "{}", ToolStatus.FAILED, "no money", "no money")
    assert [ended.open_uses, ended.answered, ended.steps] == [(A, B), False, 1]


def test_an_interrupted_turn_shows_only_whole_steps() -> None:
    """Uses whose results are not there yet are not in the conversation (S2-56)."""
    restored = restore(told(BEGAN, ASKED, ToolBegan("t", 0, "t.1")))
    assert restored.messages == (("t", UserMessage("go")),)
    assert restored.interrupted
    assert restored.interrupted.turn().status is TurnStatus.RUNNING


def test_a_cancelled_turn_tells_what_became_of_its_tools() -> None:
    """A turn that ended in the middle of its tools has a result for each use, and its last words
    are those the user saw (S2-30, S2-56)."""
    end = TurnEnded(
        "t", TurnStatus.CANCELLED, 3, "cancelled", Category.CANCELLED, "I was ab", Tokens(9, 0), 2.0
    )
    restored = restore(told(BEGAN, ASKED, ToolBegan("t", 0, "t.1"), end))
    results = [one for _, one in restored.messages if isinstance(one, ToolMessage)]
    assert [one.failed for one in results] == [True, True]
    assert "may or may not" in results[0].text
    assert "not run" in results[1].text
    assert restored.messages[-1] == ("t", AssistantMessage("I was ab"))
    [turn] = restored.turns
    assert (turn.agent_response, turn.error, turn.category) == (
        "I was ab", "cancelled", Category.CANCELLED,
    )  # fmt: skip
    assert (turn.tokens, turn.cost_usd) == (Tokens(10, 2), 2.5)
    assert all(call.status.terminal for call in turn.tool_calls)


def test_a_turn_that_nobody_went_on_with_is_cancelled() -> None:
    """A turn that begins ends the interrupted one before it (S2-56)."""
    restored = restore(told(BEGAN, ASKED, TurnBegan("u", "else", 6)))
    [turn] = restored.turns
    assert (turn.id, turn.status, turn.error) == ("t", TurnStatus.CANCELLED, "interrupted")
    assert len(turn.tool_calls) == 2
    assert restored.interrupted
    assert restored.interrupted.id == "u"


@pytest.mark.parametrize("entries", [(ASKED,), (BEGAN, TurnEnded("u", TurnStatus.COMPLETED))])
def test_an_entry_of_no_turn_is_damage(entries: tuple[Entry, ...]) -> None:
    """An entry whose turn does not run at its place is an error (S2-56)."""
    with pytest.raises(CorruptStoreError):
        restore(told(*entries))


@given(st.lists(st.integers(0, 2), min_size=len(ENTRIES), max_size=len(ENTRIES)), st.data())
def test_entries_written_again_count_once(again: list[int], data: st.DataObject) -> None:
    """However often each entry of any beginning of a journal stands there in a row, it tells the
    same (S2-56)."""
    length = data.draw(st.integers(0, len(ENTRIES)))
    once = told(*ENTRIES[:length])
    more = [entry for entry, n in zip(once, again, strict=False) for _ in range(n + 1)]
    one, other = restore(once), restore(more)
    assert (one.messages, one.turns) == (other.messages, other.turns)
    assert (one.interrupted is None) == (other.interrupted is None)
    if one.interrupted and other.interrupted:
        assert one.interrupted.turn() == other.interrupted.turn()
        assert one.interrupted.begun == other.interrupted.begun
