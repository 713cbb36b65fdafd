"""What a proposal does not look at, because nothing could come of it."""

import itertools
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.predict.arguments import ArgumentModel
from paceline.predict.completions import _likeliest
from paceline.predict.context import Context
from paceline.predict.events import Called, Said
from paceline.predict.lexicon import Lexicon
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.sequence import END
from paceline.predict.session import Session
from paceline.predict.slots import Slot
from tests.unit.predict.sessions import LastArguments, step

SURE = (1.0, 0.6, 0.3, 0.2, 0.1)


class Sure(LastArguments):
    """Proposes five calls, the first of them surely; notes what they have to reach."""

    def __init__(self, *, patterns: int = 0) -> None:
        super().__init__()
        self.least: dict[str, float] = {}

    def propose(self, name: str, context: Context, **limits: float):
        self.least[name] = limits["least"]
        return [({"id": number}, chance) for number, chance in enumerate(SURE)]


def routine(count: int) -> tuple[ArgumentModel, Context]:
    """Calls with the same three arguments, and one more that was a chance each time."""
    model, context, chance = ArgumentModel(), Context(), random.Random(1)
    for _ in range(count):
        context = Context()
        context.hear(Said("as always"))
        model.observe(Called("get", {"a": 1, "b": 2, "c": 3}), context)
        model.observe(Called("guess", {"text": f"{chance.random()}"}), context)
    return model, context


def test_many_arguments_have_to_be_worth_it() -> None:
    """Where a tool cannot be as likely as each of its arguments is worth, none of them is looked for;
    where it can, it is proposed as if nothing had been asked. (S2-50)"""
    model, context = routine(30)
    whole = model.propose("get", context)
    context.kept.clear()
    assert model.propose("get", context, worth=0.26) == []
    assert not context.kept
    assert model.propose("get", context, worth=0.2) == whole
    assert context.kept


def test_a_tool_whose_calls_were_not_foreseen_is_not_looked_at() -> None:
    """A tool counts for as likely as its latest calls were held to be, and no more than three times
    that. (S2-50)"""
    model, _ = routine(30)
    assert model._tools["guess"].foreseen < 0.1
    assert model._tools["get"].foreseen > 0.8
    model._tools["get"].foreseen = 0.1
    context = Context()
    assert model.propose("get", context, least=0.31) == []
    assert model.propose("get", context, least=0.29) != []


def test_what_was_saved_before_is_read() -> None:
    """A file that says nothing of how likely calls were held to be is read, and its tools are looked
    at. (S2-49)"""
    model, context = routine(30)
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(model.save()))
    del saved["tools"]["get"]["foreseen"]
    again = ArgumentModel()
    again.load(saved)
    assert again._tools["get"].foreseen == 1.0
    assert again.propose("get", context) == model.propose("get", context)


def test_how_likely_calls_were_held_to_be_is_kept() -> None:
    """How likely the latest calls were held to be survives a restart. (S2-49)"""
    model, _ = routine(30)
    again = ArgumentModel()
    again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(model.save())))
    assert again._tools["guess"].foreseen == model._tools["guess"].foreseen < 0.1


def test_a_tool_has_to_reach_the_last_that_is_proposed() -> None:
    """Once as many calls are found as are wanted, those of another tool have to be as sure as the
    last of them, and where the tool is not they are not looked for. (S2-10, S2-50)"""
    model = PerformancePredictor(arguments=Sure)
    session, chance = model.session(), random.Random(1)
    for number in range(60):
        model.observe(session, Said("go"))
        model.observe(session, step("often" if chance.random() < 0.6 else "seldom", id=number))
    model.observe(session, Said("go"))
    arguments = model._scopes[""].arguments
    assert isinstance(arguments, Sure)
    model.propose(session, 10)
    assert arguments.least == {"often": 0.0, "seldom": 0.0}
    chances = dict(model.next_tools(session))
    model.propose(session, 3)
    third = chances["often"] * 0.3
    assert arguments.least["often"] == 0.0
    assert abs(arguments.least["seldom"] - third / chances["seldom"]) < 1e-9
    arguments.least.clear()
    model.propose(session, 1)
    assert arguments.least == {"often": 0.0}


class Many(LastArguments):
    """Has several calls of each tool, with chances of their own; notes which tools it is asked for."""

    def __init__(self, *, patterns: int = 0) -> None:
        super().__init__()
        self.asked: list[str] = []

    def propose(self, name: str, context: Context, **limits: float):
        self.asked.append(name)
        chance = random.Random(name)
        chances = sorted((chance.random() for _ in range(chance.randint(1, 4))), reverse=True)
        whole = max(1.0, sum(chances))
        if sum(chances) / whole < limits["least"]:
            return []
        return [({"id": number}, each / whole) for number, each in enumerate(chances)]


class One(Many):
    """Has one call of each tool that has a short name, and none of others."""

    def propose(self, name: str, context: Context, **limits: float):
        found = super().propose(name, context, **limits)
        return found[:1] if len(name) < 10 else []


