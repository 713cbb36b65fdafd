"""Where the arguments of a tool end, in a stream."""

import json
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from paceline.instances.closing import Closing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', "\\", "{}", "]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)


def cut(text: str, sizes: list[int]) -> list[str]:
    """The text in pieces of about these sizes, empty ones too."""
    ends = [min(end, len(text)) for end in accumulate(sizes)] + [len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(OBJECTS, st.booleans(), st.lists(st.integers(0, 4)), st.sampled_from(["", " ", "\n\t"]))
def test_an_object_closes_with_its_last_bracket(
    value: dict[str, object], ascii_only: bool, sizes: list[int], space: str
) -> None:
    """However an object is cut, it is closed when its last character is there and not before, and
    space around it changes nothing (S2-41)."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    closing = Closing()
    closing.feed(space)
    for piece in cut(text[:-1], sizes):
        assert not closing.feed(piece)
    assert closing.feed(text[-1] + space)
    assert closing.feed(space)


@given(OBJECTS, st.sampled_from(["}", "x", '"', "{}", ", 1"]), st.booleans())
def test_what_goes_on_after_an_object_is_not_closed(
    value: dict[str, object], more: str, apart: bool
) -> None:
    """A text that goes on after the object it begins with is not closed, in the same piece or
    later, and stays so (S2-41)."""
    text, closing = json.dumps(value), Closing()
    if apart:
        assert closing.feed(text)
        assert not closing.feed(more)
    else:
        assert not closing.feed(text + more)
    assert not closing.feed("}")


@given(st.sampled_from(["[", "1", '"{}"', "null", "}", "x"]), OBJECTS)
def test_what_is_no_object_never_closes(begin: str, value: dict[str, object]) -> None:
    """A text that does not begin with an object has no end that could be seen (S2-41)."""
    closing = Closing()
    assert not closing.feed(begin)
    assert not closing.feed(json.dumps(value))
