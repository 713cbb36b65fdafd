"""Every strategy beside an oracle, in simulation: see `bench/scenarios.py` for the settings.

Nothing here depends on how fast the machine is. Runs are spread over two processes.
`python -m bench.balance` prints the figures.
"""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any, Final

import msgspec

from bench.llm_traces import FOLDER
from bench.other_policies import OTHERS
from bench.scenarios import HELD_OUT, ORACLE, SCENARIOS, Scenario, measure, named
from paceline.balance.strategy import LoadBalancingStrategy
from paceline.testing.simulation import Summary

__all__ = ["ABSENT", "KNOWN", "POLICIES", "Cell", "main", "run"]

ABSENT: Final = f"no recorded requests: {FOLDER} is not there"
SEEDS: Final = 2
KNOWN: Final = ", speeds known"
"""Ends the name of a policy whose weights are the true speeds."""
_BY_WEIGHT: Final = (LoadBalancingStrategy.WEIGHTED, LoadBalancingStrategy.SMOOTH_WEIGHTED)
POLICIES: Final = (
    ORACLE,
    *(name.value for name in LoadBalancingStrategy if name not in _BY_WEIGHT),
    *OTHERS,
    *(f"{name}{KNOWN}" for name in (LoadBalancingStrategy.LEAST_LOADED, *_BY_WEIGHT)),
)
"""Without known speeds those that go by weight are as good as blind: they are not run."""
_WORKERS: Final = 2
_ONE_SEED: Final = frozenset(POLICIES) - {ORACLE, LoadBalancingStrategy.LEARNED_WORK}


class Cell(msgspec.Struct, frozen=True):
    """One policy in one scenario; seconds, medians of the seeds. `ratio` is the mean over that of
    the oracle."""

    scenario: str
    policy: str
    held_out: bool
    p50_s: float
    p95_s: float
    p99_s: float
    mean_s: float
    first_p99_s: float
    hit_share: float
    failed: int
    ratio: float


class _Job(msgspec.Struct, frozen=True):
    scenario: str
    policy: str
    seed: int


def run(seeds: int = SEEDS, *, first: int | None = None) -> dict[str, object]:
    """Cells of every scenario, or of the `first` so many, and every policy.

    What is judged is run with several seeds, the rest with one.
    """
    if not FOLDER.is_dir():
        return {"absent": ABSENT}
    scenarios = tuple(SCENARIOS.values())[:first]
    jobs = list(_jobs(scenarios, seeds))
    spawn = multiprocessing.get_context("spawn")  # as threads of whoever runs this may be under way
    with ProcessPoolExecutor(_WORKERS, mp_context=spawn) as pool:
        found = dict(zip(jobs, pool.map(_measured, jobs), strict=True))
    return {"seeds": seeds, "cells": list(_cells(scenarios, found))}


def _jobs(scenarios: Iterable[Scenario], seeds: int) -> Iterator[_Job]:
    for scenario in scenarios:
        for policy in POLICIES:
            for seed in range(1 if policy in _ONE_SEED else seeds):
                yield _Job(scenario.name, policy, 1 + seed)


def _measured(job: _Job) -> Summary:
    name = job.policy.removesuffix(KNOWN)
    known = name != job.policy
    return measure(job.scenario, named(name), seed=job.seed, speeds_known=known)


def _cells(scenarios: Sequence[Scenario], found: dict[_Job, Summary]) -> Iterator[dict[str, Any]]:
    held_out = frozenset(each.name for each in HELD_OUT)
    for scenario in scenarios:
        by_policy: dict[str, list[Summary]] = {}
        for job, summary in found.items():
            if job.scenario == scenario.name:
                by_policy.setdefault(job.policy, []).append(summary)
        best_s = median([each.mean_s for each in by_policy[ORACLE]])
        for policy, summaries in by_policy.items():
            mean_s = median([each.mean_s for each in summaries])
            cell = Cell(
                scenario.name,
                policy,
                scenario.name in held_out,
                median([each.p50_s for each in summaries]),
                median([each.p95_s for each in summaries]),
                median([each.p99_s for each in summaries]),
                mean_s,
                median([each.first_p99_s for each in summaries]),
                median([each.hit_share for each in summaries]),
                max(each.failed for each in summaries),
                mean_s / best_s,
            )
            yield msgspec.to_builtins(cell)


def main() -> None:
    """Prints the figures."""
    print(msgspec.json.format(msgspec.json.encode(run())).decode())


if __name__ == "__main__":
    main()
