"""The report on balancing: verdicts on simulated means and on costs, every strategy shown."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import resilience
from bench.__main__ import GROUPS
from bench.balance import POLICIES, Cell
from bench.balance_report import sections, write
from bench.litellm_picks import STRATEGIES
from bench.picks import SIZES, Figures
from bench.scenarios import HELD_OUT, ORACLE, SCENARIOS
from bench.timing import Timed
from bench.verdicts import missed
from paceline.balance.strategy import LoadBalancingStrategy as Name

RATIOS = {ORACLE: 1.0, Name.LEARNED_WORK: 1.1, Name.LEAST_LOADED: 2.0}


def cell(scenario: str, policy: str, *, ratio: float | None = None, failed: int = 0) -> Any:
    """By default one that meets its bar."""
    ratio = RATIOS.get(policy, 3.0) if ratio is None else ratio
    held_out = scenario in {each.name for each in HELD_OUT}
    s = 10 * ratio
    return msgspec.to_builtins(
        Cell(scenario, policy, held_out, s, s, s, s, s, 0.5, failed, ratio)  # seconds are alike
    )


def timed(ns: float, factor: float = 1.0) -> Timed:
    return Timed([factor * ns] * 3, [factor * 57] * 3)


def figures(factor: float = 1.0) -> dict[str, Any]:
    """Of a machine that is slower by a factor; all bars are met."""

    def costs(ns: float) -> dict[str, Timed]:
        return {str(size): timed(ns, factor) for size in SIZES}

    return {
        "policies": {
            "seeds": 2,
            "cells": [cell(scenario, policy) for scenario in SCENARIOS for policy in POLICIES],
        },
        "picks": msgspec.to_builtins(
            Figures(
                rounds=3,
                plain={name.value: costs(2_900) for name in Name},
                told={name.value: costs(4_000) for name in Name},
                peers={name: costs(50_000) for name in STRATEGIES},
                failed={"another": "no such module"},
            )
        ),
        "resilience": msgspec.to_builtins(
            resilience.Figures(
                rounds=3,
                calls={
                    name: timed(29_000, factor)
                    for name in (resilience.BALANCER, resilience.RUNTIME, resilience.ALONE)
                },
            )
        ),
    }


@pytest.mark.parametrize("factor", [0.5, 1, 4])
def test_costs_are_judged_by_ratio(factor: float) -> None:
    """A slower machine changes no verdict on the cost of a choice (S0-83)."""
    assert missed(sections(figures(factor))) == []


@pytest.mark.parametrize(
    ("scenario", "policy", "worse"),
    [
        ("conversation x1.61", Name.LEARNED_WORK, {"ratio": 1.26}),
        ("agents 900", Name.LEARNED_WORK, {"ratio": 1.11}),
        ("held out: 16 servers", Name.LEARNED_WORK, {"ratio": 1.26}),
        ("held out: other agents", Name.LEARNED_WORK, {"ratio": 1.11}),
        ("code x5", Name.LEAST_LOADED, {"ratio": 1.09}),
        ("one fails fast: circuits, 2 retries", Name.PREQUAL, {"failed": 1}),
    ],
)
def test_what_is_over_its_bar_in_simulation_is_missed(
    scenario: str, policy: str, worse: dict[str, Any]
) -> None:
    """A mean too far from the oracle's, or over the least loaded's, or a request that failed, is a
    missed bar (S0-83)."""
    results = figures()
    cells = results["policies"]["cells"]
    place = next(
        number
        for number, each in enumerate(cells)
        if (each["scenario"], each["policy"]) == (scenario, policy)
    )
    cells[place] = cell(scenario, policy, **worse)
    assert len(missed(sections(results))) == 1


@pytest.mark.parametrize(
    ("name", "size", "ns"),
    [(Name.LEARNED_WORK, "8", 5_100), (Name.CACHE_AWARE, "100", 15_100),
     (Name.POWER_OF_TWO, "100", 3_100)],
)  # fmt: skip
def test_what_costs_too_much_is_missed(name: str, size: str, ns: float) -> None:
    """A dearer choice than its bar is a missed bar (S0-83)."""
    results = figures()
    results["picks"]["plain"][name][size] = msgspec.to_builtins(timed(ns))
    assert len(missed(sections(results))) == 1


def test_a_path_that_adds_too_much_is_missed() -> None:
    """More than 30 us added to a call by all that keeps it alive is a missed bar. (S0-68)"""
    results = figures()
    results["resilience"]["calls"][resilience.RUNTIME] = msgspec.to_builtins(timed(30_100))
    assert len(missed(sections(results))) == 1


def test_the_report_shows_every_strategy(tmp_path: Path) -> None:
    """The report has every strategy and peer, says what failed, and the figures are kept beside it
    (S0-83)."""
    write(figures(), "paceline bench balance", tmp_path / "balance.md")
    text = (tmp_path / "balance.md").read_text("utf-8")
    assert all(f"| {name} |" in text for name in (*POLICIES, *STRATEGIES))
    assert "Failed: another: no such module" in text
    kept = msgspec.json.decode((tmp_path / "balance.json").read_bytes())
    assert kept["picks"] == figures()["picks"]


def test_what_did_not_run_is_said() -> None:
    """A benchmark without its data leaves the reason in the report (S0-83)."""
    parts = sections({"policies": {"absent": "no recorded requests"}})
    assert [part.notes for part in parts] == [
        ["Not measured: no recorded requests."],
        ["Not measured: no recorded requests."],
        ["Not measured: it was not run."],
        ["Not measured: it was not run."],
    ]
    assert sections({}, only_run=True) == []
    assert GROUPS["balance"] == ("policies", "picks", "resilience")
