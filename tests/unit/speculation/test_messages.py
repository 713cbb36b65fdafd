"""Which messages follow which."""

from typing import Any

import msgspec
import pytest

from paceline.errors import CodecError
from paceline.speculation.kept import packed as in_file
from paceline.speculation.messages import Messages, NextMessage, fitting, heard_of
from paceline.testing.virtual_time import VirtualClock


def messages() -> Messages:
    return Messages(VirtualClock())


def said(knows: Messages, *texts: str, scope: str = "user ada") -> NextMessage:
    """A session in which this was said, and before each it was asked what comes."""
    session = NextMessage(knows, scope)
    for text in texts:
        session.likely()
        session.said(text)
    return session


def test_a_habit_of_messages_is_learnt() -> None:
    """What a user always writes after something is expected once that has come true often enough, and
    never of another user (S2-40, S2-50)."""
    knows = messages()
    for _ in range(30):
        said(knows, "standup", "and the open bugs?")
    found = said(knows, "standup").likely()
    assert found is not None
    assert found[0] == "and the open bugs?"
    assert found[1] > 0.5
    assert said(knows, "standup", scope="user bob").likely() is None


def test_new_messages_are_not_expected() -> None:
    """Of who never writes the same nothing is expected (S2-51)."""
    knows = messages()
    for number in range(30):
        texts = [f"question {number} number {turn * number}" for turn in range(3)]
        assert said(knows, *texts).likely() is None


def habit(knows: Messages, scope: str = "user ada", count: int = 20) -> None:
    for _ in range(count):
        said(knows, "standup", "and the open bugs?", scope=scope).over()


def packed(saved: object) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(saved))


def test_habits_of_messages_are_there_after_a_restart() -> None:
    """What is saved of messages, read again, expects what was expected before, and goes on learning as if
    it had never stopped (S2-49, S2-51)."""
    knows, again = messages(), messages()
    habit(knows)
    again.load(packed(knows.save()))
    expected = said(knows, "standup").likely()
    assert expected is not None
    assert said(again, "standup").likely() == expected
    for each in (knows, again):
        habit(each, count=3)
    assert again.save() == knows.save()


def test_what_is_written_once_is_not_remembered() -> None:
    """Of a message that is new, or longer than 1,000 characters, nothing of its text is kept; of one that
    comes again it is (S2-51)."""
    knows = messages()
    said(knows, "a secret", "open bugs?", "another secret", "x" * 1_001, "x" * 1_001)
    assert b"bugs" not in msgspec.msgpack.encode(knows.save())
    said(knows, "open bugs?")
    kept = msgspec.msgpack.encode(knows.save())
    assert b"open bugs?" in kept
    assert b"secret" not in kept
    assert b"xxx" not in kept


def test_what_is_kept_of_messages_is_bounded() -> None:
    """However much is written, the habits of those who wrote last fit into what they may take; those of a
    session alone are never among them (S2-48, S2-51)."""
    knows = messages()
    for number in range(6):
        scope = f"user u{number}"
        for turn in range(40):
            said(knows, *[f"{scope} {turn} {'word ' * 60}"] * 2, scope=scope)
    said(knows, "hello", "hello", scope="session s1")
    whole = fitting(knows.save())
    assert list(heard_of(whole)) == [f"user u{number}" for number in reversed(range(6))]
    size = len(msgspec.msgpack.encode(whole))
    for most in (size // 2, size // 4, 1_000):
        some = fitting(knows.save(), most)
        assert len(msgspec.msgpack.encode(some)) < most + 50_000
        assert list(heard_of(some)) == list(heard_of(whole))[: len(heard_of(some))]
        again = messages()
        again.load(packed(some))
    assert heard_of(fitting(knows.save(), 0)) == {}


def test_half_a_character_in_a_message_does_not_cost_all() -> None:
    """A message with a character that no file can hold is kept as text that says what it was, and those
    of others as they are (S2-51)."""
    knows = messages()
    said(knows, "open bugs?", "open bugs?", scope="user bob")
    said(knows, *["caf\udce9"] * 4)
    kept = in_file(fitting(knows.save()))
    assert b"open bugs?" in kept
    assert b"caf\\udce9" in kept


def test_habits_of_messages_are_forgotten_by_circle() -> None:
    """What is forgotten of a user leaves nothing of what he wrote, and of others all (S2-51)."""
    knows = messages()
    habit(knows)
    for _ in range(2):
        said(knows, "what bob says", scope="user bob")
    knows.forget("user bob")
    kept = msgspec.msgpack.encode(knows.save())
    assert b"bob" not in kept
    assert said(knows, "standup").likely() is not None


@pytest.mark.parametrize(
    "saved",
    [None, {}, {"version": 9, "habits": {}, "seen": {}}, {"version": 1, "habits": {}, "seen": {}}],
)
def test_what_is_no_habit_of_messages_is_refused(saved: object) -> None:
    """What is not what was saved is refused, and what was known stays (S2-51)."""
    knows = messages()
    habit(knows)
    before = knows.save()
    with pytest.raises(CodecError):
        knows.load(saved)
    assert knows.save() == before
