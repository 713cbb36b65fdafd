"""Which agent does best: scores of figures, and the order they make. Pure."""

from collections.abc import Callable
from typing import Final

import msgspec

from paceline.metrics.figures import Figures, Snapshot, together

__all__ = ["MIN_CALLS", "Rank", "Score", "balanced_score", "rank", "rows", "seed_score"]

Score = Callable[[Figures], float]
"""The higher, the better."""

MIN_CALLS: Final = 20
"""With fewer answered calls an agent ranks behind those that have as many."""

_NS_PER_S: Final = 1e9
_P95_S: Final = 0.5
_USD: Final = 0.01


class Rank(msgspec.Struct, frozen=True):
    """An agent's place; times in seconds, None where there is no data.

    `enough` is whether there were calls enough to judge by; `success_low` is the lower bound of
    the success rate, with a confidence of 95 %; `p95_s` is that of successes.
    """

    agent: str
    score: float
    enough: bool
    calls: int
    success_rate: float | None
    success_low: float | None
    avg_s: float | None
    p95_s: float | None
    cost_per_success_usd: float | None


def seed_score(figures: Figures) -> float:
    """Success rate times 1 / (mean time in seconds + 1); 0 without an answered call."""
    mean_s = _mean_s(figures)
    if mean_s is None or figures.success_rate is None:
        return 0.0
    return figures.success_rate * (1 / (mean_s + 1))


def balanced_score(figures: Figures) -> float:
    """What success is certain, how long nearly all take, and what a success costs; 0 to 1.

    The lower bound of the success rate (Wilson, 95 %) times a / (a + p95) times b / (b + cost of
    a success), where a = 0.5 s is a p95 that halves the score, as b = 0.01 USD is a cost that
    does. 0 without a success.
    """
    interval, p95_s = figures.success_interval, _p95_s(figures)
    if interval is None or p95_s is None:
        return 0.0
    cost_usd = figures.cost_per_success_usd or 0.0
    return interval.low * (_P95_S / (_P95_S + p95_s)) * (_USD / (_USD + cost_usd))


def rank(
    snapshot: Snapshot,
    *,
    score: Score = balanced_score,
    window: str | None = None,
    min_calls: int = MIN_CALLS,
) -> tuple[Rank, ...]:
    """The agents that answered, the best first; equal scores in alphabetical order.

    `window` is one of a snapshot's, such as `1h`; all time if left out. Those with fewer than
    `min_calls` answered calls come last, because a lucky one proves nothing.
    """
    ranks: list[Rank] = []
    for name, series in snapshot.agents.items():
        figures = series.ever if window is None else series.windows[window]
        if figures.answered:
            ranks.append(_rank(name, figures, score, min_calls))
    return tuple(sorted(ranks, key=lambda each: (not each.enough, -each.score, each.agent)))


def rows(ranks: tuple[Rank, ...]) -> list[dict[str, str]]:
    """The ranking as text, in the form of old: four columns."""
    return [
        {
            "agent": each.agent,
            "score": f"{each.score:.3f}",
            "success_rate": f"{each.success_rate or 0:.1%}",
            "avg_time": f"{each.avg_s or 0:.2f}s",
        }
        for each in ranks
    ]


def _rank(name: str, figures: Figures, score: Score, min_calls: int) -> Rank:
    interval = figures.success_interval
    return Rank(
        name,
        score(figures),
        figures.answered >= min_calls,
        figures.answered,
        figures.success_rate,
        None if interval is None else interval.low,
        _mean_s(figures),
        _p95_s(figures),
        figures.cost_per_success_usd,
    )


def _mean_s(figures: Figures) -> float | None:
    mean_ns = figures.total.mean
    return None if mean_ns is None else mean_ns / _NS_PER_S


def _p95_s(figures: Figures) -> float | None:
    p95_ns = together([figures.hit, figures.fresh]).quantile(0.95)
    return None if p95_ns is None else p95_ns / _NS_PER_S
