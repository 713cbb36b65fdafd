"""How messages speak of what was given."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from paceline import Runtime
from paceline.cache.keys import canonical
from paceline.cache.snapshot import Snapshot
from paceline.codec import encode
from paceline.errors import PacelineError


@dataclasses.dataclass
class Item:
    """A name that asks for another article than most."""

    field: int = 1


def _with_more() -> Item:
    item = Item()
    item.more = 1  # type: ignore[attr-defined]
    return item


@pytest.mark.parametrize(
    ("refuse", "kind"),
    [
        (lambda: canonical(object()), "object"),
        (lambda: canonical(_with_more()), "Item"),
        (lambda: encode(object()), "object"),
        (lambda: Snapshot.take(n for n in range(1)), "generator"),
        (lambda: Runtime(1), "int"),  # type: ignore[arg-type]
    ],
)
def test_a_type_is_named_without_article(refuse: Callable[[], Any], kind: str) -> None:
    """A message says "of type object", which is right for every name; never "a object"."""
    with pytest.raises(PacelineError) as caught:
        refuse()
    assert f"of type {kind}" in caught.value.message
    assert not re.search(rf"\ban? {kind}\b", caught.value.message)
