"""The report on the metrics: what a record costs, how right it is and what room it takes."""

import math
from operator import sub
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import verdicts
from bench.metrics import BUSY, SAMPLES, TRACKED, Figures
from bench.recorders import CELL
from bench.timing import Timed
from bench.verdicts import (
    AWAIT_NS,
    Results,
    Section,
    Table,
    at_least,
    at_most,
    beside,
    in_bytes,
    part,
    percent,
    time,
)

__all__ = ["REPORT", "TITLE", "sections", "write"]

TITLE: Final = "The metrics"
REPORT: Final = Path(__file__).parent / "results" / "metrics.md"

_NOOP: Final = "await no-op"
_RECORD_NS: Final = 400
_TRACKED_NS: Final = 1_000
_ROOM: Final = 30 * 1024
_FULL: Final = "sketch of a million values at full range"


def sections(results: Results, *, only_run: bool = False) -> list[Section]:
    """The report; `only_run` leaves out what was not run."""
    if only_run and "metrics" not in results:
        return []
    return [
        part(results, "A record", "metrics", _record),
        part(results, "A call that is tracked", "metrics", _tracked),
    ]


def _record(title: str, data: Any) -> Section:
    figures = msgspec.convert(data, Figures)
    bars = [
        beside(
            f"a record of a call, {samples:,} samples",
            figures.record[CELL][str(samples)], _NOOP, _RECORD_NS / AWAIT_NS, "0.4 us there",
        )
        for samples in SAMPLES
    ]  # fmt: skip
    bars += [
        at_most("worst error of a quantile", 100 * figures.worst_error[CELL], 1, percent),
        at_most(_FULL, figures.own_bytes[_FULL], _ROOM, in_bytes),
        at_most(BUSY, figures.own_bytes[BUSY], _ROOM, in_bytes),
        at_least("8 threads, throughput over that of one", figures.threads[CELL], 0.7, _times),
    ]
    notes = [
        (
            f"{figures.rounds} rounds, each candidate once a round, without the loop itself. "
            "Values are lognormal. A record of ours has the total, execution, queue and saved time "
            "of a call, and is in the figures of a minute, five minutes, an hour, a day and ever; "
            "others record one number."
        ),
        (
            "Errors are the worst of p50, p95, p99 and p99.9 of 100,000 values of three kinds: "
            "lognormal, Pareto with a shape of 1.2, and fast hits beside slow models. Buckets are "
            "read as PromQL's `histogram_quantile` does."
        ),
        (
            "A merge is of 20,000 values. Bytes are of one of many with 5,000 values: of ours as "
            "Python traces them, of peers what the process grows by. Most of a busy series is its "
            "windows: some 40 slots, each a sketch, packed once it is over."
        ),
        *(
            f"8 threads over one, {name}: {share:.2f}."
            for name, share in figures.threads.items()
            if name != CELL
        ),
        *(f"Failed: {name}: {why}" for name, why in figures.failed.items()),
    ]
    rooms = [[what, in_bytes(number)] for what, number in figures.own_bytes.items()]
    return Section(title, bars, [_costs(figures), Table(["of ours", "takes"], rooms)], notes)


def _costs(figures: Figures) -> Table:
    """By what a record costs with a million samples, the quickest first."""

    def row(name: str, costs: dict[str, Timed]) -> list[str]:
        last = list(costs)[-1]
        return [
            name,
            *(time(costs[str(n)].median) if str(n) in costs else "" for n in SAMPLES),
            f"{costs[last].ratio:.1f}",
            f"{100 * figures.worst_error[name]:,.2f} %" if name in figures.worst_error else "",
            time(1e3 * figures.merge_us[name]) if name in figures.merge_us else "",
            f"{figures.bytes[name]:,.0f}" if name in figures.bytes else "",
        ]

    def most(item: tuple[str, dict[str, Timed]]) -> float:
        timed = item[1].get(str(SAMPLES[-1]))
        return math.inf if timed is None else timed.ratio

    ordered = sorted(figures.record.items(), key=most)
    columns = ["recorded in", *(f"{n:,} samples" for n in SAMPLES), "x await", "worst error"]
    return Table([*columns, "merge", "bytes"], [row(name, costs) for name, costs in ordered])


def _tracked(title: str, data: Any) -> Section:
    figures = msgspec.convert(data, Figures)
    added = {name: _added(timed) for name, timed in figures.tracked.items()}
    bars = [
        beside(
            "added by `@track_performance`, span and statistics",
            added[TRACKED], _NOOP, _TRACKED_NS / AWAIT_NS, "1 us there",
        )
    ]  # fmt: skip
    rows = [
        [name, time(timed.median), f"{timed.ratio:.1f}"]
        for name, timed in sorted(added.items(), key=lambda item: item[1].ratio)
    ]
    columns = ["added to an async no-op by", "takes", "x await"]
    return Section(title, bars, [Table(columns, rows)])


def _added(timed: Timed) -> Timed:
    """What was added to the limit."""
    return Timed(list(map(sub, timed.ns, timed.limit_ns)), timed.limit_ns)


def _times(number: float) -> str:
    return f"{number:.2f}"


def write(results: Results, command: str, path: Path = REPORT) -> list[Section]:
    """Writes the report and, beside it, the figures it was made of."""
    parts = sections(results)
    verdicts.write(TITLE, results, parts, command, path)
    return parts
