"""The report on the engine: verdicts beside asyncio alone, every engine shown."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.__main__ import GROUPS
from bench.engine import Figures
from bench.engine_contest import Figures as Contest
from bench.engine_paceline import ALONE, RUNTIME
from bench.engine_report import sections, write
from bench.engine_session import Eager, Idle
from bench.engine_task import Task, asked, nothing
from bench.timing import Timed
from bench.verdicts import missed

MS = 1e6
KIB = 1024


def timed(ns: float, limit_ns: float, factor: float = 1.0) -> Timed:
    """On a machine that is slower by a factor."""
    return Timed([factor * ns] * 3, [factor * limit_ns] * 3)


def contest(step_us: float = 39, *, factor: float = 1.0, rounds: int = 3) -> Contest:
    """By default one that meets its bars."""
    step_ns = 1e3 * factor * step_us
    return Contest(
        short=Timed([step_ns] * rounds, [factor * 13e3] * rounds),
        long=Timed([1.19 * step_ns] * rounds, [factor * 13e3] * rounds),
        fan=timed(0.9 * MS, 0.5 * MS),
        start=timed(99 * MS, 30 * MS, factor),
        traced=7.9 * KIB,
        traced_limit=4.6 * KIB,
    )


def figures(factor: float = 1.0) -> dict[str, Any]:
    """Of a machine that is slower by a factor; all bars are met."""
    engines = {
        ALONE: contest(10, factor=factor),
        RUNTIME: contest(factor=factor),
        "another": contest(133, factor=factor, rounds=1),
        "a third": contest(1_171, factor=factor),
    }
    return {
        "steps": msgspec.to_builtins(
            Figures(
                engines=engines,
                import_ms=dict.fromkeys(engines, 355.0),
                durable=timed(0.9 * MS, 20e3),
                eager=Eager(300, 0.3 * MS, 2 * MS),
                idle=Idle(0, 900_000, 0, 200_000),
                failed={"a fourth": "no such module"},
            )
        )
    }


@pytest.mark.parametrize("factor", [0.5, 1, 4])
def test_steps_are_judged_by_ratio(factor: float) -> None:
    """A slower machine changes no verdict on the CPU of a step or on starting runs (S2-60)."""
    assert missed(sections(figures(factor))) == []


@pytest.mark.parametrize(
    ("figure", "worse"),
    [
        ("short", timed(41e3, 13e3)),
        ("long", timed(1.21 * 39e3, 13e3)),
        ("fan", timed(1.1 * MS, 0.5 * MS)),
        ("start", timed(101 * MS, 30 * MS)),
        ("traced", 8.1 * KIB),
    ],
)
def test_a_run_that_costs_too_much_is_missed(figure: str, worse: object) -> None:
    """A step, a run of 200, tools at once, a start or a waiting run over its bar is a missed bar
    (S2-60)."""
    results = figures()
    results["steps"]["engines"][RUNTIME][figure] = msgspec.to_builtins(worse)
    assert len(missed(sections(results))) == 1


@pytest.mark.parametrize(
    ("figure", "worse"),
    [
        ("durable", timed(1.1 * MS, 20e3)),
        ("eager", Eager(300, 1.1 * MS, 2 * MS)),
        ("idle", Idle(1, 200_000, 0, 200_000)),
        ("idle", Idle(0, 1_300_000, 0, 200_000)),
    ],
)
def test_a_promise_that_is_not_kept_is_missed(figure: str, worse: object) -> None:
    """A slow step on disk, a late start of a tool, or work while nothing happens is a missed bar
    (S2-60)."""
    results = figures()
    results["steps"][figure] = msgspec.to_builtins(worse)
    assert len(missed(sections(results))) == 1


def test_the_best_round_of_wall_time_counts() -> None:
    """A wall time is judged by its best round: others are those of a busy machine (S2-60)."""
    results = figures()
    busy = Timed([9 * MS, 0.9 * MS, 5 * MS], [0.5 * MS] * 3)
    results["steps"]["engines"][RUNTIME]["fan"] = msgspec.to_builtins(busy)
    assert missed(sections(results)) == []


def test_the_best_peer_is_the_one_to_beat() -> None:
    """A step that costs more than that of the quickest peer is a missed bar (S2-60)."""
    results = figures()
    results["steps"]["engines"]["another"] = msgspec.to_builtins(contest(38))
    assert len(missed(sections(results))) == 1


def test_every_engine_and_every_failure_is_shown(tmp_path: Path) -> None:
    """The report is readable text with each engine, those that could not be measured, and the figures
    as data beside it (S2-60)."""
    results = figures()
    parts = write(results, "paceline bench engine", tmp_path / "engine.md")
    assert [part.title for part in parts] == [part.title for part in sections(results)]
    shown = (tmp_path / "engine.md").read_text()
    assert "Made by `paceline bench engine`" in shown
    assert all(name in shown for name in results["steps"]["engines"])
    assert "Failed: a fourth: no such module" in shown
    kept = msgspec.json.decode((tmp_path / "engine.json").read_bytes())
    assert kept["steps"] == results["steps"]
    assert set(results) == set(GROUPS["engine"])


def test_a_report_without_peers_has_no_bar_for_them() -> None:
    """Without peers nothing is judged beside them (S2-60)."""
    results = figures()
    for name in ("another", "a third"):
        del results["steps"]["engines"][name]
    judged = [bar.what for part in sections(results) for bar in part.bars]
    assert not any("peer" in what for what in judged)


def test_a_benchmark_that_failed_is_said() -> None:
    """What could not be measured is said in the report, and no bar is judged (S2-60)."""
    parts = sections({"steps": {"error": "KeyError: 'x'"}})
    assert [part.bars for part in parts] == [[], []]
    assert "KeyError" in parts[0].notes[0]


def test_the_model_asks_for_all_tools_of_a_task_once() -> None:
    """The tools of a task are asked for in order, so many in each answer, and then no more (S2-60)."""
    task = Task(3, 2, nothing)
    assert [list(asked(task, answered)) for answered in (0, 2, 4, 6)] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [],
    ]
