"""`paceline budget`: how far the budgets are used."""

from datetime import UTC, datetime

from paceline.balance.budget import Budget, budgets_of, usd
from paceline.balance.spending import Spending, Standing
from paceline.cli.output import OK, json_line, table
from paceline.cli.place import Place
from paceline.clock import Clock, SystemClock
from paceline.history.sqlite import SqliteReader

__all__ = ["budget"]


def budget(place: Place, *, as_json: bool, clock: Clock | None = None) -> int:
    """Each budget of days and months, and what the calls in the history have used of it."""
    spending = Spending(
        budgets_of(place.settings().budgets), clock or SystemClock(), tell=lambda _: None
    )
    if spending.since_ns is not None:
        for bill in SqliteReader(place.home.history).bills(spending.since_ns):
            spending.restore(bill)
    standings = spending.standings()
    if as_json:
        for standing in standings:
            json_line(_data(standing))
        return OK
    table(
        ("budget", "of", "used", "limit", "share", "until"),
        [_row(standing) for standing in standings],
        empty="no budgets of days or months; they are in [budgets] of the settings",
        whole=("budget", "of", "share"),
    )
    return OK


def _row(standing: Standing) -> tuple[str, ...]:
    budget, spent = standing.budget, standing.spent
    used = [
        *([f"${usd(spent.nano_usd):,.4f}"] if budget.limit_nano_usd is not None else []),
        *([f"{spent.tokens:,} tokens"] if budget.limit_tokens is not None else []),
    ]
    return (
        budget.name,
        _whose(standing),
        ", ".join(used),
        _limit(budget),
        f"{standing.share:.0%}",
        _until(standing),
    )


def _limit(budget: Budget) -> str:
    limits = [
        *([f"${usd(budget.limit_nano_usd):,.2f}"] if budget.limit_nano_usd is not None else []),
        *([f"{budget.limit_tokens:,} tokens"] if budget.limit_tokens is not None else []),
    ]
    return f"{', '.join(limits)} a {budget.window}"


def _whose(standing: Standing) -> str:
    return "all" if standing.budget.per == "all" else standing.whose or "-"


def _until(standing: Standing) -> str:
    if standing.resets_ns is None:
        return "-"
    at = datetime.fromtimestamp(standing.resets_ns // 1_000_000_000, UTC)
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _data(standing: Standing) -> dict[str, object]:
    budget, spent = standing.budget, standing.spent
    limit = budget.limit_nano_usd
    return {
        "budget": budget.name,
        "window": budget.window,
        "per": budget.per,
        "of": _whose(standing),
        "spent_usd": usd(spent.nano_usd),
        "spent_tokens": spent.tokens,
        "limit_usd": None if limit is None else usd(limit),
        "limit_tokens": budget.limit_tokens,
        "share": standing.share,
        "resets": None if standing.resets_ns is None else _until(standing),
    }
