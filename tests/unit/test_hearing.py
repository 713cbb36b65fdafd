"""The floor: the listener of a model's answer hears one whole answer, whatever tries there were."""

from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from paceline.hearing import Floor, current_floor, speaking
from paceline.messages import ModelReply, Part, Restarted, TextPart, ToolUse, UsePart

USE = ToolUse("u1", "look", "{}")
WHOLE = ModelReply("all of it", (USE,))


class Listener:
    """Keeps what counts of what it heard."""

    def __init__(self) -> None:
        self.heard: list[Part] = []
        self.restarts = 0

    def __call__(self, part: Part) -> None:
        if isinstance(part, Restarted):
            self.restarts += 1
            self.heard.clear()
        else:
            self.heard.append(part)

    def has(self, reply: ModelReply) -> bool:
        """Whether that is this answer, once."""
        text = "".join(part.text for part in self.heard if isinstance(part, TextPart))
        uses = tuple(part.use for part in self.heard if isinstance(part, UsePart))
        return (text, uses) == (reply.text, reply.uses)


class Try:
    """One try to answer."""

    def __init__(self, floor: Floor) -> None:
        self._context = floor.speaker()
        self._say = self._context.__enter__()
        self.said: list[Part] = []

    def say(self, *texts: str) -> None:
        for text in texts:
            self.said.append(TextPart(text))
            self._say(TextPart(text))

    def use(self, use: ToolUse) -> None:
        self.said.append(UsePart(use))
        self._say(UsePart(use))

    def end(self) -> None:
        self._context.__exit__(None, None, None)

    def fail(self) -> None:
        self._context.__exit__(OSError, OSError("gone"), None)

    def reply(self) -> ModelReply:
        text = "".join(part.text for part in self.said if isinstance(part, TextPart))
        return ModelReply(text, tuple(p.use for p in self.said if isinstance(p, UsePart)))


def a_floor(*, again: bool = False) -> tuple[Listener, Floor]:
    listener = Listener()
    return listener, Floor(listener, again=again)


def test_one_try_is_heard_as_it_comes() -> None:
    """What the only try says is heard at once, and is not told again at the end (S2-41)."""
    listener, floor = a_floor()
    only = Try(floor)
    only.say("all ", "of it")
    assert listener.heard == [TextPart("all "), TextPart("of it")]
    only.use(USE)
    only.end()
    floor.settle(WHOLE)
    assert listener.heard == only.said
    assert listener.restarts == 0


def test_an_answer_that_was_not_heard_is_told() -> None:
    """The text of an answer that nobody spoke, such as one served again, is told without a restart,
    and its tool uses are left to whoever has the answer (S2-41)."""
    listener, floor = a_floor()
    floor.settle(WHOLE)
    assert listener.heard == [TextPart("all of it")]
    assert listener.restarts == 0


@pytest.mark.parametrize("said", [[], ["all "], ["other"], ["all of it"]])
def test_an_answer_that_was_heard_in_part_is_told_anew(said: list[str]) -> None:
    """Whatever a try said, the listener ends up with the text of the reply that it gave, once (S2-41)."""
    listener, floor = a_floor()
    only = Try(floor)
    only.say(*said)
    only.end()
    floor.settle(WHOLE)
    assert listener.has(replace(WHOLE, uses=()))
    assert listener.restarts == (said in (["all "], ["other"]))


def test_a_reply_without_words_takes_back_what_was_heard() -> None:
    """An empty answer after a try that failed leaves nothing of that try (S2-41)."""
    listener, floor = a_floor()
    first = Try(floor)
    first.say("half")
    first.fail()
    assert listener.heard == [TextPart("half")]  # so long as nobody knows of another
    floor.settle(ModelReply())
    assert (listener.heard, listener.restarts) == ([], 1)


def test_a_second_try_is_heard_as_it_comes() -> None:
    """The try after one that failed is heard from its first part on, after one restart (S2-41)."""
    listener, floor = a_floor()
    first = Try(floor)
    first.say("all", " wrong")
    first.fail()
    second = Try(floor)
    second.say("all of it")
    assert (listener.heard, listener.restarts) == ([TextPart("all of it")], 1)
    second.use(USE)
    second.end()
    floor.settle(WHOLE)
    assert (listener.has(WHOLE), listener.restarts) == (True, 1)


def test_what_another_says_meanwhile_is_kept() -> None:
    """Of two that speak at once one is heard; if it fails, all of the other, after a restart (S2-41)."""
    listener, floor = a_floor()
    first, second = Try(floor), Try(floor)
    first.say("a")
    second.say("x", "y")
    first.say("b")
    assert listener.heard == [TextPart("a"), TextPart("b")]
    first.fail()
    assert (listener.heard, listener.restarts) == ([TextPart("x"), TextPart("y")], 1)
    second.say("z")
    second.end()
    floor.settle(ModelReply("xyz"))
    assert (listener.has(ModelReply("xyz")), listener.restarts) == (True, 1)


