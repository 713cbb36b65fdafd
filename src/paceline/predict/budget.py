"""What may be launched ahead: how often, for how much work and money, and how much of it in vain.

Token buckets for what is launched, and beside them one allowance for what nobody uses: however
wrong predictions are, launches in vain stay a share of the real calls.
"""

from typing import Final, NamedTuple, TypeVar, final

from paceline.clock import Clock

__all__ = ["Budget"]

V = TypeVar("V")

_NS: Final = 1_000_000_000
_MINUTE_NS: Final = 60 * _NS
_DAY_NS: Final = 86_400 * _NS
_MOST_SAVED: Final = 100.0  # launches in vain that real calls can pay for ahead
_MOST_OPEN: Final = 10_000  # launches of which it is not known what they took, or if they are used
_SHARE: Final = 0.5  # of seconds and dollars, for one tool or session
_HAIR: Final = 1e-9  # by which sums of fractions may be off


@final
class _Bucket:
    """Holds `most`, all of it at first, and fills up by `rate` each nanosecond. More than it holds
    may be taken where it is known too late, and has to fill up again first."""

    __slots__ = ("_at_ns", "_level", "_most", "_rate")

    def __init__(self, most: float, rate: float, now_ns: int) -> None:
        self._most = most
        self._rate = rate
        self._level = most
        self._at_ns = now_ns

    def has(self, amount: float, now_ns: int) -> bool:
        """Whether that much is there. What costs nothing is always there."""
        return amount <= 0 or self._fill(now_ns) + _HAIR >= amount

    def take(self, amount: float, now_ns: int) -> None:
        """Takes it, there or not; less than 0 gives back, up to the brim."""
        self._level = min(self._most, self._fill(now_ns) - amount)

    def _fill(self, now_ns: int) -> float:
        if now_ns > self._at_ns:
            self._level = min(self._most, self._level + (now_ns - self._at_ns) * self._rate)
            self._at_ns = now_ns
        return self._level


@final
class _Each:
    """Buckets of `most`, filling up by `rate`, one for each name: of the names used last."""

    __slots__ = ("_buckets", "_names", "_rate", "most")

    def __init__(self, most: float, rate: float, names: int) -> None:
        self.most = most
        self._rate = rate
        self._names = names
        self._buckets: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def has(self, name: str, amount: float, now_ns: int) -> bool:
        """Whether that much is there."""
        bucket = self._buckets.get(name)
        return amount <= self.most + _HAIR if bucket is None else bucket.has(amount, now_ns)

    def take(self, name: str, amount: float, now_ns: int) -> None:
        """Takes it, or gives back."""
        if not amount:
            return
        bucket = self._buckets.pop(name, None)
        if bucket is None:
            bucket = _Bucket(self.most, self._rate, now_ns)
            if len(self._buckets) >= self._names:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[name] = bucket
        bucket.take(amount, now_ns)


@final
class _Limit:
    """What may be taken of one thing: in all, by each tool, and by each session."""

    __slots__ = ("_all", "_per", "_said", "_sessions", "_tools", "_what")

    def __init__(
        self, what: str, per: str, said: str, whole: _Bucket, *, tools: _Each, sessions: _Each
    ) -> None:
        """`said` is how much of `what` there is in all; that of one is so much `per` minute, or at
        once."""
        self._what = what
        self._per = per
        self._said = said
        self._all = whole
        self._tools = tools
        self._sessions = sessions

    def __len__(self) -> int:
        """Tools and sessions of which something is remembered."""
        return len(self._tools) + len(self._sessions)

    def refusal(self, tool: str, session: str, amount: float, now_ns: int) -> str:
        """Nothing if that much may be taken, or why not, in words."""
        what, per, tools, sessions = self._what, self._per, self._tools, self._sessions
        if not self._all.has(amount, now_ns):
            return f"no more than {self._said}"
        if not tools.has(tool, amount, now_ns):
            return f"no more than {tools.most:g} {what} of {tool} {per}"
        if not sessions.has(session, amount, now_ns):
            return f"no more than {sessions.most:g} {what} {per} in one session"
        return ""

    def take(self, tool: str, session: str, amount: float, now_ns: int) -> None:
        """Takes it, there or not; less than 0 gives back."""
        self._all.take(amount, now_ns)
        self._tools.take(tool, amount, now_ns)
        self._sessions.take(session, amount, now_ns)


class _Launch(NamedTuple):
    """For what, in which session and on whose allowance something was launched, and what it was
    expected to take."""

    tool: str
    session: str
    whose: str
    expected_s: float
    usd: float


