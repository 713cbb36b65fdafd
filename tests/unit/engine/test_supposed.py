"""What a model would be asked in a turn that has not begun."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.conversation import Conversation
from paceline.engine.session import Session
from paceline.engine.states import ResourceLimits
from paceline.engine.supposed import SupposedTurn
from paceline.messages import Message, ModelReply, ModelRequest, ToolUse, UserMessage
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.engine.acting import Act, Acts, Says, Script, session

LOOK, FIND = ToolUse("a", "look", "{}"), ToolUse("b", "find", '{"it": 1}')
BOOK = st.dictionaries(
    st.sampled_from(("one", "two", "three")),
    st.lists(st.lists(st.sampled_from((LOOK, FIND)), min_size=1, max_size=3), max_size=7),
)
ACTS = {"look": Act(text="seen " * 20), "find": Act(text="found")}


def answers(book: dict[str, list[list[ToolUse]]], request: ModelRequest) -> Says:
    """What the book says of the message that was said last; the same to the same."""
    began = max(n for n, each in enumerate(request.messages) if isinstance(each, UserMessage))
    done = sum(hasattr(each, "uses") for each in request.messages[began:])
    steps = book.get(request.messages[began].text, [])
    return Says(uses=tuple(steps[done])) if done < len(steps) else Says(f"done {done}")


def supposed(
    held: Session, text: str, book: dict[str, list[list[ToolUse]]]
) -> tuple[list[tuple[Message, ...]], bool]:
    """What the model would be asked in this turn, and whether that is all."""
    acts = Acts(**ACTS)
    turn = SupposedTurn(held.conversation, text, clock=VirtualClock())
    asked: list[tuple[Message, ...]] = []
    while True:
        request = turn.request(acts.definitions())
        asked.append(request.messages)
        answer = answers(book, request)
        uses = turn.replied(ModelReply(answer.text, answer.uses))
        if not uses:
            return asked, True
        prepared = [acts.prepare(use) for use in uses]
        if not turn.stepped([(one, ACTS[one.use.name].text) for one in prepared]):
            return asked, False
        assert turn.holds


@given(
    book=BOOK,
    said=st.lists(st.sampled_from(("one", "two", "three", "four")), min_size=1, max_size=6),
    turns=st.sampled_from((1, 2, 100)),
    tokens=st.sampled_from((0, 60, 150)),
)
def test_it_is_what_the_turn_then_asks(
    book: dict[str, list[list[ToolUse]]], said: list[str], turns: int, tokens: int
) -> None:
    """Whatever is said and done in a session, however short it is kept, a turn that is supposed asks the
    model word for word what the turn itself asks then, step by step; it stops where that goes round in
    circles, and the session does not know of it (S2-40, P-02)."""

    async def main() -> None:
        script = Script(always=lambda request: answers(book, request))
        limits = ResourceLimits(max_turns_kept=turns, max_context_tokens=tokens)
        async with session(script, Acts(**ACTS), limits=limits) as held:
            for text in said:
                before = held.conversation.messages()
                found, whole = supposed(held, text, book)
                assert held.conversation.messages() == before
                count = len(script.asked)
                await asyncio.gather(held.send(text), return_exceptions=True)
                asked = script.asked[count:]
                assert asked[: len(found)] == found
                assert not whole or asked == found

    run(main())


def test_it_holds_until_something_is_said() -> None:
    """A turn that is supposed holds no more once something else was said in the session, or is pinned
    there (S2-40)."""
    said = Conversation()
    first, second = (SupposedTurn(said, "hello", clock=VirtualClock()) for _ in range(2))
    assert [first.holds, second.holds] == [True, True]
    said.add(UserMessage("bye"), "1")
    third = SupposedTurn(said, "hello", clock=VirtualClock())
    assert [first.holds, second.holds, third.holds] == [False, False, True]
    said.pin(UserMessage("always"))
    assert [third.holds] == [False]


def test_a_copy_of_a_conversation_is_one_of_its_own() -> None:
    """What is said in a copy of a conversation, or in what it was copied from, is in that alone, also
    where it makes place for more (S2-40)."""

    def told(one: Conversation) -> Any:
        return one.messages(), one.summary, one.dropped, one.tokens

    def begun() -> Conversation:
        said = Conversation("be brief", max_turns=2, max_tokens=50)
        for number in range(4):
            said.add(UserMessage(f"message {number}"), str(number))
        return said

    one, alone = begun(), begun()
    other = one.copy()
    before = told(one)
    assert told(other) == before
    for number in range(4):
        other.add(UserMessage(f"another {number} " * 8), str(number + 3))
    assert told(one) == before
    after = told(other)
    for each in (one, alone):
        each.add(UserMessage("more " * 30), "9")
    assert told(other) == after
    assert told(one) == told(alone)
