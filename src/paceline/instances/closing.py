"""Where a JSON object ends, in text that comes in pieces. Pure."""

import re
from typing import Final, final

__all__ = ["Closing"]

_BEGINS: Final = re.compile(r"[ \t\n\r]*")
_OUTSIDE: Final = re.compile(r'["{}\[\]]')
_INSIDE: Final = re.compile(r'["\\]')


@final
class Closing:
    """Follows a text, and knows when the object is closed with which it begins.

    It counts brackets and no more: a text that is closed may still be no JSON, and one that begins
    with no object, or goes on after it, never closes. Each character is looked at once.
    """

    __slots__ = ("_depth", "_escaped", "_lost", "_quoted", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._lost = False
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def feed(self, piece: str) -> bool:
        """More of the text. Returns whether the object is closed, and nothing but space after it."""
        at = 0
        if not self._depth and not self.closed:
            at = _begin(piece)
            self._lost = self._lost or (at < len(piece) and piece[at] != "{")
        if self._escaped and piece:
            at, self._escaped = 1, False
        while not self._lost and not self.closed:
            mark = (_INSIDE if self._quoted else _OUTSIDE).search(piece, at)
            if mark is None:
                break
            at = self._seen(mark[0], mark.end(), len(piece))
        if self.closed and _begin(piece, at) < len(piece):
            self._lost, self.closed = True, False
        return self.closed

    def _seen(self, mark: str, at: int, length: int) -> int:
        """Takes note of a mark that ends at `at`; returns where to look for the next one."""
        if mark == "\\":
            self._escaped = at == length
            return at + 1
        if mark == '"':
            self._quoted = not self._quoted
        elif mark in "{[":
            self._depth += 1
        else:
            self._depth -= 1
            self.closed = self._depth == 0
        return at


def _begin(piece: str, at: int = 0) -> int:
    """Where the space that is here ends."""
    found = _BEGINS.match(piece, at)
    return at if found is None else found.end()
