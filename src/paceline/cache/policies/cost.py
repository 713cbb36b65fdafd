"""What a hit saves, in one unit."""

from typing import Final

from paceline.cache.entry import Entry

__all__ = ["LEAST_NS", "NS_PER_USD", "saved_ns"]

NS_PER_USD: Final = 100_000_000_000
"""A dollar weighs as much as 100 s of waiting: a cent for each second."""

LEAST_NS: Final = 1_000_000
"""Costs below a millisecond, and those nobody measured, count alike: there hits are what counts."""


def saved_ns(entry: Entry) -> float:
    """What computing this result again would cost, money as time, in nanoseconds."""
    terms = entry.terms
    if terms is None:
        return LEAST_NS
    return max(LEAST_NS, terms.about.cost_ns + terms.about.cost_usd * NS_PER_USD)
