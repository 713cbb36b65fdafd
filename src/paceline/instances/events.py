"""Server-sent events (HTML standard, section 9.2), as far as models use them: the data alone. Pure."""

from collections.abc import Iterator
from typing import Final, final

__all__ = ["Events"]

_FIELD: Final = b"data"


@final
class Events:
    """Makes events of bytes, however those are cut."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # a line that is not complete
        self._data: list[bytes] = []  # of an event that is not complete

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of each event that is complete now. Comments and other fields mean nothing."""
        # A line may end in CR LF, LF or CR. Of these the last, alone, is left out: nobody sends it,
        # and after it nothing is known before the next byte.
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
        self._rest.append(rest)
        for line in lines:
            line = line.removesuffix(b"\r")  # noqa: PLW2901 (its end is no part of it)
            if line:
                name, _, value = line.partition(b":")
                if name == _FIELD:
                    self._data.append(value.removeprefix(b" "))
            elif self._data:
                data, self._data = b"\n".join(self._data), []
                yield data
