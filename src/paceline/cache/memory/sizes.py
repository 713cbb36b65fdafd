"""How many bytes a value takes, near enough to bound a cache by them."""

import sys
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, Final, cast, final

import msgspec

__all__ = ["ENTRY_BYTES", "size_of"]

ENTRY_BYTES: Final = 208
"""What keeping an entry takes beside its key and value: measured, with its lifetime."""

_NODES: Final = 512
_FLAT: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
_SEQUENCES: Final = (list, tuple, set, frozenset)
_MAPPINGS: Final = (dict, MappingProxyType)
_UNKNOWN: Final = 64


def size_of(value: object, nodes: int = _NODES) -> int:
    """Bytes of a value with all it holds, as `sys.getsizeof` counts them.

    Exact for text, bytes and containers with less than `nodes` items in all. Of larger ones that
    many are looked at, and the rest is taken to be like them, so that this stays cheap. An object
    held twice counts once.
    """
    if type(value) in _FLAT:
        return sys.getsizeof(value)
    return round(_Ruler(nodes).measure(value))


@final
class _Ruler:
    """One measurement: what was seen, and how many more objects may be looked at."""

    def __init__(self, nodes: int) -> None:
        self._left = nodes
        self._seen: set[int] = set()

    def measure(self, value: object) -> float:
        self._left -= 1
        if id(value) in self._seen:
            return 0
        self._seen.add(id(value))
        if type(value) in _FLAT:
            return sys.getsizeof(value)
        own = _own_size(value)
        inside, count = _inside(value)
        if not count:
            return own
        # Each item gets its share of what may still be looked at.
        looked, total = 0, 0.0
        for item in islice(inside, max(1, self._left)):
            total += self.measure(item)
            looked += 1
            if self._left <= 0:
                break
        return own + total * count / looked


def _own_size(value: object) -> int:
    try:
        return sys.getsizeof(value, _UNKNOWN)
    except Exception:  # noqa: BLE001 (a class of the user's may count itself, and fail at it)
        return _UNKNOWN


def _inside(value: object) -> tuple[Iterator[object], int]:
    """The objects that this one holds, and how many they are."""
    if isinstance(value, _MAPPINGS):
        mapping = cast("Mapping[Any, Any]", value)
        return chain.from_iterable(mapping.items()), 2 * len(mapping)
    if isinstance(value, _SEQUENCES):
        items = cast("Collection[Any]", value)
        return iter(items), len(items)
    if isinstance(value, msgspec.Struct):
        fields = value.__struct_fields__
        return (getattr(value, name, None) for name in fields), len(fields)
    held: object = getattr(value, "__dict__", None)
    own: list[object] = [held] if type(held) is dict else []
    return iter(own), len(own)
