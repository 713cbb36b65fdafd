"""The rules that hold where nobody wrote others. Pure data.

Bounds and targets are those of Paceline's performance targets. They resolve a step on the good
side of the bound, not at the target: what is well enough to end an alert need not be perfect.
"""

from typing import Final

from paceline.metrics.alerts.rules import Condition, Per, Rule, Severity

__all__ = ["DEFAULT_RULES"]

_ENOUGH: Final = 20
"""Calls in a window: one error in 20 is no more than 5 %."""

DEFAULT_RULES: Final = (
    Rule(
        name="LatencyHigh",
        conditions=(
            Condition(
                metric="p95_ms", window="5m", above=1_000.0, resolve=900.0, min_count=_ENOUGH
            ),
        ),
        for_s=120.0,
        keep_s=120.0,
        summary="Calls are slow.",
        target="95 % of calls within 500 ms",
    ),
    Rule(
        name="SuccessRateLow",
        conditions=(
            Condition(
                metric="success_rate", window="5m", below=0.95, resolve=0.96, min_count=_ENOUGH
            ),
        ),
        for_s=60.0,
        keep_s=120.0,
        severity=Severity.CRITICAL,
        summary="Calls fail.",
        target="more than 99 % succeed",
    ),
    Rule(
        name="CacheHitRateLow",
        conditions=(
            Condition(metric="cache_hit_rate", window="1h", below=0.5, resolve=0.55, min_count=100),
        ),
        for_s=600.0,
        keep_s=600.0,
        severity=Severity.INFO,
        summary="Few results come from the cache.",
        target="more than 80 % come from the cache",
    ),
    Rule(
        name="InstanceLoadHigh",
        conditions=(Condition(metric="load", above=0.8, resolve=0.7),),
        for_s=60.0,
        keep_s=60.0,
        per=Per.INSTANCE,
        summary="An instance is almost full.",
        target="load spread evenly, no instance above 80 %",
    ),
)
"""Latency, success and cache hits per agent, load per instance. The load is only known where
`Snapshot.loads` is filled; without it that rule sees nothing."""
