"""The report on the metrics: verdicts by ratio, every candidate shown."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.__main__ import GROUPS
from bench.metrics import AWAIT, BUSY, SAMPLES, TRACKED, Figures
from bench.metrics_report import sections, write
from bench.recorders import CELL, OWN, PEERS
from bench.timing import Timed
from bench.verdicts import missed


def _timed(ns: float, factor: float = 1.0) -> Timed:
    """Beside an `await` of 57 ns."""
    return Timed([ns * factor], [57 * factor])


def _every(ns: float, factor: float = 1.0) -> dict[str, Timed]:
    """The same for each number of samples."""
    return dict.fromkeys(map(str, SAMPLES), _timed(ns, factor))


def figures(factor: float = 1.0) -> dict[str, Any]:
    """Of a machine that is slower by a factor; all bars are met."""
    every = _every(300, factor)
    return {
        "metrics": msgspec.to_builtins(
            Figures(
                rounds=3,
                record={AWAIT: _every(57, factor)} | dict.fromkeys([*OWN, *PEERS], every),
                worst_error=dict.fromkeys([CELL, *PEERS], 0.007),
                merge_us=dict.fromkeys(PEERS, 50.0),
                tracked={TRACKED: _timed(800, factor)},
                threads={CELL: 0.9},
                own_bytes={"sketch of a million values at full range": 13_000, BUSY: 28_000},
                bytes=dict.fromkeys(PEERS, 9_000.0),
                failed={},
            )
        )
    }


@pytest.mark.parametrize("factor", [0.5, 1, 4])
def test_costs_are_judged_by_ratio(factor: float) -> None:
    """A slower machine changes no verdict on the cost of a record or a tracked call."""
    assert missed(sections(figures(factor))) == []


@pytest.mark.parametrize(
    ("field", "key", "wrong"),
    [
        ("record", CELL, msgspec.to_builtins(_every(401))),
        ("worst_error", CELL, 0.0101),
        ("tracked", TRACKED, msgspec.to_builtins(_timed(1_060))),
        ("threads", CELL, 0.69),
        ("own_bytes", "sketch of a million values at full range", 31_000),
        ("own_bytes", BUSY, 31_000),
    ],
)
def test_what_is_over_its_bar_is_missed(field: str, key: str, wrong: Any) -> None:
    """A figure over its bar is a missed bar."""
    results = figures()
    results["metrics"][field][key] = wrong
    assert missed(sections(results))


def test_the_report_shows_every_candidate(tmp_path: Path) -> None:
    """The report has a row for ours and each peer, and the figures are kept beside it."""
    write(figures(), "paceline bench metrics", tmp_path / "metrics.md")
    text = (tmp_path / "metrics.md").read_text("utf-8")
    assert all(name in text for name in [*OWN, *PEERS])
    assert "Figures: `metrics.json`" in text
    assert "8 of 8 bars met" in text
    assert msgspec.json.decode((tmp_path / "metrics.json").read_bytes())["metrics"] == (
        msgspec.to_builtins(figures()["metrics"])
    )


def test_what_did_not_run_is_said() -> None:
    """A benchmark that failed leaves its reason in the report."""
    parts = sections({"metrics": {"error": "no peers"}})
    assert [part.notes for part in parts] == [["Not measured: no peers."]] * 2
    assert GROUPS["metrics"] == ("metrics",)
