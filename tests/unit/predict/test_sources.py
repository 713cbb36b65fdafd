"""Candidates of one argument, and what is known of it."""

import random

from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.context import Context
from paceline.predict.events import Called, Said, Step
from paceline.predict.lexicon import Lexicon
from paceline.predict.slots import Slot
from paceline.predict.sources import ABSENT, NONE, Argument, candidates, learn
from paceline.predict.weights import Weights


def offered(slot: Slot, context: Context, shared: Weights) -> dict[str, float]:
    found = candidates(Argument("get", slot, [], slot), context, shared)
    return {each.key: each.probability for each in found}


def test_a_field_of_the_same_name_is_offered_at_once() -> None:
    """Before anything was learnt, a field of the argument's name is offered (S2-50)."""
    context = Context()
    context.hear(Step((Called("list", {}, {"id": "a1", "name": "b"}),)))
    assert '"a1' in offered(Slot("id"), context, Weights())
    assert '"b' not in offered(Slot("id"), context, Weights())


def test_only_values_of_known_types_are_offered() -> None:
    """Once an argument had a number, no text is offered (S2-50)."""
    slot, context = Slot("id"), Context()
    slot.saw(3)
    context.hear(Step((Called("list", {}, [{"id": "a1"}, {"id": 7}]),)))
    assert "7" in offered(slot, context, Weights())
    assert '"a1' not in offered(slot, context, Weights())


def test_only_allowed_values_are_offered() -> None:
    """Of an argument with an `enum` no other value is taken from the session (S2-50)."""
    context = Context()
    context.hear(Step((Called("list", {}, [{"id": "a"}, {"id": "b"}]),)))
    slot = Slot("id")
    argument = Argument("get", slot, [], slot, allowed=("b",))
    keys = [each.key for each in candidates(argument, context, Weights())]
    assert keys == ['"b', NONE]


def test_what_was_right_becomes_likelier() -> None:
    """Each example moves probability to the candidate that was right, or to that of none
    (S2-51)."""
    context, slot, shared = Context(), Slot("id"), Weights()
    context.hear(Step((Called("list", {}, [{"id": "a"}, {"id": "b"}]),)))
    argument = Argument("get", slot, [], slot)
    for key in ('"b', NONE):
        before = offered(slot, context, shared)[key]
        for _ in range(5):
            learn(argument, candidates(argument, context, shared), key, shared)
        assert offered(slot, context, shared)[key] > before


@given(st.integers(0, 2**32))
def test_probabilities_add_up(seed: int) -> None:
    """Whatever was learnt, the probabilities of the candidates and of none add up to 1 (S2-50)."""
    chance = random.Random(seed)
    context, slot, shared = Context(), Slot("id"), Weights()
    for _ in range(chance.randint(0, 6)):
        value = chance.choice(["a1", "b2", 3, None])
        context.hear(Said(f"take {value}"))
        slot.credit(["u ~id"])
        if value is None:
            slot.leave_out()
        else:
            slot.saw(value)
        context.hear(Step((Called("get", {"id": value}, {"id": value}),)))
    found = offered(slot, context, shared)
    assert abs(sum(found.values()) - 1) < 1e-9
    assert (ABSENT in found) == (slot.absent > 0)


def test_a_word_speaks_for_a_value() -> None:
    """A word hints at the value it came with, words that come with any value do not (P-01)."""
    lexicon = Lexicon()
    for town, port in [("denver", "DEN"), ("boston", "BOS")] * 3:
        lexicon.learn({"u": {"to": "fly", town: "to"}}, [port])
    (hint,) = lexicon.hints({"u": {"to": "go", "denver": "to"}})
    assert (hint.value, hint.role, hint.before) == ("DEN", "u", "to")


def test_a_lexicon_is_bounded() -> None:
    """However many words and values there are, only the most frequent are kept (S2-51)."""
    lexicon = Lexicon()
    for number in range(3_000):
        lexicon.learn({"u": {f"word{number}": "", "usual": ""}}, [f"value{number}"])
    assert len(lexicon) <= 1_500
    assert len(lexicon._words["usual"].values) <= 12
    assert len(lexicon._values) <= 1_500


def test_a_new_table_begins_with_what_its_parent_knows() -> None:
    """A feature weighs what it weighs in the parent until it is learnt, and from there on its own
    (S2-51)."""
    parent = Weights()
    parent.learn({"a": 1.0})
    child = Weights(parent)
    assert child.get("a") == parent.get("a") > 0
    child.learn({"a": -1.0})
    assert child.get("a") < parent.get("a")
    assert child.get("b") == 0


def test_weights_are_bounded() -> None:
    """Of too many features those that weigh least go (S2-51)."""
    weights = Weights(most=100)
    weights.learn({"kept": 5.0})
    for number in range(500):
        weights.learn({("feature", number): 0.01})
    assert len(weights) <= 100
    assert weights.get("kept") > 0
