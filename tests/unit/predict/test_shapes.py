"""What values look like, and that a new one that looks like the others is preferred."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.context import Context
from paceline.predict.events import Called, Event, Said, Step
from paceline.predict.shapes import shape_of, shape_of_word
from paceline.predict.slots import Slot
from paceline.predict.values import canonical
from tests.unit.predict.sessions import step


def mixed(chance: random.Random) -> list[Event]:
    """A list of ids, names of files, times and numbers in any order; the id is opened."""
    key = "".join(chance.choices("ABCDEFGH", k=3)) + f"-{chance.randint(1_000, 9_999)}"
    word = "".join(chance.choices("abcdefgh", k=5))
    found = [key, f"{word}.txt", f"{chance.randint(10, 23)}:30", f"{chance.randint(100, 999)}"]
    chance.shuffle(found)
    return [Said("go"), step("find", {"found": found}), step("open", key=key)]


def before_open(session: list[Event]) -> tuple[Context, object]:
    context = Context()
    for event in session[:-1]:
        context.hear(event)
    last = session[-1]
    assert isinstance(last, Step)
    return context, last.calls[0].arguments


def trained(count: int) -> ArgumentModel:
    model = ArgumentModel()
    for number in range(count):
        session = mixed(random.Random(number))
        context = Context()
        for event in session:
            if isinstance(event, Step):
                model.observe(event.calls[0], context)
            context.hear(event)
    return model


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("mia_li_3668", "a_a_9"),
        ("ABC-1234", "A-9"),
        ("4OG6T3", "X6"),
        ("report.txt", "a.a"),
        ("7", "91"),
        ("12", "92"),
        ("123", "9"),
        ("12345", "9"),
        ("", ""),
    ],
)
def test_a_word_has_a_shape(word: str, shape: str) -> None:
    """Of a word the classes of its characters count; how long it is only of codes and of numbers with
    one or two digits. (S2-50, P-01)"""
    assert shape_of_word(word) == shape


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("ABC-1234", "A-9"),
        ("two words", "words"),
        ("x" * 40, "long"),
        (1234, "n4"),
        (-5, "n2"),
        (True, "True"),
        (None, "None"),
        ([1], "["),
        ({"a": 1}, "{"),
    ],
)
def test_a_value_has_a_shape(value: object, shape: str) -> None:
    """Values of other types, texts of several words and long ones, do not look like a word; of a number
    it counts how long it is. (S2-50, P-01)"""
    assert shape_of(canonical(value)) == shape


@given(st.text(max_size=60))
def test_any_value_has_a_short_shape(text: str) -> None:
    """Whatever a value is, its shape is short. (S2-51)"""
    assert len(shape_of(canonical(text))) <= 12


def test_what_looks_like_the_others_is_preferred() -> None:
    """Among values that stand at the same place in no order, the one that looks like those that the
    argument had is proposed, however new it is. (S2-50, P-01)"""
    model = trained(40)
    for seed in range(1_000, 1_010):
        context, called = before_open(mixed(random.Random(seed)))
        arguments, chance = model.propose("open", context)[0]
        assert arguments == called
        assert chance > 0.8


@given(st.integers(0, 2**32))
def test_only_so_many_shapes_are_kept(seed: int) -> None:
    """However different values look, 32 shapes are kept at most, the most frequent one among them.
    (S2-51)"""
    chance, slot, seen = random.Random(seed), Slot("key"), set[str]()
    for number in range(200):
        other = "".join(chance.choices("aA9._-:/#", k=chance.randint(1, 8)))
        slot.saw("ABC-1234" if number % 2 else other)
        seen.add(shape_of(canonical(other)))
        assert len(slot.shapes) <= 32
    assert len(seen) > 32
    assert slot.shapes["A-9"] >= 100


def test_a_private_value_leaves_no_shape() -> None:
    """Of a value that is not kept it is not known either what it looks like. (S2-51)"""
    slot = Slot("key")
    slot.saw("ABC-1234", kept=False)
    assert slot.count == 1
    assert not slot.shapes
    model = ArgumentModel()
    model.observe(Called("open", {"key": "ABC-1234", "to": "Z9Z9"}), Context(), ["key"])
    assert "A-9" not in repr(model.save())
    assert "X4" in repr(model.save())


def test_shapes_are_kept_and_older_files_have_none() -> None:
    """Shapes survive a restart; what was saved before there were any is read, and learns them. (S2-49)"""
    model, again, older = trained(40), ArgumentModel(), ArgumentModel()
    packed = msgspec.msgpack.encode(model.save())
    again.load(msgspec.msgpack.decode(packed))
    assert again._tools["open"].slots["key"].shapes == {"A-9": 40}
    data = msgspec.msgpack.decode(packed)
    for tool in data["tools"].values():
        for slot in tool["slots"].values():
            del slot["shapes"]
    for slot, _, _ in data["names"].values():
        del slot["shapes"]
    older.load(data)
    context, called = before_open(mixed(random.Random(1_000)))
    assert again.propose("open", context) == model.propose("open", context)
    assert older.propose("open", context) != []
    older.observe(Called("open", {"key": "ABC-1234"}), context)
    assert older._tools["open"].slots["key"].shapes == {"A-9": 1}
    assert called in [arguments for arguments, _ in older.propose("open", context)]


def test_a_number_of_shapes_is_no_less_than_nothing() -> None:
    """Saved shapes that were seen less than never are refused. (S2-49)"""
    slot = Slot("key")
    slot.saw("ABC-1234")
    saved = msgspec.to_builtins(slot.save())
    saved["shapes"] = {"A-9": -1}
    with pytest.raises(CodecError):
        Slot("key").load(saved)
