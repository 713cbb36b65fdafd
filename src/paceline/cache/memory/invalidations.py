"""What was removed by request lately: what a result computed meanwhile must not bring back."""

from collections import deque
from collections.abc import Collection, Hashable
from typing import Final, NamedTuple, final

__all__ = ["Invalidations"]

_EVERY_KEY: Final = object()
_REMEMBERED: Final = 256


class _Invalidation(NamedTuple):
    table: object
    key: object
    tag: str | None

    def concerns(self, table: object, key: Hashable, tags: Collection[str]) -> bool:
        if self.tag is not None:
            return self.tag in tags
        return self.table in (None, table) and (self.key is _EVERY_KEY or self.key == key)


@final
class Invalidations:
    """The last invalidations, each with its number.

    A result carries the number that held before it was computed. It is out of date if one of the
    invalidations since then concerned it, or may have: more than 256 are not told apart.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last: deque[_Invalidation] = deque(maxlen=_REMEMBERED)

    def note(self, table: object = None, key: object = _EVERY_KEY, tag: str | None = None) -> int:
        """Remembers one: of a key of a table, of all its keys, of a tag, or of everything.

        Returns its number.
        """
        self._last.append(_Invalidation(table, key, tag))
        self.count += 1
        return self.count

    def concern(self, since: int, table: object, key: Hashable, tags: Collection[str]) -> bool:
        """Whether one after the number `since` concerns this key of this table."""
        missed = self.count - since
        if missed <= 0:
            return False
        if missed > len(self._last):
            return True
        last = list(self._last)[-missed:]
        return any(invalidation.concerns(table, key, tags) for invalidation in last)
