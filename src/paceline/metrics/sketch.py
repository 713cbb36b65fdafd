"""Quantiles of any number of values within 1 %, in bounded memory, mergeable.

A log-linear histogram, as HdrHistogram's (G. Tene) is: every power of two is cut into 64 parts of
equal width. What part a value is in stands in its own bits: they are the upper 15 of its IEEE 754
single precision form. So a list of values is counted without a line of Python for each of them.
The middle of a part is within 1/128 of every value in it.
"""

import math
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Self, final

import msgspec

from paceline.errors import CodecError, UsageError

__all__ = [
    "MOST", "RELATIVE_ERROR", "Content", "Counted", "Sketch", "counted", "digit", "width_of",
]  # fmt: skip

RELATIVE_ERROR: Final = 0.01
"""What quantiles are promised to be within; 1/128, and the rounding to single precision."""

_LEAST: Final = 2.0**-126
MOST: Final = 2.0**127
"""The greatest number that is counted."""

_BUCKETS: Final = 3_072
_HIGH: Final = 1 if sys.byteorder == "little" else 0
_FLOAT: Final = struct.Struct("=f")
_BITS: Final = struct.Struct("=I")
_single, _bits = _FLOAT.pack, _BITS.unpack
_VERSION: Final = 2
_WIDTHS: Final = (("B", 2**8 - 1), ("H", 2**16 - 1), ("I", 2**32 - 1), ("Q", 2**64 - 1))
"""Types of counters, and the greatest count of each."""
_ROOM: Final = dict(_WIDTHS)


