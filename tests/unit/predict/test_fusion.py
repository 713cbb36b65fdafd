"""How sure a call is: the chance of its tool and that of its arguments, joined by experience."""

import math
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.context import Context
from paceline.predict.events import Proposal, Said
from paceline.predict.fusion import Fusion, Trust
from paceline.predict.moments import Moment
from paceline.predict.session import Guess
from tests.unit.predict.sessions import LastArguments, orders, predictor, step

CHANCES = st.floats(0.01, 1.0)
MOMENTS = st.sampled_from(list(Moment))


def guess(name: str, chance: float, given: float) -> Guess:
    return Guess(Proposal(name, {}, chance * given), chance * given, chance, given)


GUESSES = st.builds(guess, st.sampled_from("abc"), CHANCES, st.floats(0.0, 1.0))
LEARNT = st.lists(
    st.tuples(MOMENTS, st.lists(GUESSES, max_size=5), st.sets(st.integers(0, 4))), max_size=30
)


def told(learnt: list[tuple[Moment, list[Guess], set[int]]]) -> Fusion:
    fusion = Fusion()
    for moment, proposed, right in learnt:
        fusion.learn(moment, proposed, right)
    return fusion


@given(LEARNT, MOMENTS, st.sampled_from("abcd"))
def test_no_chance_ever_stops_counting(
    learnt: list[tuple[Moment, list[Guess], set[int]]], moment: Moment, name: str
) -> None:
    """Whatever was learnt, both chances count with a power of a quarter at least, and no tool is put
    back or forth without bounds. (S2-50)"""
    trust = told(learnt).trust(moment, name)
    assert trust.of_tool >= 0.25
    assert trust.of_arguments >= 0.25
    assert math.exp(-3) <= trust.factor <= math.exp(3)


@pytest.mark.parametrize("right", [{0}, {1}, set[int]()])
def test_bounds_hold_for_ever(right: set[int]) -> None:
    """What has been wrong, or right, thousands of times still counts within the bounds. (S2-50)"""
    fusion = Fusion()
    for _ in range(3_000):
        fusion.learn(Moment.REPLY, [guess("a", 0.9, 0.1), guess("b", 0.1, 0.9)], right)
    for name in "ab":
        trust = fusion.trust(Moment.REPLY, name)
        assert trust.of_tool >= 0.25
        assert trust.of_arguments >= 0.25
        assert math.exp(-3) <= trust.factor <= math.exp(3)


POWERS = st.floats(0.25, 4.0)
TRUSTS = st.builds(Trust, st.floats(math.exp(-3), math.exp(3)), POWERS, POWERS)


@given(TRUSTS, CHANCES, CHANCES)
def test_what_arguments_need_is_what_makes_a_call_so_sure(
    trust: Trust, chance: float, given: float
) -> None:
    """The chance that arguments need for a call to be as sure as one is, is that of its arguments; no
    call is surer than with certain ones. (S2-10, S2-50)"""
    sure = trust.sure(chance, given)
    assert trust.needed(chance, sure) == pytest.approx(given)
    assert sure <= trust.most(chance) == trust.sure(chance, 1.0)
    assert trust.needed(chance, trust.most(chance) * 1.01) > 1.0
    assert trust.needed(chance, 0.0) == 0.0


@given(CHANCES, CHANCES)
def test_without_experience_both_chances_count_alike(chance: float, given: float) -> None:
    """Before anything was learnt a call is as sure as its tool and its arguments together. (S2-50)"""
    assert Fusion().trust(Moment.REPLY, "a").sure(chance, given) == pytest.approx(chance * given)


@given(LEARNT, MOMENTS, st.sets(st.integers(0, 4)))
def test_of_nothing_nothing_is_learnt(
    learnt: list[tuple[Moment, list[Guess], set[int]]], moment: Moment, right: set[int]
) -> None:
    """Where nothing was proposed nothing is learnt. (S2-51)"""
    fusion = told(learnt)
    before = fusion.save()
    fusion.learn(moment, [], right)
    assert fusion.save() == before


def test_several_that_came_true_share() -> None:
    """Two calls that were held to be half as likely each, and both came true, are where they belong:
    each tool's factor moves next to nothing; where one of them came true it moves, both ways. (S2-50)"""
    fusion, one = Fusion(), Fusion()
    both = [guess("a", 0.5, 1.0), guess("b", 0.5, 1.0)]
    for _ in range(20):
        fusion.learn(Moment.REPLY, both, {0, 1})
        one.learn(Moment.REPLY, both, {0})
    assert fusion.trust(Moment.REPLY, "a") == fusion.trust(Moment.REPLY, "b")
    assert fusion.trust(Moment.REPLY, "a").factor == pytest.approx(1.0, abs=0.02)
    assert one.trust(Moment.REPLY, "a").factor > 1.1
    assert one.trust(Moment.REPLY, "b").factor < 0.9


