"""`paceline cache stats`: what the state directory tells of the cache, without a running process.

What is kept is read from the file of the warm tier; how often it answered, from the history. What
an answer saved is what executing took on average, over the same calls, for the same agent.
"""

from collections import Counter
from typing import Final, final

import msgspec

from paceline.cache.disk.reader import DiskReader, Share
from paceline.call import Source
from paceline.cli.cache import counted, short_time
from paceline.cli.output import OK, json_line, line, table
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.history.record import Facts
from paceline.history.sqlite import SqliteReader

__all__ = ["Answered", "Reuse", "stats"]

_NS: Final = 1e9
_KIB: Final = 1024
_MIB: Final = 1024 * 1024


class Answered(msgspec.Struct, frozen=True):
    """Calls by where their answer came from, and the seconds of executing that this saved."""

    source: Source
    calls: int
    share: float
    saved_s: float


@final
class Reuse:
    """Counts calls by source. A `Tally` of the history."""

    def __init__(self) -> None:
        self._sources: Counter[tuple[str, Source]] = Counter()
        self._executed: Counter[str] = Counter()
        self._took_ns: Counter[str] = Counter()
        self._waited_ns = 0

    def __call__(self, facts: Facts) -> None:
        """Counts one call; failed ones could not have been saved, and are left out, and so is
        what nobody asked for."""
        if facts.category is not None or facts.speculated:
            return
        self._sources[facts.name, facts.source] += 1
        self._waited_ns += facts.total_ns
        if facts.source is Source.EXECUTED:
            self._executed[facts.name] += 1
            self._took_ns[facts.name] += facts.execute_ns

    @property
    def calls(self) -> int:
        """Calls that succeeded."""
        return self._sources.total()

    @property
    def executed(self) -> int:
        """Those of them that were executed."""
        return self._executed.total()

    @property
    def saved_s(self) -> float:
        """Seconds of executing that all other answers saved."""
        return sum(answered.saved_s for answered in self.answered())

    @property
    def mean_s(self) -> float:
        """Seconds that a caller waited, on average."""
        return self._waited_ns / _NS / self.calls if self.calls else 0.0

    @property
    def mean_without_s(self) -> float:
        """The same, had each call been executed."""
        return self.mean_s + self.saved_s / self.calls if self.calls else 0.0

    def answered(self) -> list[Answered]:
        """By source, the most frequent first."""
        counts: Counter[Source] = Counter()
        saved_s: Counter[Source] = Counter()
        for (name, source), count in self._sources.items():
            counts[source] += count
            if source is not Source.EXECUTED and self._executed[name]:
                saved_s[source] += count * self._took_ns[name] / self._executed[name] / _NS  # type: ignore[assignment]
        return [
            Answered(source, count, count / self.calls, float(saved_s[source]))
            for source, count in counts.most_common()
        ]


def stats(place: Place, window_s: float | None, *, as_json: bool) -> int:
    """Shows what is kept, and what it was good for."""
    clock = SystemClock()
    reader = DiskReader(place.home.cache, clock=clock)
    shares, (_, size) = reader.shares(), reader.sizes()
    reuse = Reuse()
    since_ns = None if window_s is None else clock.wall_ns() - round(window_s * _NS)
    SqliteReader(place.home.history).fold(reuse, since_ns=since_ns)
    recorded = place.settings().history.enabled
    if as_json:
        json_line(_data(shares, size, reuse, window_s))
        return OK
    _show_shares(shares, size)
    line()
    _show_reuse(reuse, window_s, recorded=recorded)
    return OK


def _show_shares(shares: list[Share], size: int) -> None:
    entries = sum(share.entries for share in shares)
    line(f"kept: {counted(entries, 'result')}, {_room(size)}")
    table(
        ("agent", "results", "bytes", "took"),
        [(s.name, f"{s.entries:,}", f"{s.bytes:,}", short_time(s.cost_s)) for s in shares],
        whole=("results", "bytes", "took"),
    )


def _room(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB" if size >= _MIB else f"{size / _KIB:,.0f} KiB"


def _show_reuse(reuse: Reuse, window_s: float | None, *, recorded: bool) -> None:
    if not reuse.calls:
        when = "" if window_s is None else f" in the last {short_time(window_s)}"
        why = "" if recorded else "; calls are not recorded (history.enabled is off)"
        line(f"no calls{when}{why}")
        return
    rate = 1 - reuse.executed / reuse.calls
    line(f"calls: {reuse.calls:,}, executed {reuse.executed:,}; hit rate {rate:.1%}")
    line(
        f"mean time {short_time(reuse.mean_s)}, without the cache about"
        f" {short_time(reuse.mean_without_s)}; saved about {short_time(reuse.saved_s)}"
    )
    table(
        ("source", "calls", "share", "saved"),
        [
            (a.source, f"{a.calls:,}", f"{a.share:.1%}", short_time(a.saved_s))
            for a in reuse.answered()
        ],
    )


def _data(
    shares: list[Share], size: int, reuse: Reuse, window_s: float | None
) -> dict[str, object]:
    """Rates from 0 to 1; "saved_s" is an estimate."""
    return {
        "version": 1,
        "kept": {
            "entries": sum(share.entries for share in shares),
            "bytes": size,
            "agents": shares,
        },
        "window_s": window_s,
        "calls": reuse.calls,
        "executed": reuse.executed,
        "hit_rate": 1 - reuse.executed / reuse.calls if reuse.calls else None,
        "saved_s": reuse.saved_s,
        "mean_s": reuse.mean_s,
        "mean_without_s": reuse.mean_without_s,
        "sources": reuse.answered(),
    }
