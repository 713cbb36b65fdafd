"""`paceline profile RUN --against OTHER`: what changed from one run to another."""

from collections.abc import Callable
from typing import Final

from paceline.cli.comparison_options import Wish
from paceline.cli.output import FAILED, OK, json_line, line, table
from paceline.cli.place import Place
from paceline.cli.profile import Wanted, read_run
from paceline.errors import UsageError
from paceline.history.sqlite import SqliteReader
from paceline.metrics.profile.compare import Change, Comparison, Worse, compare, growth, worse
from paceline.metrics.profile.totals import Total
from paceline.metrics.profile.waterfall import duration

__all__ = ["compare_runs"]

_COLUMNS: Final = ["name", "calls", "was", "total", "was", "self", "was", "p95", "was", "change"]
_NONE: Final = "-"


def compare_runs(place: Place, run: str, wish: Wish, wanted: Wanted) -> int:
    """Shows `run` beside the one it is to be compared with; 1 if a limit is given and exceeded.

    Raises UsageError where one of them is not there, both are the same, nothing is given to
    compare with, or another form of one run was asked for, too.
    """
    if wish.against is None:
        raise UsageError(
            "--fail-above is about two runs", next_step="Add --against with the run to compare to."
        )
    if wanted.folded or wanted.chrome is not None:
        raise UsageError(
            "--folded and --chrome show one run, --against compares two",
            next_step="Ask for one of them at a time.",
        )
    reader = SqliteReader(place.home.history)
    found = compare(read_run(reader, wish.against), read_run(reader, run))
    slower = [] if wish.fail_above is None else worse(found, wish.fail_above / 100)
    if wanted.as_json:
        asked = wish.fail_above is not None
        json_line({"version": 1, **_data(found), "worse": slower if asked else None})
    else:
        _show(found, wanted.names)
        for each in slower:
            line(_complaint(each, wish.fail_above or 0))
    return FAILED if slower else OK


def _data(found: Comparison) -> dict[str, object]:
    return {
        "run": found.after,
        "against": found.before,
        "total_ns": found.after_ns,
        "total_before_ns": found.before_ns,
        "change": found.whole,
        "names": [
            {"name": c.name, "before": c.before, "after": c.after, "change": c.p95}
            for c in found.names
        ],
    }


def _show(found: Comparison, names: int) -> None:
    line(f"run {found.after}  {duration(found.after_ns)}")
    line(
        f"against {found.before}  {duration(found.before_ns)}"
        f"  (the whole time {_percent(found.whole)})"
    )
    line()
    line("names by what their self time changed by; change: of p95")
    chosen = sorted(found.names, key=_moved)[:names]
    table(_COLUMNS, [_row(change) for change in chosen], whole=_COLUMNS[1:])


def _moved(change: Change) -> tuple[int, str]:
    was, is_now = (0 if total is None else total.self_ns for total in (change.before, change.after))
    return -abs(is_now - was), change.name


def _row(change: Change) -> list[str]:
    row = [change.name]
    for cell in _CELLS:
        row += [_NONE if t is None else cell(t) for t in (change.after, change.before)]
    if change.before is None or change.after is None:
        return [*row, "new" if change.before is None else "gone"]
    return [*row, _percent(change.p95)]


_CELLS: Final[tuple[Callable[[Total], str], ...]] = (
    lambda total: f"{total.calls:,}",
    lambda total: duration(total.total_ns),
    lambda total: duration(total.self_ns),
    lambda total: duration(total.p95_ns),
)


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{share:+.0%}"


def _complaint(each: Worse, limit: float) -> str:
    what = "the run" if each.name is None else f"p95 of {each.name}"
    change = _percent(growth(each.before_ns, each.after_ns))
    times = f"{duration(each.before_ns)} -> {duration(each.after_ns)}"
    return f"slower by more than {limit:g} %: {what}, {times} ({change})"