@final
class Budget:
    """Says what may be launched; all that is launched is to be told.

    In any minute no more is launched than its limit and what was left of the minute before;
    `work_s_per_minute` is work, counted as expected when it is launched and as it was once that is
    known. In any 24 hours calls launched cost no more than `usd_a_day` by expectation, and no more
    than half of it at once. One tool or session alone takes no more than half of the seconds and of
    the dollars that are there at once, so that there is something left for others; what is gone comes
    back to it as to all.

    Besides, each launch takes 1 of an allowance and gives it back when it is used. It is `initial` at
    first, and each real call that changes nothing adds `extra_calls`; up to 100 can be saved up. So
    launches in vain, those included of which nothing is known yet, are never more than
    `initial + extra_calls * real calls`. Everybody has an allowance of his own, so that who is always
    wrong takes nothing from the others; of at most 10,000, the oldest begin anew.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        launches_per_minute: int = 60,
        tool_launches_per_minute: int = 20,
        session_launches_per_minute: int = 30,
        work_s_per_minute: float = 60.0,
        usd_a_day: float = 0.0,
        extra_calls: float = 0.3,
        initial: float = 8.0,
    ) -> None:
        """A limit of 0 launches nothing; `usd_a_day` of 0 nothing that costs. Raises ValueError for
        limits below 0."""
        limits = (
            launches_per_minute,
            tool_launches_per_minute,
            session_launches_per_minute,
            work_s_per_minute,
            usd_a_day,
        )
        if not all(limit >= 0 for limit in (*limits, extra_calls, initial)):
            raise ValueError("a limit of what is launched ahead is not below 0")
        now_ns = clock.monotonic_ns()
        self._clock = clock
        # A bucket that nothing was taken from for a minute is full, and need not be there: there can
        # be launches of a minute, and what the minute before left.
        names = 2 * launches_per_minute + 1
        self._launches = _Limit(
            "launches",
            "a minute",
            f"{launches_per_minute} launches a minute",
            _Bucket(launches_per_minute, launches_per_minute / _MINUTE_NS, now_ns),
            tools=_Each(tool_launches_per_minute, tool_launches_per_minute / _MINUTE_NS, names),
            sessions=_Each(
                session_launches_per_minute, session_launches_per_minute / _MINUTE_NS, names
            ),
        )
        work_s, work_rate = work_s_per_minute, work_s_per_minute / _MINUTE_NS
        self._seconds = _shared(
            "s of work", f"{work_s:g} s of work a minute", work_s, work_rate, now_ns
        )
        usd, usd_rate = usd_a_day / 2, usd_a_day / 2 / _DAY_NS
        self._usd = _shared("USD", f"{usd_a_day:g} USD a day", usd, usd_rate, now_ns)
        self._extra_calls = extra_calls
        self._initial = initial if extra_calls else 0.0
        self._most = max(self._initial, _MOST_SAVED)
        self._allowances: dict[str, float] = {}
        self._unused: dict[str, _Launch] = {}
        self._running: dict[str, _Launch] = {}

    def allowance(self, whose: str = "") -> float:
        """How many more may be launched in vain for somebody."""
        return self._allowances.get(whose, self._initial)

    def may(
        self, tool: str, session: str, expected_s: float, usd: float = 0.0, *, whose: str = ""
    ) -> str:
        """Nothing, or the limit that says no, in words.

        `expected_s` is how many seconds the call will take, `usd` what it will cost.
        """
        if self.allowance(whose) + _HAIR < 1:
            return f"too many launches in vain: {self._extra_calls:g} for one real call are allowed"
        now_ns = self._clock.monotonic_ns()
        return (
            self._launches.refusal(tool, session, 1, now_ns)
            or self._seconds.refusal(tool, session, expected_s, now_ns)
            or self._usd.refusal(tool, session, usd, now_ns)
        )

    def launched(
        self,
        id_: str,
        tool: str,
        session: str,
        expected_s: float,
        usd: float = 0.0,
        *,
        whose: str = "",
    ) -> None:
        """A call was launched, which `may` had just allowed. `id_` is its own."""
        now_ns = self._clock.monotonic_ns()
        self._grant(whose, -1)
        self._launches.take(tool, session, 1, now_ns)
        self._seconds.take(tool, session, expected_s, now_ns)
        self._usd.take(tool, session, usd, now_ns)
        launch = _Launch(tool, session, whose, expected_s, usd)
        _keep(self._unused, id_, launch)
        _keep(self._running, id_, launch)

    def took(self, id_: str, took_s: float, usd: float = 0.0) -> None:
        """It is over: what it did take and cost takes the place of what was expected."""
        launch = self._running.pop(id_, None)
        if launch is None:
            return
        now_ns = self._clock.monotonic_ns()
        self._seconds.take(launch.tool, launch.session, took_s - launch.expected_s, now_ns)
        self._usd.take(launch.tool, launch.session, usd - launch.usd, now_ns)

    def used(self, id_: str) -> None:
        """A real call has asked for it. Counts once, and only for what was launched."""
        launch = self._unused.pop(id_, None)
        if launch is not None:
            self._grant(launch.whose, 1)

    def withdrawn(self, id_: str) -> None:
        """It was not run after all: all that it took is given back."""
        launch = self._unused.get(id_)
        if launch is None:
            return
        self.used(id_)
        self.took(id_, 0.0)
        self._launches.take(launch.tool, launch.session, -1, self._clock.monotonic_ns())

    def gone(self, id_: str) -> None:
        """Nobody will use it any more."""
        self._unused.pop(id_, None)

    def real(self, whose: str = "") -> None:
        """A session made a call that changes nothing, whether it was launched ahead or not."""
        self._grant(whose, self._extra_calls)

    def _grant(self, whose: str, amount: float) -> None:
        allowance = min(self._most, self.allowance(whose) + amount)
        self._allowances.pop(whose, None)
        _keep(self._allowances, whose, allowance)


def _shared(what: str, said: str, most: float, rate: float, now_ns: int) -> _Limit:
    """A limit of which one tool or session alone takes no more than a share at once."""
    return _Limit(
        what,
        "at once",
        said,
        _Bucket(most, rate, now_ns),
        tools=_Each(_SHARE * most, rate, _MOST_OPEN),
        sessions=_Each(_SHARE * most, rate, _MOST_OPEN),
    )


def _keep(open_: dict[str, V], id_: str, value: V) -> None:
    """Forgets the oldest when there are too many; it then counts as in vain, and as expected."""
    if len(open_) >= _MOST_OPEN:
        del open_[next(iter(open_))]
    open_[id_] = value
