"""A dict that forgets what is of least use once it is full."""

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar, final

__all__ = ["Bounded"]

V = TypeVar("V")

_LEFT: Final = 0.875  # is left when some have to go: so that they seldom have to


@final
class Bounded(Generic[V]):
    """At most `most` values by key. When one more comes, the eighth that is worth least goes,
    among equals the oldest; so what a new one costs stays the same on average."""

    __slots__ = ("_most", "_values", "_worth", "get")

    def __init__(self, most: int, worth: Callable[[V], float]) -> None:
        self._most = most
        self._worth = worth
        self._values: dict[str, V] = {}
        self.get = self._values.get

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def put(self, key: str, value: V) -> None:
        """Keeps it, if need be in the place of others."""
        values = self._values
        if len(values) >= self._most and key not in values:
            keys = sorted(values, key=lambda each: self._worth(values[each]))
            for each in keys[: max(1, len(keys) - int(self._most * _LEFT))]:
                del values[each]
        values[key] = value

    def values(self) -> Iterator[V]:
        """The same without their keys."""
        return iter(self._values.values())

    def items(self) -> Iterator[tuple[str, V]]:
        """All of them, the oldest first."""
        return iter(self._values.items())
