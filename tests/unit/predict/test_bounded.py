"""A dict that forgets."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.bounded import Bounded


@given(st.lists(st.tuples(st.integers(0, 200).map(str), st.floats(0, 9))), st.integers(1, 40))
def test_it_never_holds_more(puts: list[tuple[str, float]], most: int) -> None:
    """It never holds more than it may, and always what was put last. (S2-51)"""
    kept: Bounded[float] = Bounded(most, worth=lambda value: value)
    for key, value in puts:
        kept.put(key, value)
        assert len(kept) <= most
        assert kept.get(key) == value


def test_the_least_useful_goes() -> None:
    """When it is full the value of least worth goes, the oldest of equals. (S2-51)"""
    kept: Bounded[float] = Bounded(3, worth=lambda value: value)
    for key, value in (("a", 2.0), ("b", 1.0), ("c", 1.0), ("d", 3.0)):
        kept.put(key, value)
    assert list(kept) == ["a", "c", "d"]