class _Stored(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    version: int
    count: int
    sum: int | float
    zeros: int
    least: int | float
    most: int | float
    low: int
    counts: list[int]


class Counted(NamedTuple):
    """Values with the buckets they fall into, to be put in any number of sketches: see `counted`."""

    size: int
    sum: float
    zeros: int
    least: float
    most: float
    halves: Sequence[int]
    """The upper halves of their single precision forms, without zeros: twice the bucket."""


class Content(NamedTuple):
    """All that a sketch knows, for who keeps it in another form: see `Sketch.of`."""

    size: int
    sum: float
    zeros: int
    least: float
    most: float
    low: int
    """The bucket of the first count."""
    counts: "array[int]"
    """Not to be changed."""


def width_of(count: int) -> str:
    """The narrowest type of array whose elements can count so many values.

    Raises UsageError if there is none.
    """
    for code, most in _WIDTHS:
        if count <= most:
            return code
    raise UsageError("these are more values than a sketch can count")


def digit(place: int, size: int) -> int:
    """Where the byte of a number of `size` bytes lies that counts 256 to the power of `place`."""
    return place if sys.byteorder == "little" else size - 1 - place


def counted(values: Sequence[float]) -> Counted:
    """Finds the buckets of values, at least one; without a line of Python for each.

    Raises UsageError if one is negative, too large or not a number.
    """
    size = len(values)
    if not any(values):
        return Counted(size, 0, size, 0, 0, ())
    total, least, most = sum(values), min(values), max(values)
    if not (least >= 0 and most <= MOST and total >= 0):  # of a nan, the last is false
        raise _refusal(least if least < 0 else most)
    halves: Sequence[int] = array("H", struct.pack(f"{size}f", *values))[_HIGH::2]
    if least < _LEAST:
        halves = [half for half in halves if half >= 1 << 7]
    return Counted(size, total, size - len(halves), least, most, halves)


@final
class Sketch:
    """Counts, sum and extremes exactly; quantiles within `RELATIVE_ERROR`.

    48 powers of two are told apart (with nanoseconds: from one to three days) in at most 12 KiB,
    or 24 beyond four thousand million values; when values spread wider, the lowest become one,
    and quantiles among them lose the guarantee. The same values give the same sketch, in whatever
    order and parts they came. Not locked: one thread at a time.
    """

    __slots__ = ("_counts", "_low", "_max", "_min", "_room", "count", "sum", "zeros")

    def __init__(self) -> None:
        self.count = 0
        self.sum: float = 0
        self.zeros = 0
        self._min = math.inf
        self._max = -math.inf
        self._low = 0  # the number of the first bucket
        code, self._room = _WIDTHS[0]
        self._counts: array[int] = array(code)

    @property
    def min(self) -> float | None:
        """The least value; None while there is none."""
        return self._min if self.count else None

    @property
    def max(self) -> float | None:
        """The greatest value; None while there is none."""
        return self._max if self.count else None

    @property
    def mean(self) -> float | None:
        """The exact mean; None while there is no value."""
        return self.sum / self.count if self.count else None

    def add(self, value: float) -> None:
        """Counts a value. Raises UsageError if it is negative, too large or not a number."""
        if not 0 <= value <= MOST:
            raise _refusal(value)
        if self.count >= self._room:
            self._widen(1)
        if value < _LEAST:
            self.zeros += 1
        else:
            bucket = _bits(_single(value))[0] >> 17
            counts = self._counts
            at = bucket - self._low
            if not 0 <= at < len(counts):
                at = max(bucket - self._span(bucket, bucket), 0)
            counts[at] += 1
        self.count += 1
        self.sum += value
        if not self._min <= value <= self._max:
            self._min, self._max = min(self._min, value), max(self._max, value)

    def add_all(self, values: Sequence[float]) -> None:
        """Counts values. Raises UsageError, and counts none, if one cannot be counted."""
        if values:
            self.take(counted(values))

    def take(self, values: Counted) -> None:
        """Adds what was counted."""
        self._widen(values.size)
        self.zeros += values.zeros
        halves = values.halves
        if halves:
            first = _bucket(values.least) if not values.zeros else min(halves) >> 1
            low = self._span(first, _bucket(values.most))
            counts = self._counts
            if first >= low:
                for half in halves:
                    counts[(half >> 1) - low] += 1
            else:  # the lowest fall into our first
                for half in halves:
                    counts[max((half >> 1) - low, 0)] += 1
        self._note(values.size, values.sum, values.least, values.most)

    def _widen(self, more: int) -> None:
        """Sees to it that every count can grow by so much."""
        count = self.count + more
        if count <= self._room:
            return
        code = width_of(count)
        self._room = _ROOM[code]
        self._counts = _widened(self._counts, code)

    def _note(self, count: int, total: float, least: float, most: float) -> None:
        self.count += count
        self.sum += total
        self._min = min(self._min, least)
        self._max = max(self._max, most)

    def _span(self, first: int, last: int) -> int:
        """Makes room for the buckets from `first` to `last`; the number of the first there is."""
        counts = self._counts
        if self._low <= first and last < self._low + len(counts):
            return self._low
        if not counts:
            self._low = first
        low, end = min(first, self._low), max(last + 1, self._low + len(counts))
        low = max(low, end - _BUCKETS)
        if low < self._low:
            counts[:0] = array(counts.typecode, bytes(counts.itemsize * (self._low - low)))
        elif low > self._low:
            lost = low - self._low
            counts[: lost + 1] = array(counts.typecode, [sum(counts[: lost + 1])])
        self._low = low
        counts.frombytes(bytes(counts.itemsize * (end - low - len(counts))))
        return low

    def quantile(self, q: float) -> float | None:
        """The value at rank ceil(q * count), counted from 1 in ascending order (nearest rank).

        None while there is no value. Raises UsageError unless 0 <= q <= 1.
        """
        if not 0 <= q <= 1:
            raise UsageError(f"a quantile lies between 0 and 1, not at {q}")
        if not self.count:
            return None
        rank = max(1, math.ceil(q * self.count))
        if rank == self.count:
            return self._max
        if rank <= self.zeros:
            return max(0.0, self._min)
        at = bisect_left(list(accumulate(self._counts, initial=self.zeros)), rank) - 1
        return min(max(_middle(at + self._low), self._min), self._max)

    def share_above(self, bound: float) -> float | None:
        """The share of values above a bound, those in the bound's own bucket counted as not
        above; None while there is no value."""
        if not self.count:
            return None
        if bound >= self._max:
            return 0.0
        if bound < self._min:
            return 1.0
        if bound < _LEAST:
            return 1 - self.zeros / self.count
        first = max(_bucket(min(bound, MOST)) + 1 - self._low, 0)
        return sum(self._counts[first:]) / self.count

    def merge(self, other: Self) -> None:
        """Counts all values of the other sketch too, as if they had been added here."""
        if not other.count:
            return
        self._widen(other.count)
        theirs = other._counts
        if not self._counts:
            self._low, self._counts = other._low, _widened(theirs, self._counts.typecode)[:]
        elif theirs:
            at = other._low - self._span(other._low, other._low + len(theirs) - 1)
            if at < 0:  # their lowest fall into our first
                theirs, at = array("Q", [sum(theirs[: 1 - at]), *theirs[1 - at :]]), 0
            counts = self._counts
            counts[at : at + len(theirs)] = _both(counts[at : at + len(theirs)], theirs)
        self.zeros += other.zeros
        self._note(other.count, other.sum, other._min, other._max)

    def buckets(self) -> Iterator[tuple[float, float, int]]:
        """Lower and upper bound and count of each bucket that is not empty, the lowest first;
        `zeros` are in none."""
        for at, count in enumerate(self._counts, self._low):
            if count:
                yield _edge(at), _edge(at + 1), count

    def copy(self) -> "Sketch":
        """A sketch of the same values that goes its own way."""
        twin = Sketch()
        twin.merge(self)
        return twin

    def content(self) -> Content:
        """All it knows, at this moment."""
        return Content(
            self.count, self.sum, self.zeros, self._min, self._max, self._low, self._counts
        )

    @classmethod
    def of(cls, content: Content) -> Self:
        """The sketch that knows this; it takes over the counts, whose type must be as wide as
        `width_of` says. When they spread too far, the lowest become one."""
        sketch = cls()
        sketch.count, sketch.sum, sketch.zeros, sketch._min, sketch._max, low, counts = content
        lost = len(counts) - _BUCKETS
        if lost > 0:
            low += lost
            counts[: lost + 1] = array(counts.typecode, [sum(counts[: lost + 1])])
        sketch._low, sketch._counts, sketch._room = low, counts, _ROOM[counts.typecode]
        return sketch

    def to_bytes(self) -> bytes:
        """The sketch for another process or host, for `from_bytes`."""
        least, most = (self._min, self._max) if self.count else (0, 0)
        total, least, most = map(_stored, (self.sum, least, most))
        low, counts = self._content()
        stored = _Stored(_VERSION, self.count, total, self.zeros, least, most, low, counts)
        return msgspec.msgpack.encode(stored)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` made. Raises CodecError for anything else."""
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise CodecError(f"these bytes are no sketch: {exc}") from exc
        if not _sound(stored):
            raise CodecError("these bytes are no sketch of ours, or of another version")
        sketch = cls()
        sketch._widen(stored.count)
        sketch.zeros, sketch._low = stored.zeros, stored.low
        sketch._counts.extend(stored.counts)
        if stored.count:
            sketch._note(stored.count, stored.sum, stored.least, stored.most)
        return sketch

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sketch):
            return NotImplemented
        ours = (self.count, self.sum, self.zeros, self.min, self.max, self._content())
        return ours == (
            other.count, other.sum, other.zeros, other.min, other.max, other._content()
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Sketch(count={self.count}, min={self.min}, max={self.max})"

    def _content(self) -> tuple[int, list[int]]:
        """The counts without empty ends, and the number of the first."""
        filled = [at for at, count in enumerate(self._counts) if count]
        if not filled:
            return 0, []
        return self._low + filled[0], list(self._counts[filled[0] : filled[-1] + 1])


def _stored(number: float) -> float:
    """As it is, or what is nearest to it among the numbers that have a stored form."""
    return number if number < 2**63 else float(number)


def _sound(stored: _Stored) -> bool:
    """Whether its parts agree with one another."""
    low, counts, zeros, most = stored.low, stored.counts, stored.zeros, stored.most
    if stored.version != _VERSION or len(counts) > _BUCKETS or min((zeros, *counts)) < 0:
        return False
    if stored.count != zeros + sum(counts) or stored.count >= 2**63:
        return False
    if not (0 <= stored.least <= most <= MOST and 0 <= stored.sum < math.inf):
        return False
    if not counts:
        return low == 0 and most < _LEAST
    return (
        (stored.least < _LEAST) == (zeros > 0)
        and _bucket(most) == low + len(counts) - 1
        and min(counts[0], counts[-1]) > 0
    )


def _refusal(value: float) -> UsageError:
    return UsageError(f"a sketch counts numbers from 0 to {MOST:g}, not {value}")


def _widened(counts: "array[int]", code: str) -> "array[int]":
    """The same counts in another type that holds them; byte by byte, without a line of Python
    for each count."""
    if counts.typecode == code:
        return counts
    wide: array[int] = array(code)
    size, digits = wide.itemsize, counts.tobytes()
    room = bytearray(len(counts) * size)
    for place in range(min(size, counts.itemsize)):
        room[digit(place, size) :: size] = digits[digit(place, counts.itemsize) :: counts.itemsize]
    wide.frombytes(room)
    return wide[:]  # with no room to grow


def _both(ours: "array[int]", theirs: "array[int]") -> "array[int]":
    """The counts of both, place by place.

    They are added as two great numbers, of which they are the digits: none is carried over,
    because all counts together are within the width of one.
    """
    theirs = _widened(theirs, ours.typecode)
    total = int.from_bytes(ours, sys.byteorder) + int.from_bytes(theirs, sys.byteorder)
    return array(ours.typecode, total.to_bytes(len(ours) * ours.itemsize, sys.byteorder))


def _bucket(value: float) -> int:
    bits: int = _bits(_single(value))[0]
    return bits >> 17


def _edge(bucket: int) -> float:
    edge: float = _FLOAT.unpack(_BITS.pack(bucket << 17))[0]
    return edge


def _middle(bucket: int) -> float:
    return (_edge(bucket) + _edge(bucket + 1)) / 2
