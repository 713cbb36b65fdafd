"""Rate limits: so many requests and tokens in a minute, held before the other side has to.

Token buckets, which are full at first and fill up evenly. They count in whole parts of a token,
one for each nanosecond of the period: refilling them is a multiplication, exact at any rate and
however often it is done.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, final

from paceline.balance.quotas import Quantity, Quota, asked_to_wait_s, quotas
from paceline.clock import Clock
from paceline.errors import Shortage

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["Bucket", "Rates"]

_NS: Final = 1_000_000_000
_MINUTE_NS: Final = 60 * _NS
_DAY_NS: Final = 86_400 * _NS
_TOO_MANY: Final = 429
_ASKS_TO_WAIT: Final = frozenset({_TOO_MANY, 503, 529})
_COUNTS: Final = {
    Quantity.REQUESTS: (1, 0, 0),
    Quantity.TOKENS: (0, 1, 1),
    Quantity.INPUT_TOKENS: (0, 1, 0),
    Quantity.OUTPUT_TOKENS: (0, 0, 1),
}
"""How often a request counts, and each of its tokens of input and output."""
_TELLING: Final = 10
"""One part in so many of a limit has to be used for its time of refilling to tell its rate."""
_LEAST: Final = (1, 0)
"""Tokens of input and output that anything has."""
_BACKOFF_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = 60.0


@final
class Bucket:
    """`limit` in each period, all of it at once if it is there: within any period never more than
    `limit` and what it held at its beginning. More than there is may be taken, and has to fill up
    again first. All moments are nanoseconds of one clock that never goes back."""

    __slots__ = ("_at_ns", "_level", "limit", "period_ns")

    def __init__(self, limit: int, now_ns: int, *, period_ns: int = _MINUTE_NS) -> None:
        """Full. Raises ValueError unless both numbers are at least 1."""
        if limit < 1 or period_ns < 1:
            raise ValueError("a rate limit needs a limit and a period of at least 1")
        self.limit = limit
        self.period_ns = period_ns
        self._level = limit * period_ns
        self._at_ns = now_ns

    def left(self, now_ns: int) -> int:
        """What is there, rounded down; below 0 if more than that was taken."""
        return self._fill(now_ns) // self.period_ns

    def has(self, amount: int, now_ns: int) -> bool:
        """Whether that much is there, or it is full: what is larger than it has to pass too."""
        return self._fill(now_ns) >= min(amount, self.limit) * self.period_ns

    def take(self, amount: int, now_ns: int) -> None:
        """Takes it, there or not; less than 0 gives back, up to the brim."""
        self._fill(now_ns)
        self._level = min(self._level - amount * self.period_ns, self.limit * self.period_ns)

    def lower_to(self, amount: int, now_ns: int) -> None:
        """No more than this is there."""
        self._level = min(self._fill(now_ns), amount * self.period_ns)

    def resize(self, limit: int, period_ns: int, now_ns: int) -> None:
        """Another limit from now on; what was used of the old one is used of it."""
        used = self.limit * self.period_ns - self._fill(now_ns)
        self._level = limit * period_ns - used * period_ns // self.period_ns
        self.limit = limit
        self.period_ns = period_ns

    def when_ns(self, amount: int) -> int:
        """The first moment at which that much is there, if nothing is taken; not after now if it
        is there already."""
        missing = min(amount, self.limit) * self.period_ns - self._level
        return self._at_ns + max(0, -(-missing // self.limit))

    def _fill(self, now_ns: int) -> int:
        if now_ns > self._at_ns:
            filled = self._level + (now_ns - self._at_ns) * self.limit
            self._level = min(filled, self.limit * self.period_ns)
            self._at_ns = now_ns
        return self._level


class _Reservation(NamedTuple):
    """How much of what was taken from where."""

    parts: tuple[tuple[Quantity, Bucket, int], ...]


@final
class Rates:
    """A guard that holds the rate limits of one instance, or of several that share a key.

    Work reserves what it is expected to use before it is sent, and is corrected at its end by what
    it did use. Limits that are not given are learnt from the headers of answers, and so is what
    others with the same key use. Used by one thread at a time.
    """

    __slots__ = (
        "_backoff_s",
        "_buckets",
        "_clock",
        "_closed_ns",
        "_output_guess",
        "_wanted",
        "wanted",
    )

    reason: Shortage = Shortage.RATE_LIMIT

    def __init__(
        self,
        clock: Clock,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        output_guess: int = 256,
    ) -> None:
        """Limits for a minute, None for none that is known. `output_guess` is the tokens of output
        reserved where a request does not say. Raises ValueError for a limit below 1."""
        self._clock = clock
        now_ns = clock.monotonic_ns()
        given = zip(Quantity, (requests, tokens, input_tokens, output_tokens), strict=True)
        self._buckets = {
            quantity: Bucket(limit, now_ns) for quantity, limit in given if limit is not None
        }
        self._output_guess = output_guess
        self.wanted: Request | None = None
        """What was refused last, and is waited for: nothing else is let in before there is enough
        for it. None if something was let in since."""
        self._wanted = _LEAST
        self._closed_ns = 0
        self._backoff_s = _BACKOFF_S

    @property
    def limited(self) -> bool:
        """Whether any limit is known."""
        return bool(self._buckets)

    def opens_ns(self) -> int:
        """When there will be enough for what is wanted, or for anything if nothing is; not before
        the end of a pause that the other side asked for."""
        opens_ns = self._closed_ns
        for quantity, bucket in self._buckets.items():
            enough_ns = bucket.when_ns(_amount(quantity, *self._wanted))
            opens_ns = max(opens_ns, enough_ns)
        return opens_ns

    def admit(self, request: "Request") -> object | None:
        """Reserves one request and its tokens, all or nothing."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._closed_ns:
            return None
        output = request.output_tokens
        expected = (request.input_tokens, self._output_guess if output is None else output)
        reserved = tuple((q, b, _amount(q, *expected)) for q, b in self._buckets.items())
        for _, bucket, amount in reserved:
            if not bucket.has(amount, now_ns):
                self.wanted, self._wanted = request, expected
                return None
        for _, bucket, amount in reserved:
            bucket.take(amount, now_ns)
        self.forgo()
        return _Reservation(reserved)

    def forgo(self) -> None:
        """What was refused last is no longer waited for."""
        self.wanted, self._wanted = None, _LEAST

    def ended(self, permit: object, lease: "Lease") -> None:
        """Gives back what was reserved and not used, or takes what was used beyond that.

        Work that was never sent used nothing; of what does not say, the reservation counts.
        """
        now_ns, tokens = self._clock.monotonic_ns(), lease.tokens
        for quantity, bucket, amount in permit.parts if isinstance(permit, _Reservation) else ():
            if not lease.started_ns:
                bucket.take(-amount, now_ns)
            elif tokens is not None:
                bucket.take(_amount(quantity, tokens.input, tokens.output) - amount, now_ns)

    def told(self, headers: Mapping[str, str], status: int) -> None:
        """Learns from the headers of an answer and its HTTP status.

        After 429 without a word on how long to wait, the pause is a second, doubled each time up to
        a minute, until something succeeds.
        """
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        for quota in quotas(headers, wall_ns):
            self._learn(quota, now_ns)
        if status in _ASKS_TO_WAIT:
            pause_s = asked_to_wait_s(headers, wall_ns)
            if pause_s is None and status == _TOO_MANY and now_ns >= self._closed_ns:
                pause_s = self._backoff_s
                self._backoff_s = min(2 * pause_s, _LONGEST_BACKOFF_S)
            self._close(pause_s, now_ns)
        elif status < 400:  # noqa: PLR2004 (where errors begin)
            self._backoff_s = _BACKOFF_S

    def _learn(self, quota: Quota, now_ns: int) -> None:
        bucket, limit = self._buckets.get(quota.quantity), quota.limit
        if limit:
            if bucket is None:
                bucket = self._buckets[quota.quantity] = Bucket(limit, now_ns)
            period_ns = _period_ns(quota, limit) or bucket.period_ns
            if (limit, period_ns) != (bucket.limit, bucket.period_ns):
                bucket.resize(limit, period_ns, now_ns)
        if bucket is not None and quota.remaining is not None:
            bucket.lower_to(quota.remaining, now_ns)
        if quota.remaining == 0 and (quota.at_once or bucket is None):
            self._close(quota.reset_s, now_ns)

    def _close(self, pause_s: float | None, now_ns: int) -> None:
        if pause_s is not None:
            self._closed_ns = max(self._closed_ns, now_ns + round(pause_s * _NS))


def _amount(quantity: Quantity, input_tokens: int, output_tokens: int) -> int:
    one, of_input, of_output = _COUNTS[quantity]
    return one + of_input * input_tokens + of_output * output_tokens


def _period_ns(quota: Quota, limit: int) -> int | None:
    """The period, where that is said, or has to be longer than a minute because refilling takes
    longer; None where there is nothing to learn, as from what so little tells."""
    if quota.period_s is not None:
        return max(1, round(quota.period_s * _NS))
    used = limit - (limit if quota.remaining is None else quota.remaining)
    if quota.reset_s is None or quota.reset_s * _NS <= _MINUTE_NS or used * _TELLING < limit:
        return None
    return min(round(quota.reset_s * limit / used * _NS), _DAY_NS)
