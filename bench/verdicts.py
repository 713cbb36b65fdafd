"""Verdicts and reports: figures beside their limit, their peers and their bar, as text.

A bar that was given in nanoseconds was set on a machine where a hit of `functools.lru_cache`
takes 50 ns and `await` of a no-op 57. It is judged as a multiple of the limit that it was set
beside, against the ratio of ours to the same limit: see `bench.timing.Timed`.
"""

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.timing import Timed

__all__ = [
    "AWAIT_NS",
    "BAR_COLUMNS",
    "JUDGED",
    "LRU_NS",
    "MET",
    "MISSED",
    "Bar",
    "Results",
    "Section",
    "Table",
    "against",
    "at_least",
    "at_most",
    "beside",
    "counted",
    "in_bytes",
    "machine",
    "markdown",
    "missed",
    "part",
    "percent",
    "points",
    "time",
    "write",
]

MET: Final = "met"
MISSED: Final = "**missed**"
LRU_NS: Final = 50.0  # of the machine that the bars were set on
AWAIT_NS: Final = 57.0
JUDGED: Final = (
    "A ratio is the median over the rounds of the ratio within a round, in which ours and its limit"
    " were timed one right after the other; times are medians too, so that they may not divide to"
    " it exactly."
)
"""How ratios are made, in words for a report."""

Results = Mapping[str, Any]
"""What the benchmarks returned, by name; {"error": why} of one that failed."""


class Bar(msgspec.Struct, frozen=True):
    """One line of a verdict, all as text but whether it is met."""

    what: str
    figure: str
    limit: str
    ratio: str
    bar: str
    met: bool

    def row(self) -> list[str]:
        """Its cells."""
        verdict = MET if self.met else MISSED
        return [self.what, self.figure, self.limit, self.ratio, self.bar, verdict]


BAR_COLUMNS: Final = ["what", "ours", "limit, same run", "ratio", "bar", "verdict"]


class Table(msgspec.Struct, frozen=True):
    """Columns and rows of text."""

    columns: list[str]
    rows: list[list[str]]


class Section(msgspec.Struct, frozen=True):
    """A part of the report."""

    title: str
    bars: list[Bar] = []
    tables: list[Table] = []
    notes: list[str] = []


# --- verdicts


def beside(what: str, ours: Timed, limit: str, most: float, bar: str = "") -> Bar:
    """Judged by the ratio to the limit that it was timed beside: at most `most`."""
    said = f"{most:.3g} times" + (f" ({bar})" if bar else "")
    return Bar(
        what, time(ours.median), f"{limit} {time(ours.limit)}", f"{ours.ratio:.2f}", said,
        ours.ratio <= most,
    )  # fmt: skip


def against(what: str, ours: Timed, peer: tuple[str, Timed], most: float) -> Bar:
    """Judged by the ratio of two that were timed beside one limit, each as a multiple of it in
    that round: at most `most`."""
    name, theirs = peer
    ratio = Timed(ours.ratios, theirs.ratios).ratio
    limit = f"{name} {time(theirs.median)}"
    return Bar(what, time(ours.median), limit, f"{ratio:.2f}", f"{most:.3g} times", ratio <= most)


def at_most(what: str, ours: float, most: float, show: Callable[[float], str]) -> Bar:
    """Judged as it is."""
    return Bar(what, show(ours), "", "", f"at most {show(most)}", ours <= most)


def at_least(what: str, ours: float, least: float, show: Callable[[float], str]) -> Bar:
    """Judged as it is."""
    return Bar(what, show(ours), "", "", f"at least {show(least)}", ours >= least)


def time(ns: float) -> str:
    """Nanoseconds, in a unit that suits them."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def counted(number: float) -> str:
    """A number of things."""
    return f"{number:,.0f}"


def percent(number: float) -> str:
    """A share of 100."""
    return f"{number:.1f} %"


def points(number: float) -> str:
    """A difference of shares."""
    return f"{number:.2f} points"


def in_bytes(number: float) -> str:
    """A size."""
    return f"{number:,.0f} B"


def missed(parts: Iterable[Section]) -> list[Bar]:
    """What is not met."""
    return [bar for part in parts for bar in part.bars if not bar.met]


def part(results: Results, title: str, needed: str, make: Callable[[str, Any], Section]) -> Section:
    """The part that is made of one benchmark, or why it is not."""
    figures = results.get(needed, {"error": "it was not run"})
    for why in ("error", "absent"):
        if why in figures:
            return Section(title, notes=[f"Not measured: {figures[why]}."])
    return make(title, figures)


def machine() -> str:
    """What it ran on, without names."""
    return f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"


def markdown(title: str, parts: list[Section], command: str, day: date, data: str) -> str:
    """The whole report."""
    failed, total = missed(parts), sum(len(part.bars) for part in parts)
    lines = [
        f"# {title}, measured",
        "",
        f"Made by `{command}` on {day.isoformat()}: {machine()}. Figures: `{data}`.",
        f"{total - len(failed)} of {total} bars met.",
        "",
        "A bar in nanoseconds was set on a machine where a hit of `lru_cache` takes 50 ns and",
        "`await` of a no-op 57: it is judged as a multiple of its limit, by the ratio in this run.",
        JUDGED,
    ]
    for part in parts:
        lines += ["", f"## {part.title}"]
        if part.bars:
            lines += ["", *_grid(BAR_COLUMNS, [bar.row() for bar in part.bars])]
        for note in part.notes:
            lines += ["", note]
        for table in part.tables:
            lines += ["", *_grid(table.columns, table.rows)]
    return "\n".join(lines) + "\n"


def _grid(columns: list[str], rows: list[list[str]]) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(columns), line(["---"] * len(columns)), *map(line, rows)]


def write(title: str, results: Results, parts: list[Section], command: str, path: Path) -> None:
    """Writes the report and, beside it, the figures it was made of."""
    path.parent.mkdir(exist_ok=True)
    kept = {"machine": machine(), **results}
    data, file = msgspec.json.encode(kept, order="sorted"), path.with_suffix(".json")
    file.write_bytes(msgspec.json.format(data) + b"\n")
    day = datetime.now(UTC).date()
    path.write_text(markdown(title, parts, command, day, file.name), "utf-8")