def test_a_failure_of_who_is_not_heard_changes_nothing() -> None:
    """A try that fails while another is heard takes its own words with it, and no others (S2-41)."""
    listener, floor = a_floor()
    first, second = Try(floor), Try(floor)
    first.say("a")
    second.say("x")
    second.fail()
    first.say("b")
    assert (listener.heard, listener.restarts) == ([TextPart("a"), TextPart("b")], 0)
    first.fail()
    third = Try(floor)
    third.say("c")
    assert (listener.heard, listener.restarts) == ([TextPart("c")], 1)


def test_the_winner_of_a_race_is_heard() -> None:
    """If the one who was not heard answers first, the listener gets its answer, and nothing of the
    loser's, whatever that still says (S2-41)."""
    listener, floor = a_floor()
    loser, winner = Try(floor), Try(floor)
    loser.say("slow")
    winner.say("all of it")
    winner.use(USE)
    winner.end()
    floor.settle(WHOLE)
    floor.close()
    loser.say(" and late")
    loser.fail()
    assert (listener.has(replace(WHOLE, uses=())), listener.restarts) == (True, 1)


def test_nobody_is_heard_after_the_end() -> None:
    """Once the listener has gone it hears nothing: no old try, no new one, and of no failure (S2-41)."""
    listener, floor = a_floor()
    first, second = Try(floor), Try(floor)
    first.say("a")
    second.say("x")
    floor.close()
    second.say("y")
    first.say("b")
    first.fail()
    Try(floor).say("z")
    assert (listener.heard, listener.restarts) == ([TextPart("a")], 0)


@pytest.mark.parametrize("again", [False, True])
def test_another_model_speaks_on_a_floor_of_its_own(again: bool) -> None:
    """The first part of the model asked next is heard at once, after a restart if its forerunner was
    heard (S2-41)."""
    listener, floor = a_floor(again=again)
    assert floor.heard is again
    Try(floor).say("all of it")
    assert floor.heard
    assert (listener.heard, listener.restarts) == ([TextPart("all of it")], int(again))


def test_the_listener_hears_in_its_own_context() -> None:
    """What the listener does when it hears is no part of the call that speaks (S2-21, S2-34)."""
    where: ContextVar[str] = ContextVar("where")
    where.set("at the listener's")
    found: list[str] = []
    floor = Floor(lambda _: found.append(where.get()))

    def speak() -> None:
        where.set("in the call")
        first = Try(floor)
        first.say("a")
        first.fail()
        Try(floor).say("b")

    copy_context().run(speak)
    assert found == ["at the listener's"] * 3


def test_who_speaks_to_nobody_needs_no_floor() -> None:
    """Without a floor what is said is lost, and with one it is heard there (S2-41)."""
    with speaking() as hear:
        hear(TextPart("x"))
    listener, floor = a_floor()
    token = current_floor.set(floor)
    try:
        with speaking() as hear:
            hear(TextPart("y"))
    finally:
        current_floor.reset(token)
    assert listener.heard == [TextPart("y")]


Action = tuple[int, str]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["say", "use", "fail", "end"])), max_size=30
    ),
    st.data(),
)
def test_one_whole_answer_is_heard(actions: list[Action], data: Any) -> None:
    """However tries speak, fail and answer beside one another, and whichever of them counts, the
    listener ends up with that answer's text and with tool uses of it alone; a restart is told only to take something back,
    and each part of the one who is heard at once (S2-41)."""
    heard: list[Part] = []
    empty = True

    def hear(part: Part) -> None:
        nonlocal empty
        if isinstance(part, Restarted):
            assert not empty, "nothing to take back"
            heard.clear()
        else:
            heard.append(part)
        empty = not heard

    floor = Floor(hear)
    tries: dict[int, Try] = {}
    answered: list[ModelReply] = []
    for number, (who, action) in enumerate(actions):
        one = tries.get(who) or tries.setdefault(who, Try(floor))
        match action:
            case "say":
                one.say(f"{who}.{number} ")
            case "use":
                one.use(ToolUse(f"{who}.{number}", "look", "{}"))
            case "fail":
                tries.pop(who).fail()
            case _:
                answered.append(tries.pop(who).reply())
                one.end()
    reply = data.draw(st.sampled_from([*answered, ModelReply(), ModelReply("served again")]))
    floor.settle(reply)
    listener = Listener()
    listener.heard = heard
    uses = tuple(part.use for part in heard if isinstance(part, UsePart))
    assert reply.uses[: len(uses)] == uses
    assert listener.has(replace(reply, uses=uses))
    floor.close()
    before = list(heard)
    for one in tries.values():
        one.say("late")
    assert heard == before
