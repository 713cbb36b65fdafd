"""Kept sessions, as prediction learns from them."""

from pathlib import Path

import pytest

from paceline.advise.answers import Answered, Use
from paceline.call import Caller
from paceline.engine.journal import Replied, StepEnded, TurnBegan, write
from paceline.engine.states import ToolCall, ToolStatus
from paceline.errors import Category, CodecError, CorruptStoreError
from paceline.history.sessions import SessionReader, SessionSummary
from paceline.messages import AssistantMessage, Message, ToolMessage, ToolUse, UserMessage
from paceline.predict.events import Called, Said, Step
from paceline.sessions.recorded import answers_of, caller_of, events_of, trajectory
from paceline.testing.virtual_time import VirtualClock
from tests.kept_sessions import entries_of, keep

KEPT = SessionSummary("s1", "ada", "acme", "", 0, 0, 0, 1)
EVENTS = (
    Said("Where is order 7?"),
    Step(
        (
            Called("get_order", {"order": 7}, {"order": 7, "parcels": [1, 2]}),
            Called("get_user", {}, "no JSON"),
        ),
        "I look.",
    ),
    Step((Called("track", {"parcel": 1}, "it is lost", failed=True),)),
    Said("It is lost.", by_user=False),
    Said("Thanks."),
    Said("Bye.", by_user=False),
)


def test_a_kept_session_is_read_as_it_was() -> None:
    """What was said, called with which arguments, returned and failed is read from the journal, in its
    order, words with the calls of the same answer. (S2-51)"""
    found = trajectory(KEPT, entries_of(EVENTS), "user ada")
    assert (found.id, found.scope, found.events) == ("s1", "user ada", EVENTS)
    assert caller_of(KEPT) == Caller("ada", "s1", "acme")


def test_what_was_interrupted_is_left_out() -> None:
    """Calls whose results the model was not told are no part of what is learnt. (S2-51)"""
    use = ToolUse("c1", "get_order", "{}")
    entries = [write(TurnBegan("t1", "go", 0)), write(Replied("t1", "", (use,)))]
    assert trajectory(KEPT, entries).events == (Said("go"),)
    ended = StepEnded("t1", (ToolCall("c1", "get_order", "{}", ToolStatus.COMPLETED, "3", ""),))
    found = trajectory(KEPT, [*entries, write(ended)]).events
    assert found == (Said("go"), Step((Called("get_order", {}, 3),)))


@pytest.mark.parametrize(
    ("arguments", "made"),
    [("", {}), (" ", {}), ('{"a": 1}', {"a": 1}), ("{", None), ("[1]", None), ("7", None)],
)
def test_arguments_that_are_none_are_no_call(
    arguments: str, made: dict[str, object] | None
) -> None:
    """A use whose arguments are no object was never run, and is left out. (S2-51)"""
    messages: list[Message] = [
        UserMessage("go"),
        AssistantMessage("", (ToolUse("1", "get", arguments),)),
        ToolMessage("1", "get", "1"),
    ]
    events = list(events_of(messages))
    assert events[1:] == ([] if made is None else [Step((Called("get", made, 1),))])


def test_what_cannot_be_read_is_an_error() -> None:
    """A journal that is damaged raises an error of ours. (S2-51)"""
    with pytest.raises(CodecError):
        trajectory(KEPT, [b"x"])
    with pytest.raises(CorruptStoreError):
        trajectory(KEPT, entries_of(EVENTS)[1:])


async def test_journals_are_looked_at_without_a_trace(tmp_path: Path) -> None:
    """Reading kept sessions makes no file and changes none; it finds those of one user or of all, the latest first.
    (S2-51)"""
    path = tmp_path / "state" / "sessions.db"
    reader = SessionReader(path)
    assert (reader.listed(), reader.load("s1")) == ([], [])
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()  # as who begins a session on a full disk leaves it
    assert (reader.listed(), reader.load("s1")) == ([], [])
    path.unlink()
    clock = VirtualClock()
    for number, user in enumerate(("ada", "bob", "ada")):
        await keep(path, clock, {f"s{number}": EVENTS}, user=user)
        clock.advance(1)
    before = path.read_bytes()
    assert [one.id for one in reader.listed()] == ["s2", "s1", "s0"]
    assert [one.id for one in reader.listed(user="ada", limit=1)] == ["s2"]
    assert trajectory(KEPT, reader.load("s1")).events == EVENTS
    assert reader.load("unknown") == []
    assert path.read_bytes() == before


def test_answers_are_read_with_their_times() -> None:
    """What the answers of a session asked for is read with how long it took, and why what was refused
    for its arguments was. (V-38)"""
    uses = (
        ToolUse("c1", "look", '{"a": 1}'),
        ToolUse("c2", "look", "["),
        ToolUse("c3", "gone", "{}"),
    )
    calls = (
        ToolCall("c1", "look", '{"a": 1}', ToolStatus.COMPLETED, "3", execution_ns=7, queue_ns=5),
        ToolCall("c2", "look", "[", ToolStatus.REJECTED, "Not run", "bad", Category.INVALID),
        ToolCall("c3", "gone", "{}", ToolStatus.REJECTED, "Not run", "gone", Category.NOT_FOUND),
    )
    entries = [
        write(TurnBegan("t1", "go", 0)),
        write(Replied("t1", "", uses)),
        write(StepEnded("t1", calls)),
        write(StepEnded("t1", calls)),  # it was not known whether it was there
        write(Replied("t1", "done")),
    ]
    assert list(answers_of(entries)) == [
        Said("go"),
        Answered(
            (
                Use("look", Called("look", {"a": 1}, 3), 7, queue_ns=5),
                Use("look", None, 0, "bad"),
                Use("gone", Called("gone", {}, "Not run", failed=True)),
            )
        ),
    ]
    with pytest.raises(CodecError):
        list(answers_of([b"x"]))
