"""What a proposal does not look at, because nothing could come of it."""

import itertools
import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.arguments import ArgumentModel
from paceline.predict.completions import _likeliest
from paceline.predict.context import Context
from paceline.predict.events import Called, Said
from paceline.predict.lexicon import Lexicon
from paceline.predict.predictor import PerformancePredictor
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
    third = chances["often"] * 0.3**1.4
    assert arguments.least["often"] == 0.0
    assert abs(arguments.least["seldom"] - (third / chances["seldom"]) ** (1 / 1.4)) < 1e-9
    arguments.least.clear()
    model.propose(session, 1)
    assert arguments.least == {"often": 0.0}


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
