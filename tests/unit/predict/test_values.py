"""When two values are equal, and of which type they are."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.values import canonical, canonical_object, kind_of

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def plain(value: object) -> object:
    """Itself, with numbers told from booleans, which Python does not."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@given(JSON, JSON)
def test_canonical_texts_are_equal_exactly_if_values_are(one: object, other: object) -> None:
    """Two values have the same canonical text exactly if they are equal as JSON (P-01)."""
    assert (canonical(one) == canonical(other)) == (plain(one) == plain(other))


@given(st.dictionaries(st.text(), SCALARS, max_size=4))
def test_an_object_can_be_put_together_from_its_fields(value: dict[str, object]) -> None:
    """The canonical text of an object follows from those of its fields (P-01)."""
    parts = {key: canonical(each) for key, each in value.items()}
    assert canonical_object(parts) == canonical(value)


def test_kinds_are_those_of_json_schema() -> None:
    """A value has the type JSON schema gives it, whole numbers being numbers (S2-50)."""
    values = (None, True, 1, 1.5, "a", [1], {"a": 1})
    kinds = ["null", "boolean", "number", "number", "string", "array", "object"]
    assert [kind_of(value) for value in values] == kinds
