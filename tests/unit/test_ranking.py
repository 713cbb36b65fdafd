"""Scores and rankings of agents."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.metrics import ranking
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Figures, Snapshot
from paceline.metrics.ranking import balanced_score, rank, rows, seed_score
from paceline.testing.virtual_time import VirtualClock


def collector_of(**agents: tuple[int, int, float]) -> MetricsCollector:
    """Agents with so many successes, failures, and seconds a call."""
    collector = MetricsCollector(clock=VirtualClock())
    for name, (successes, failures, seconds) in agents.items():
        for number in range(successes + failures):
            collector.record_execution(name, seconds, number < successes)
    return collector


def figures_of(successes: int, failures: int, seconds: float) -> Figures:
    return collector_of(a=(successes, failures, seconds)).series("a").read().ever


def names(snapshot: Snapshot, **options: object) -> list[str]:
    return [each.agent for each in rank(snapshot, **options)]  # type: ignore[arg-type]


@given(
    successes=st.integers(0, 50),
    failures=st.integers(0, 50),
    milliseconds=st.integers(0, 100_000),
)
def test_the_seed_score(successes: int, failures: int, milliseconds: int) -> None:
    """It is the success rate times 1 / (mean time in seconds + 1), and 0 without calls. (S0-18)"""
    score = seed_score(figures_of(successes, failures, milliseconds / 1_000))
    calls = successes + failures
    rate = successes / calls if calls else 0.0
    mean_s = milliseconds / 1_000 if calls else 0.0
    assert score == pytest.approx(rate * 1 / (mean_s + 1))


def test_the_number_decides_and_not_its_text() -> None:
    """Agents whose scores look the same with three decimals are in the order of the numbers. (S0-18)"""
    snapshot = collector_of(a=(10, 0, 0.0003), b=(10, 0, 0.0002), c=(10, 0, 0.0001)).snapshot()
    ranks = rank(snapshot, score=seed_score, min_calls=0)
    assert [(row["agent"], row["score"]) for row in rows(ranks)] == [
        ("c", "1.000"),
        ("b", "1.000"),
        ("a", "1.000"),
    ]


@pytest.mark.parametrize("score", [seed_score, balanced_score])
def test_ties_are_in_alphabetical_order(score: ranking.Score) -> None:
    """Equal scores come by name, whoever was called first. (S0-18)"""
    snapshot = collector_of(c=(30, 0, 1.0), a=(30, 0, 1.0), b=(30, 0, 1.0)).snapshot()
    assert names(snapshot, score=score) == ["a", "b", "c"]


def test_one_lucky_call_does_not_rank_first() -> None:
    """With few calls an agent ranks behind those with enough, however good they were. (S0-18)"""
    collector = collector_of(proven=(990, 10, 0.1), lucky=(1, 0, 0.001))
    ranks = rank(collector.snapshot())
    assert [(each.agent, each.enough) for each in ranks] == [("proven", True), ("lucky", False)]
    assert names(collector.snapshot(), min_calls=0) == ["proven", "lucky"]
    assert names(collector.snapshot(), score=seed_score, min_calls=0) == ["lucky", "proven"]


def test_the_tail_counts_and_not_the_mean() -> None:
    """Of two agents with the same mean the one with the shorter p95 is ahead. (S0-18, S0-70)"""
    collector = collector_of(steady=(100, 0, 0.5))
    for number in range(100):
        collector.record_execution("uneven", 4.6 if number < 10 else 0.4 / 9, True)
    assert names(collector.snapshot()) == ["steady", "uneven"]


def test_failing_fast_is_not_being_fast() -> None:
    """Quick failures do not make an agent faster. (S0-18)"""
    collector = collector_of(a=(50, 0, 1.0), b=(50, 0, 1.0))
    for _ in range(50):
        collector.record_execution("b", 0.0, False)
    first, second = rank(collector.snapshot())
    assert (first.agent, second.agent) == ("a", "b")
    assert first.p95_s == second.p95_s == 1.0


def test_cost_counts() -> None:
    """Of two agents that are as good and fast the cheaper one is ahead. (S0-18, S0-26)"""
    collector = MetricsCollector(clock=VirtualClock())
    for _ in range(30):
        collector.record_execution("dear", 0.1, True, cost_usd=0.02)
        collector.record_execution("inexpensive", 0.1, True, cost_usd=0.01)
    ranks = rank(collector.snapshot())
    assert [each.agent for each in ranks] == ["inexpensive", "dear"]
    assert ranks[0].cost_per_success_usd == pytest.approx(0.01)


@given(
    successes=st.integers(0, 60), failures=st.integers(0, 60), milliseconds=st.integers(1, 10_000)
)
def test_the_balanced_score_is_sensible(successes: int, failures: int, milliseconds: int) -> None:
    """It lies from 0 to 1; a success more, a failure less or less time never lower it."""
    seconds = milliseconds / 1_000
    score = balanced_score(figures_of(successes, failures, seconds))
    assert 0 <= score <= 1
    assert balanced_score(figures_of(successes + 1, failures, seconds)) >= score
    assert balanced_score(figures_of(successes, max(0, failures - 1), seconds)) >= score
    assert balanced_score(figures_of(successes, failures, seconds / 2)) >= score


def test_a_ranking_of_the_last_hour() -> None:
    """A window can be ranked: what was long ago does not count in it. (S0-18, S0-71)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    for _ in range(30):
        collector.record_execution("a", 0.1, False)
        collector.record_execution("b", 0.1, True)
    clock.advance(6 * 3_600)
    for _ in range(30):
        collector.record_execution("a", 0.1, True)
        collector.record_execution("b", 0.1, False)
    assert names(collector.snapshot(), window="1h") == ["a", "b"]


def test_who_never_answered_has_no_rank() -> None:
    """Agents without an answered call are in no ranking."""
    collector = collector_of(a=(1, 0, 1.0))
    collector.record_execution("b", 1.0, False, "CancelledError")
    assert names(collector.snapshot()) == ["a"]


@pytest.mark.parametrize(
    ("name", "bug", "check"),
    [
        ("_p95_s", ranking._mean_s, test_the_tail_counts_and_not_the_mean),
        ("_USD", 1e30, test_cost_counts),
    ],
)
def test_the_tests_notice(
    name: str, bug: object, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded bugs in the score, the mean for the p95 and money that is nothing, make a test above
    fail."""
    monkeypatch.setattr(ranking, name, bug)
    with pytest.raises(AssertionError):
        check()


def test_the_tests_notice_too_few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were one call enough, the test above would fail."""
    options = {"score": seed_score, "window": None, "min_calls": 1}
    monkeypatch.setattr(ranking.rank, "__kwdefaults__", options)
    with pytest.raises(AssertionError):
        test_one_lucky_call_does_not_rank_first()
