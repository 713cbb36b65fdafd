"""Paths into results: where a value stands, with positions in lists left out."""

import re
from typing import NamedTuple

from paceline.predict.values import is_list, is_object

__all__ = ["Found", "is_data", "walk"]

_DATA = re.compile(r"\d[^0-9]|\d\d|[@\s]")


class Found(NamedTuple):
    """A value inside another.

    `path` has `.name` for a field, `[*]` for an element of a list, `{}` for a key that is data and
    `{*}` for what stands under it. `field` is the name of the nearest field, `holder` the number
    of the object it is a field of.
    """

    path: str
    value: object
    field: str
    holder: int


def is_data(key: str) -> bool:
    """Whether a key is data, such as an id, a name or an address, not the name of a field."""
    return _DATA.search(key) is not None


def walk(value: object, *, most: int = 2_000) -> list[Found]:
    """All values inside one, containers too, the outermost first; `most` of them.

    A key with digits in it is data, such as an id, not the name of a field; one at its end is not. So is
    one with a space or an @, such as a name or an address.
    """
    found = [Found("", value, "", 0)]
    holders = 0
    position = 0
    while position < len(found) < most:
        path, inner, field, holder = found[position]
        position += 1
        if is_object(inner):
            holders += 1
            for key, each in inner.items():
                if is_data(key):
                    found.append(Found(path + "{}", key, field, holders))
                    found.append(Found(path + "{*}", each, field, holders))
                else:
                    found.append(Found(f"{path}.{key}", each, key, holders))
        elif is_list(inner):
            found.extend([Found(path + "[*]", each, field, holder) for each in inner])
    return found[:most]
