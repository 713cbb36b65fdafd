"""What was removed by request lately: what a result computed meanwhile must not bring back."""

from collections import deque
from collections.abc import Collection, Hashable
from typing import Final, NamedTuple, final

__all__ = ["Invalidations"]

_EVERY_KEY: Final = object()
_REMEMBERED: Final = 256
_KEYS: Final = 8_192


class _Broad(NamedTuple):
    """An invalidation of a tag, or of all keys of a table; of everything with neither."""

    number: int
    table: object
    tag: str | None

    def concerns(self, table: object, tags: Collection[str]) -> bool:
        if self.tag is not None:
            return self.tag in tags
        return self.table in (None, table)


@final
class Invalidations:
    """The last invalidations, each with its number.

    A result carries the number that held before it was computed. It is out of date if one of the
    invalidations since then concerned it, or may have: those of more than 8,192 keys, or 256 of
    more than one key, are not told apart.
    """

    def __init__(self) -> None:
        self.count = 0
        self._forgotten = 0
        """The number of the last one that is not known any more."""
        self._keys: dict[int, int] = {}  # by hash: keys can be large, and one too many is no harm
        self._broad: deque[_Broad] = deque()

    def note(self, table: object = None, key: object = _EVERY_KEY, tag: str | None = None) -> int:
        """Remembers one: of a key of a table, of all its keys, of a tag, or of everything.

        Returns its number.
        """
        self.count += 1
        if key is _EVERY_KEY:
            self._broad.append(_Broad(self.count, table, tag))
            if len(self._broad) > _REMEMBERED:
                self._forget(self._broad.popleft().number)
            return self.count
        which = hash((table, key))
        self._keys.pop(which, None)  # so that they are in order
        self._keys[which] = self.count
        if len(self._keys) > _KEYS:
            self._forget(self._keys.pop(next(iter(self._keys))))
        return self.count

    def concern(self, since: int, table: object, key: Hashable, tags: Collection[str]) -> bool:
        """Whether one after the number `since` concerns this key of this table."""
        if since >= self.count:
            return False
        if since < self._forgotten or self._keys.get(hash((table, key)), 0) > since:
            return True
        return any(each.number > since and each.concerns(table, tags) for each in [*self._broad])

    def _forget(self, number: int) -> None:
        self._forgotten = max(self._forgotten, number)
