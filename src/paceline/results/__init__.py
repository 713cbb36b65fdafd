"""What a runtime has cached: looking at it, taking it away, making it ahead."""

from paceline.results.ahead import Ahead, WarmCall, WarmReport
from paceline.results.results import Results
from paceline.results.shelves import OpenedResult, Order, ResultStats, StoredResult, TierStats

__all__ = [
    "Ahead",
    "OpenedResult",
    "Order",
    "ResultStats",
    "Results",
    "StoredResult",
    "TierStats",
    "WarmCall",
    "WarmReport",
]
