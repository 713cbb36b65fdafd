"""Classes of what came of a call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.events import Called
from paceline.predict.outcomes import marks, outcome_class


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (None, "nothing"), ("", "empty"), ([], "empty"), ({}, "empty"), ([[]], "empty"),
        ([1], "one"), ([[1]], "one"), ([[1, 2]], "several"), ([1, 2], "several"),
        ("fine", "text"), ("Error: no such user", "error"), ("user not found", "error"),
        ({"error": "no"}, "error"), ({"error": None, "a": 1}, "object"), ({"a": 1}, "object"),
        (True, "true"), (False, "false"), (0, "number"), (1.5, "number"),
    ],
)  # fmt: skip
def test_results_fall_into_classes(result: object, kind: str) -> None:
    """What came of a call is told from its result: nothing, empty, one, several, trouble. (S2-50)"""
    assert outcome_class(Called("tool", {}, result)) == kind


def test_a_call_that_failed_is_an_error() -> None:
    """A call that failed is an error, whatever it left. (S2-50)"""
    assert outcome_class(Called("tool", {}, {"a": 1}, failed=True)) == "error"


def test_marks_are_words_and_flags() -> None:
    """Of a result only flags and short names are marks, ids and numbers are not. (S2-50)"""
    result = {"id": "A71", "cabin": "economy", "paid": True, "legs": [{"gate": "north", "n": 7}]}
    assert marks(Called("tool", {}, result)) == ["cabin=economy", "paid=True", "gate=north"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=30,
)


@given(JSON)
def test_any_result_has_a_class_and_few_marks(result: object) -> None:
    """Whatever a tool returns has one class and at most a dozen marks. (S2-50)"""
    call = Called("tool", {}, result)
    assert outcome_class(call)
    assert len(marks(call)) <= 12
