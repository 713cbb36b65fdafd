"""Quantiles of any number of values within a relative error, in bounded memory, mergeable.

The method is DDSketch: C. Masson, J. E. Rim, H. K. Lee, "DDSketch: A Fast and Fully-Mergeable
Quantile Sketch with Relative-Error Guarantees", PVLDB 12(12), 2019. With relative error a and
g = (1 + a) / (1 - a), bucket i counts the values in (g**(i-1), g**i]; its middle,
2 * g**i / (g + 1), is within a of each of them.
"""

import copy
import math
from collections.abc import Iterator
from typing import Final, Self, final

from paceline.errors import UsageError

__all__ = ["Sketch"]

# Values below count as zero, values above are refused; between, no power of g overflows.
_SMALLEST: Final = 1e-300
_LARGEST: Final = 1e300


@final
class Sketch:
    """Counts, sum and extremes exactly; quantiles within `relative_error`.

    At most `max_buckets` buckets are kept: when values spread wider, the lowest buckets become
    one, and quantiles that fall into it lose the guarantee. At 1 % the default spans 17 decades.
    The same values give the same sketch, in whatever order and parts they came. Not locked: one
    thread at a time.
    """

    __slots__ = (
        "_counts",
        "_last",
        "_low",
        "_max",
        "_min",
        "_scale",
        "count",
        "max_buckets",
        "relative_error",
        "sum",
        "zeros",
    )

    def __init__(self, relative_error: float = 0.01, max_buckets: int = 2_048) -> None:
        """Raises UsageError unless `relative_error` is between 0 and 1 and there is a bucket."""
        if not 0 < relative_error < 1 or max_buckets < 1:
            raise UsageError("a sketch needs a relative error between 0 and 1, and a bucket")
        self.relative_error = relative_error
        self.max_buckets = max_buckets
        self.count = 0
        self.sum: float = 0
        self.zeros = 0
        self._min = math.inf
        self._max = -math.inf
        self._scale = 1 / math.log((1 + relative_error) / (1 - relative_error))
        self._low = 0  # the number of the first bucket
        self._counts: list[int] = []  # first and last are never empty
        self._last = -1

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
        """Counts a value. Raises UsageError if it is negative, infinite or not a number."""
        try:
            at = math.ceil(math.log(value) * self._scale) - self._low
        except (ValueError, OverflowError):
            at = -1  # zero, or no value for us
        if 0 < at < self._last:  # most values: neither a new bucket nor a new extreme
            self._counts[at] += 1
            self.count += 1
            self.sum += value
        else:
            self._add_at_edge(value, at + self._low)

    def _add_at_edge(self, value: float, bucket: int) -> None:
        if not 0 <= value <= _LARGEST:
            raise UsageError(f"a sketch counts numbers from 0 to {_LARGEST:g}, not {value}")
        if value < _SMALLEST:
            self.zeros += 1
        else:
            self._counts[self._place(bucket)] += 1
        self.count += 1
        self.sum += value
        if value < self._min:  # noqa: PLR1730 (a call of min() costs twice as much)
            self._min = value
        if value > self._max:  # noqa: PLR1730
            self._max = value

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
        seen = self.zeros
        at = -1
        while seen < rank:
            at += 1
            seen += self._counts[at]
        return min(max(self._middle(at), self._min), self._max)

    def merge(self, other: "Sketch") -> None:
        """Counts all values of the other sketch too, as if they had been added here.

        Raises UsageError if the two were made with different settings.
        """
        if (other.relative_error, other.max_buckets) != (self.relative_error, self.max_buckets):
            raise UsageError("sketches of different settings cannot be merged")
        for bucket, count in other.buckets():
            self._counts[self._place(bucket)] += count
        self.zeros += other.zeros
        self.count += other.count
        self.sum += other.sum
        if other.min is not None and other.max is not None:
            self._min = min(self._min, other.min)
            self._max = max(self._max, other.max)

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Number and count of each bucket that is not empty, the highest first."""
        counts, low = self._counts, self._low
        return ((at + low, counts[at]) for at in range(len(counts) - 1, -1, -1) if counts[at])

    def copy(self) -> Self:
        """A sketch of the same values that goes its own way."""
        twin = copy.copy(self)
        twin._counts = self._counts.copy()  # noqa: SLF001 (the twin's one part that can change)
        return twin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> tuple[object, ...]:
        settings = (self.relative_error, self.max_buckets)
        return (*settings, list(self.buckets()), self.zeros, self.sum, self.min, self.max)

    def _middle(self, at: int) -> float:
        """The value within `relative_error` of all in a bucket; 0 before the first."""
        if at < 0:
            return 0.0
        growth = (1 + self.relative_error) / (1 - self.relative_error)
        return math.exp((at + self._low) / self._scale) * 2 / (growth + 1)

    def _place(self, bucket: int) -> int:
        """Where a bucket is counted; the caller does count, so the ends are never empty."""
        at = bucket - self._low
        if 0 <= at <= self._last:
            return at
        counts = self._counts
        if not counts:
            self._low = bucket
        at = bucket - self._low
        if at < 0:
            fill = min(-at, self.max_buckets - len(counts))
            counts[:0] = [0] * fill
            self._low -= fill
        else:
            counts.extend([0] * (at + 1 - len(counts)))
            surplus = max(0, len(counts) - self.max_buckets)
            counts[: surplus + 1] = [sum(counts[: surplus + 1])]
            self._low += surplus
        self._last = len(counts) - 1
        return max(0, bucket - self._low)
