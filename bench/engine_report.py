"""The report on the engine: what a step and a run cost, beside asyncio alone and other engines."""

from pathlib import Path
from typing import Any, Final

import msgspec

from bench import verdicts
from bench.engine import Figures
from bench.engine_contest import Figures as Contest
from bench.engine_paceline import ALONE, RUNTIME
from bench.timing import Timed
from bench.verdicts import (
    Bar,
    Results,
    Section,
    Table,
    against,
    at_most,
    beside,
    counted,
    part,
    time,
)

__all__ = ["REPORT", "TITLE", "sections", "write"]

TITLE: Final = "The engine"
REPORT: Final = Path(__file__).parent / "results" / "engine.md"

_ASYNCIO: Final = "asyncio"
_ASYNCIO_NS: Final = 13e3  # a step, on the machine that the bars were set on
_STEP: Final = 40e3 / _ASYNCIO_NS
_START: Final = 0.1 / 0.03  # seconds, likewise
_GROWTH: Final = 1.2
_MS: Final = 1e6
_KIB: Final = 1024


def sections(results: Results, *, only_run: bool = False) -> list[Section]:
    """The report; `only_run` leaves out what was not run."""
    return [
        part(results, title, needed, make)
        for title, needed, make in (
            ("A step and a run", "steps", _steps),
            ("What sessions promise besides", "steps", _promises),
        )
        if needed in results or not only_run
    ]


def _steps(title: str, data: Any) -> Section:
    figures = msgspec.convert(data, Figures)
    ours = figures.engines[RUNTIME]
    bars = [
        beside("CPU of a step, run of 10", ours.short, _ASYNCIO, _STEP, "40 us there"),
        beside("CPU of a step, run of 200", ours.growth, "run of 10", _GROWTH),
        _within("8 tools of 50 ms at once: over the 50", ours.fan, _ASYNCIO, _MS),
        _kib("memory of a run that waits in a tool", ours, 8),
        beside("1,000 runs started, CPU", ours.start, _ASYNCIO, _START, "0.1 s there"),
    ]
    others = {name: each for name, each in figures.engines.items() if name not in {ALONE, RUNTIME}}
    if others:
        name, peer = min(others.items(), key=lambda item: item[1].short.ratio)
        bars.append(
            against(
                "CPU of a step beside the best peer's",
                _whole(ours.short),
                (name, _whole(peer.short)),
                1,
            )
        )
    ranked = sorted(figures.engines.items(), key=lambda item: item[1].short.ratio)
    rows = [_limit_row(ours), *(_row(name, each, figures) for name, each in ranked)]
    notes = [
        (
            "A model that never waits asks for one trivial tool after another; each run is a "
            "conversation of its own, opened and ended in it. asyncio alone is a TaskGroup with a "
            "timeout for each step and nothing else. CPU time is that of the whole process. Ours in "
            "a runtime makes each answer and each tool use a call on the call path, counted in the "
            "metrics, with its moves of state kept; the session alone has a model and a tool that "
            "are asked directly."
        ),
        (
            "Every engine has a process of its own, peers an environment of their own, where asyncio "
            "is timed beside it: compare by the ratio. Peers do less of it: fewer rounds. Tracing "
            "and telemetry are off. Memory is what Python traced; importing is over a bare "
            "interpreter. Starting 1,000 runs is CPU time, as nothing waits there; of peers it is ten times that of 100. Wall times are "
            "judged by the best round; the table has their medians."
        ),
        (
            f"This machine: asyncio {time(ours.short.limit)} a step, "
            f"{ours.short.limit / _ASYNCIO_NS:.1f} times the 13 us of the machine of the bars."
        ),
        *(f"Failed: {name}: {why}" for name, why in figures.failed.items()),
    ]
    columns = [
        "engine", "CPU a step, of 10", "x asyncio", "of 200", "x its own of 10",
        "8 tools: over 50 ms", "KiB a run", "CPU to start 1,000", "import",
    ]  # fmt: skip
    return Section(title, bars, [Table(columns, rows)], notes)


def _whole(timed: Timed) -> Timed:
    """All rounds as one with their ratio: engines that are measured apart have not as many."""
    return Timed([timed.median], [timed.median / timed.ratio])


def _limit_row(ours: Contest) -> list[str]:
    return [
        "asyncio alone", time(ours.short.limit), "1.0", "", "", time(ours.fan.limit),
        f"{ours.traced_limit / _KIB:.1f}", time(ours.start.limit), "",
    ]  # fmt: skip


def _row(name: str, each: Contest, figures: Figures) -> list[str]:
    return [
        name, time(each.short.median), f"{each.short.ratio:.1f}", time(each.long.median),
        f"{each.growth.ratio:.2f}", time(each.fan.median), f"{each.traced / _KIB:.1f}",
        time(each.start.median), f"{figures.import_ms[name]:.0f} ms",
    ]  # fmt: skip


def _promises(title: str, data: Any) -> Section:
    figures = msgspec.convert(data, Figures)
    idle, eager = figures.idle, figures.eager
    bars = [
        _within("a step kept on disk, wall", figures.durable, "one commit of SQLite", _MS),
        at_most(
            "a tool starts after its arguments close in the stream", eager.median_ns, _MS, time
        ),
        at_most("wake-ups of the loop, 100 idle sessions, 2 s", idle.wakes, 0, counted),
        at_most("CPU of that, over none", max(0, idle.cpu_ns - idle.empty_cpu_ns), _MS, time),
    ]
    notes = [
        (
            "A step kept on disk is an answer and a tool that may not run twice: it begins when that, "
            "and all that came before it, is in the journal, and the session goes on when its end "
            "is. The commit is one of bare SQLite, set up as there."
        ),
        (
            f"Of {eager.times} tools that started while the answer still came in, one in twenty took "
            f"longer than {time(eager.p95_ns)}. A runtime without sessions wakes "
            f"{counted(idle.empty_wakes)} times in 2 s."
        ),
    ]
    return Section(title, bars, notes=notes)


def _within(what: str, ours: Timed, limit: str, most_ns: float) -> Bar:
    """Judged as it is in the best round, as wall time is that of all that the machine does; shown
    beside its limit."""
    return Bar(
        what, time(min(ours.ns)), f"{limit} {time(min(ours.limit_ns))}", f"{ours.ratio:.2f}",
        f"at most {time(most_ns)}", min(ours.ns) <= most_ns,
    )  # fmt: skip


def _kib(what: str, ours: Contest, most: float) -> Bar:
    """Judged as it is; shown beside its limit."""
    size, limit = ours.traced / _KIB, ours.traced_limit / _KIB
    return Bar(
        what, f"{size:.1f} KiB", f"{_ASYNCIO} {limit:.1f} KiB", f"{size / limit:.2f}",
        f"at most {most:.0f} KiB", size <= most,
    )  # fmt: skip


def write(results: Results, command: str, path: Path = REPORT) -> list[Section]:
    """Writes the report and, beside it, the figures it was made of."""
    parts = sections(results)
    verdicts.write(TITLE, results, parts, command, path)
    return parts