def many(seed: int, tools: int, rounds: int = 60) -> tuple[PerformancePredictor, Session, Many]:
    """A session that calls any of so many tools, some of them rightly foreseen, others not."""
    chance, model = random.Random(seed), PerformancePredictor(arguments=Many)
    names = [f"t{number}" for number in range(tools)]
    often = [chance.random() ** 2 + 0.02 for _ in names]
    right = {name: chance.random() for name in names}
    session = model.session()
    for _ in range(rounds):
        model.observe(session, Said("go"))
        model.propose(session, 40)
        (name,) = chance.choices(names, often)
        model.observe(session, step(name, id=0 if chance.random() < right[name] else 9))
    model.observe(session, Said("go"))
    arguments = model._scopes[""].arguments
    assert isinstance(arguments, Many)
    arguments.asked.clear()
    return model, session, arguments


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_only_tools_that_may_have_the_surest_call_are_looked_at(seed: int, tools: int) -> None:
    """The four likeliest tools are asked for arguments; up to the eighth others, and those that are less
    likely, if a call of theirs may be surer than all of those before. (S2-10, S2-50)"""
    model, session, arguments = many(seed, tools)
    proposed = model.propose(session, 40)
    sure = [(guess.proposal.name, guess.confidence) for guess in session.proposed]
    chances = [(name, chance) for name, chance in model.next_tools(session) if name != END]
    expected: list[str] = []
    for place, (name, chance) in enumerate(chances[:8]):
        best = max((each for other, each in sure if other in expected), default=0.0)
        may_be = model._view(session).trust(name, Moment.REPLY).most(chance) >= best
        if chance >= 0.01 and ((place < 4 and chance >= 0.04) or may_be):
            expected.append(name)
    assert arguments.asked == expected
    assert {each.name for each in proposed} <= set(expected)


@pytest.mark.parametrize(
    ("often", "when", "low", "high", "asked"),
    [
        ("often", {150, 170, 190}, 0.01, 0.04, ["often"]),
        ("often is nothing", {150, 170, 190}, 0.01, 0.04, ["often is nothing", "seldom"]),
        ("often is nothing", {10}, 0.0, 0.01, ["often is nothing"]),
    ],
)
def test_a_tool_that_is_less_likely_is_looked_at_for_want_of_better(
    often: str, when: set[int], low: float, high: float, asked: list[str]
) -> None:
    """A tool with a chance below four hundredths is asked for arguments if no call was found that is surer,
    and none below a hundredth. (S2-50)"""
    model = PerformancePredictor(arguments=One)
    session = model.session()
    for number in range(200):
        model.observe(session, Said("go"))
        model.observe(session, step("seldom" if number in when else often, id=0))
    model.observe(session, Said("go"))
    arguments = model._scopes[""].arguments
    assert isinstance(arguments, One)
    assert low < dict(model.next_tools(session))["seldom"] < high
    model.propose(session)
    assert arguments.asked == asked


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from([0.02, 0.05, 0.1, 0.2, 0.4]))
def test_none_is_missed_that_is_likely_enough(seed: int, tools: int, least: float) -> None:
    """With a least probability nothing that reaches it is missed, however far the chances of tools and of
    arguments are trusted; and of the tools that are looked at in any case nothing is added. (S2-40, S2-50)"""
    model, session, _ = many(seed, tools)
    every, few = model.propose(session, 60), model.propose(session, 60, least=least)
    ranked = [(name, chance) for name, chance in model.next_tools(session) if name != END]
    usual = [name for name, chance in ranked[:4] if chance >= 0.04]
    enough = [each for each in every if each.probability >= least]
    assert [each for each in few if each in enough] == enough
    assert all(each in every for each in few if each.name in usual)


_tops = st.lists(st.lists(st.integers(-40, 0), min_size=1, max_size=5), max_size=4)


@given(_tops, st.integers(1, 10))
def test_the_likeliest_are_those_of_all(drawn: list[list[int]], most: int) -> None:
    """Put together part by part come the likeliest of all ways to take one of each. (S2-50)"""
    tops = [
        [(float(chance), f"{row}.{n}", n) for n, chance in enumerate(sorted(chances)[::-1])]
        for row, chances in enumerate(drawn)
    ]
    found = _likeliest(tops, most)
    sums = sorted((sum(part[0] for part in way) for way in itertools.product(*tops)), reverse=True)
    assert [chance for chance, _, _ in found] == sums[:most] if sums else found == []
    assert len({keys for _, keys, _ in found}) == len(found)
    by_key = {part[1]: part for top in tops for part in top}
    for chance, keys, values in found:
        assert chance == sum(by_key[key][0] for key in keys)
        assert values == tuple(by_key[key][2] for key in keys)


@given(st.lists(st.integers(0, 14), max_size=80), st.data())
def test_the_most_frequent_values_are_known_at_any_time(
    drawn: list[int], data: st.DataObject
) -> None:
    """Whenever it is asked for them, the most frequent values come first, of equals the oldest.
    (S2-51)"""
    slot, seen = Slot("id"), dict[int, int]()
    for value in drawn:
        slot.saw(value)
        seen[value] = seen.get(value, 0) + 1
        if data.draw(st.booleans()):
            ranked = sorted(seen.items(), key=lambda item: -item[1])[:8]
            assert [(each, count) for _, each, count in slot.values()] == ranked


@given(st.integers(0, 2**32))
def test_words_speak_for_the_same_after_a_restart(seed: int) -> None:
    """What words speak for is the same whether it was weighed as it was learnt or once it was
    loaded. (S2-49)"""
    chance, lexicon, again = random.Random(seed), Lexicon(), Lexicon()
    for _ in range(chance.randint(0, 60)):
        said = {f"w{chance.randint(0, 9)}": "" for _ in range(4)}
        lexicon.learn({"u": said}, [f"v{chance.randint(0, 5)}"])
    again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(lexicon.save())))
    heard = {"u": {f"w{number}": "" for number in range(10)}}
    assert again.hints(heard) == lexicon.hints(heard)
