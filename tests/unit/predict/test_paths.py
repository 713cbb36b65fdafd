"""Paths into results."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.paths import walk

JSON = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
)


def test_positions_and_data_are_left_out() -> None:
    """A path names fields, and leaves out positions in lists and keys that are data (P-01)."""
    value = {"flights": [{"number": "A"}, {"number": "B"}], "paid": {"card_12": {"sum": 3}}}
    found = {(each.path, each.value) for each in walk(value) if isinstance(each.value, str | int)}
    assert found == {
        (".flights[*].number", "A"),
        (".flights[*].number", "B"),
        (".paid{}", "card_12"),
        (".paid{*}.sum", 3),
    }


def test_fields_of_one_object_are_told_from_those_of_the_next() -> None:
    """Fields of one object have the same holder, those of another a different one (P-01)."""
    found = walk([{"a": 1, "b": 2}, {"a": 3}])
    holder = {each.value: each.holder for each in found if isinstance(each.value, int)}
    assert holder[1] == holder[2] != holder[3]


@given(JSON, st.integers(1, 20))
def test_a_walk_is_bounded(value: object, most: int) -> None:
    """However large a value is, no more of it is read than allowed (S2-50)."""
    assert len(walk(value, most=most)) <= most