def test_what_is_learnt_at_one_moment_is_of_that() -> None:
    """How far chances can be trusted is another question at each moment. (S2-50)"""
    fusion = Fusion()
    for _ in range(20):
        fusion.learn(Moment.IDLE, [guess("a", 0.9, 0.9)], set())
    assert fusion.trust(Moment.IDLE, "a").sure(0.9, 0.9) < 0.7
    assert fusion.trust(Moment.REPLY, "a") == Trust(1.0, 1.0, 1.0)


@given(LEARNT)
def test_it_survives_a_restart(learnt: list[tuple[Moment, list[Guess], set[int]]]) -> None:
    """What was saved and loaded is trusted the same, and learns on the same. (S2-49)"""
    fusion, again = told(learnt), Fusion()
    assert again.trust(Moment.REPLY, "a") == Trust(1.0, 1.0, 1.0)
    again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(fusion.save())))
    assert again.save() == fusion.save()
    assert again.trust(Moment.REPLY, "a") == fusion.trust(Moment.REPLY, "a")
    for each in (fusion, again):
        each.learn(Moment.REPLY, [guess("a", 0.5, 0.5)], {0})
    assert [again.trust(moment, "a") for moment in Moment] == [
        fusion.trust(moment, "a") for moment in Moment
    ]


@pytest.mark.parametrize("saved", [None, {}, [1], [["a", 1.0]], [["a", 1.0, -1.0]]])
def test_what_is_not_what_was_saved_is_refused(saved: object) -> None:
    """What `save` did not return is refused, and what was known stays. (S2-49)"""
    fusion = told([(Moment.REPLY, [guess("a", 0.5, 0.5)], {0})])
    before = fusion.save()
    with pytest.raises(CodecError):
        fusion.load(saved)
    assert fusion.save() == before


class OneIsWrong(LastArguments):
    """Is as sure of the arguments of one tool, which are always wrong, as of those of the other."""

    def propose(self, name: str, context: Context, **limits: float):
        return [({"id": "never" if name == "a_wrong" else 1}, 0.9)]


def test_a_tool_whose_arguments_are_always_wrong_stands_back() -> None:
    """Of two tools that are about as likely, the calls of the one whose arguments were never right come
    behind those of the other, as long as that is so. (S2-10, S2-50)"""
    model = predictor(arguments=OneIsWrong)
    session, chance = model.session(), random.Random(5)
    alike = 0
    for number in range(200):
        model.observe(session, Said("go"))
        proposed = [each.name for each in model.propose(session)]
        chances = dict(model.next_tools(session))
        if number >= 100 and chances["a_wrong"] > chances["b_right"] > 0.7 * chances["a_wrong"]:
            assert proposed == ["b_right", "a_wrong"]
            alike += 1
        model.observe(session, step(chance.choice(["a_wrong", "b_right"]), id=1))
    assert alike >= 10


def test_files_of_before_are_read() -> None:
    """What was saved before fans, shapes and experience with whole calls were kept is read, proposes, and
    learns on; what such a part cannot be is refused. (S2-49)"""
    model = predictor(arguments=ArgumentModel)
    for trajectory in orders(40):
        session = model.session()
        for event in trajectory.events:
            model.propose(session)
            model.observe(session, event)
    data: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(model.save()))
    for each in (data["shared"]["knowledge"], *data["scopes"].values()):
        del each["parts"]["fans"], each["parts"]["fusion"]
        for slot in slots(each["parts"]["arguments"]):
            del slot["shapes"]
    again = predictor(arguments=ArgumentModel)
    again.load(data)
    for _ in range(2):
        session = again.session()
        session.hear(Said("Where is my parcel order 4711?"))
        (best, *_) = again.propose(session)
        assert (best.name, best.arguments) == ("get_order", {"order_id": 4711})
        again.learn(orders(1)[0])
    data["scopes"][""]["parts"]["fusion"] = {"none": 1}
    with pytest.raises(CodecError):
        again.load(data)


def slots(arguments: Any) -> Iterator[Any]:
    """All that is saved of single arguments."""
    for tool in arguments["tools"].values():
        yield from tool["slots"].values()
    for slot, _, _ in arguments["names"].values():
        yield slot


def test_who_was_wrong_for_long_comes_back_as_soon() -> None:
    """A tool that was wrong ten thousand times is trusted again as soon as one that was wrong often enough
    to stand back as far as any: its weight waits at the bound. (S2-51)"""

    def until_trusted(wrong: int) -> int:
        fusion, one = Fusion(), [guess("a", 0.5, 0.5)]
        for _ in range(wrong):
            fusion.learn(Moment.REPLY, one, set())
        times = 0
        while fusion.trust(Moment.REPLY, "a").factor < 0.5:
            fusion.learn(Moment.REPLY, one, {0})
            times += 1
        return times

    assert 0 < until_trusted(10_000) <= 1.2 * until_trusted(2_000)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused(odd: float) -> None:
    """A file with a weight that is no number is refused, and changes nothing. (S2-49)"""
    fusion = Fusion()
    with pytest.raises(CodecError, match="no number"):
        fusion.load([[["tool", "reply"], odd, 1.0]])
    assert fusion.trust(Moment.REPLY, "a") == Trust(1.0, 1.0, 1.0)
