"""Which errors there are: the most frequent kinds, in bounded memory."""

import re
from collections.abc import Callable
from typing import Final, final

from paceline.errors import Category
from paceline.metrics.figures import Trouble

__all__ = ["Forms", "Troubles", "form"]

_MOST: Final = 16
_LONGEST: Final = 200
_LONGEST_READ: Final = 8_192
_REMEMBERED: Final = 256
_PARTS: Final = re.compile(
    r"""
    "[^"]*(?:"|\Z) | `[^`]*(?:`|\Z)    # what is quoted
  | (?<!\w)'[^']*'(?!\w)
  | \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
  | \b(?=[a-zA-Z_]*\d)[\w.:+-]{12,}\b  # names with numbers in them
  | (?:/[\w.@-]+){2,}/?                # paths
  | \b0x[0-9a-fA-F]+\b
  | \d+(?:[.,:]\d+)*                   # numbers, times, versions
    """,
    re.VERBOSE,
)


def form(message: str) -> str:
    """A message without what differs from call to call: quoted parts, numbers, paths, ids."""
    return _PARTS.sub("*", message[: 2 * _LONGEST]).strip()[:_LONGEST]


@final
class Forms:
    """Forms of messages without secrets, remembered, so that a flood of one error costs little.

    Not the messages are kept, but their hashes: no secret stays in memory for this.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._known: dict[int, str] = {}

    def of(self, error: BaseException) -> str:
        """The form of an error's message; "" if it has none, or fails to tell it."""
        try:
            message = str(error)
        except Exception:  # noqa: BLE001 (foreign code; measuring must not break what is measured)
            return ""
        key = hash(message)
        known = self._known.get(key)
        if known is None:
            if len(message) > _LONGEST_READ:  # the last word goes too: it may be half a secret
                message = message[:_LONGEST_READ].rpartition(" ")[0]
            known = form(self._redact(message))
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            self._known[key] = known
        return known


class _Kind:
    __slots__ = ("count", "first_ns", "last_ns", "too_many")

    def __init__(self, count: int, at_ns: int) -> None:
        self.count = self.too_many = count
        self.first_ns = self.last_ns = at_ns


@final
class Troubles:
    """The most frequent kinds of error, by category, type and form of message.

    At most `most` kinds have a place of their own. A new kind takes that of the rarest, and its
    count as an upper bound (space-saving: A. Metwally, D. Agrawal, A. El Abbadi, "Efficient
    Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005). Not locked.
    """

    __slots__ = ("_kinds", "_most")

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kinds: dict[tuple[Category, str, str], _Kind] = {}

    def note(self, category: Category, kind: str, message: str, at_ns: int) -> None:
        """Counts an error of this type, with the form of its message."""
        key = (category, kind, message)
        known = self._kinds.get(key)
        if known is None:
            given_up = 0
            if len(self._kinds) >= self._most:
                rarest = min(self._kinds, key=lambda other: self._kinds[other].count)
                given_up = self._kinds.pop(rarest).count
            known = self._kinds[key] = _Kind(given_up, at_ns)
        known.count += 1
        known.first_ns = min(known.first_ns, at_ns)  # replayed errors come in any order
        known.last_ns = max(known.last_ns, at_ns)

    def top(self) -> tuple[Trouble, ...]:
        """The kinds, the most frequent first."""
        troubles = [
            Trouble(*key, kind.count, kind.first_ns, kind.last_ns, kind.too_many)
            for key, kind in self._kinds.items()
        ]
        return tuple(sorted(troubles, key=lambda trouble: -trouble.count))
