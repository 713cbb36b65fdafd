"""Sketches to which nothing is added for a while: many of them in few bytes.

Slots of time that follow one another have nearly the same distribution. So the counts of all
sketches in one bucket stand side by side, bucket after bucket, and each is then written with as
many bits as such counts take thereabouts (deflate, RFC 1951, in small blocks). That is near to the
least that counts can be told in: a tenth of the sketches.
"""

import sys
import zlib
from array import array
from collections.abc import Sequence
from typing import Final, final

import msgspec

from paceline.metrics.sketch import Content, Sketch, digit, width_of

__all__ = ["Kept", "fitting", "pack", "united", "unpack"]

_BLOCKS: Final = 3
"""zlib's level of memory: new codes after each 512 counts."""


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A sketch without its counts: of them it has `width`, from the bucket `low` on."""

    count: int
    sum: int | float
    zeros: int
    least: int | float
    most: int | float
    low: int
    width: int


class _Table(msgspec.Struct, array_like=True, frozen=True):
    aside: bytes
    rows: list[_Row]
    low: int
    height: int
    """The first bucket of all, and how many there are."""
    counts: bytes
    """The lowest bytes of all counts, then the next of all, and so on."""


def fitting(number: float) -> float:
    """As it is, or the nearest among the numbers that msgpack has."""
    return number if number < 2**63 else float(number)


def pack(sketches: Sequence[Sketch], aside: bytes = b"") -> bytes:
    """The sketches as bytes, for `unpack` and `united` in this process, with what is to be kept
    beside them. Sums and extremes from 2**63 on become floats."""
    contents = [sketch.content() for sketch in sketches]
    filled = [one for one in contents if one.counts]
    low = min([one.low for one in filled], default=0)
    height = max([one.low + len(one.counts) for one in filled], default=low) - low
    rows = [
        _Row(
            one.size,
            fitting(one.sum),
            one.zeros,
            fitting(one.least),
            fitting(one.most),
            one.low - low if one.counts else 0,
            len(one.counts),
        )
        for one in contents
    ]
    table = _Table(aside, rows, low, height, _interleaved(contents, low, height))
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, _BLOCKS, zlib.Z_RLE)
    return deflate.compress(_encode(table)) + deflate.flush()


def unpack(packed: bytes) -> tuple[list[Sketch], bytes]:
    """The sketches that `pack` was given, as new ones, and what was beside them."""
    table = _decode(zlib.decompress(packed, -zlib.MAX_WBITS))
    found: list[Sketch] = []
    for column, row in enumerate(table.rows):
        counts: array[int] = array(width_of(row.count))
        size = counts.itemsize
        counts.frombytes(_column(table, column, size, row.low, row.width))
        low = table.low + row.low
        content = Content(row.count, row.sum, row.zeros, row.least, row.most, low, counts)
        found.append(Sketch.of(content))
    return found, table.aside


def united(packed: bytes) -> tuple[Sketch, bytes]:
    """All values of the sketches in one, and what was beside them."""
    table = _decode(zlib.decompress(packed, -zlib.MAX_WBITS))
    rows, height = table.rows, table.height
    count = sum([row.count for row in rows])
    counts: array[int] = array(width_of(count))
    size = counts.itemsize
    # Added as great numbers whose digits are the counts: none is carried over, see `width_of`.
    total = 0
    for column in range(len(rows)):
        total += int.from_bytes(_column(table, column, size, 0, height), sys.byteorder)
    counts.frombytes(total.to_bytes(height * size, sys.byteorder))
    content = Content(
        count,
        sum([row.sum for row in rows]),
        sum([row.zeros for row in rows]),
        min([row.least for row in rows]),
        max([row.most for row in rows]),
        table.low,
        counts,
    )
    return Sketch.of(content), table.aside


@final
class Kept:
    """Sketches by name that are packed between the times when they are added to."""

    __slots__ = ("_names", "_open", "_packed")

    def __init__(self) -> None:
        self._open: dict[str, Sketch] = {}
        self._names: tuple[str, ...] = ()
        self._packed = b""

    def open(self) -> dict[str, Sketch]:
        """They themselves, to be added to, and others to be put beside them, until `seal`."""
        if self._names:
            self._open = self.copies()
            self._names, self._packed = (), b""
        return self._open

    def seal(self) -> None:
        """Packs them."""
        if self._open:
            self._packed = pack(list(self._open.values()))
            self._names, self._open = tuple(self._open), {}

    def copies(self) -> dict[str, Sketch]:
        """The same, which then go their own way."""
        if self._names:
            return dict(zip(self._names, unpack(self._packed)[0], strict=True))
        return {name: sketch.copy() for name, sketch in self._open.items()}


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Table).decode


def _interleaved(contents: Sequence[Content], low: int, height: int) -> bytes:
    many = len(contents)
    planes: list[bytes] = []
    for place in range(max([one.counts.itemsize for one in contents], default=1)):
        plane = bytearray(height * many)
        for column, one in enumerate(contents):
            size = one.counts.itemsize
            if one.counts and place < size:
                first = (one.low - low) * many + column
                end = first + len(one.counts) * many - many + 1
                plane[first:end:many] = one.counts.tobytes()[digit(place, size) :: size]
        planes.append(bytes(plane))
    while len(planes) > 1 and not planes[-1].strip(b"\0"):
        planes.pop()
    return b"".join(planes)


def _column(table: _Table, column: int, size: int, low: int, width: int) -> bytearray:
    """Counts of one sketch, from the row `low` on, each of so many bytes."""
    many, plane = len(table.rows), table.height * len(table.rows)
    counts = bytearray(width * size)
    first, end = low * many + column, (low + width) * many
    for place in range(min(len(table.counts) // plane if plane else 0, size)):
        at = place * plane
        counts[digit(place, size) :: size] = table.counts[at + first : at + end : many]
    return counts
