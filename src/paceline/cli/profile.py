"""`paceline profile`: what a run spent its time on, and what held it up."""

import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from paceline.cli.cache import counted
from paceline.cli.output import OK, json_line, line, note, table
from paceline.cli.place import Place
from paceline.cli.recording import empty_history
from paceline.cli.replay import span_of_record
from paceline.errors import Category, PacelineError, UsageError
from paceline.history.sqlite import SqliteReader
from paceline.metrics.profile.chrome import chrome_trace
from paceline.metrics.profile.folded import folded
from paceline.metrics.profile.profile import Profile, data, profile
from paceline.metrics.profile.totals import AllRuns, Rank, Total, ranked
from paceline.metrics.profile.waterfall import (
    ASCII,
    BLOCKS,
    NARROWEST,
    Marks,
    duration,
    waterfall,
)

__all__ = ["LAST", "Wanted", "profile_names", "profile_run", "read_run"]

LAST: Final = "last"
"""In place of an id: the run of the call that ended last."""
_LATEST: Final = 10
_SEARCHED: Final = 1_000


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to show of a run, and how.

    `folded` prints folded stacks, `chrome` is a file for a trace that Perfetto opens; `by` ranks
    the table of names, of which there are at most `names`, and `calls` bounds the waterfall.
    """

    folded: bool = False
    chrome: Path | None = None
    as_json: bool = False
    by: Rank = Rank.PATH
    names: int = 10
    calls: int = 100


def profile_run(place: Place, run: str, wanted: Wanted) -> int:
    """Shows one run; `run` is its id or that of a call in it, the beginning of one, or `last`.

    Raises UsageError when there is no such run, after listing the latest.
    """
    found = read_run(SqliteReader(place.home.history), run)
    if wanted.chrome is not None:
        _write(wanted.chrome, found)
    if wanted.as_json:
        json_line(data(found))
    elif wanted.folded:
        for stack in folded(found.tree):
            line(stack)
    elif wanted.chrome is None:
        _show(found, wanted)
    return OK


def profile_names(place: Place, wanted: Wanted, since_ns: int | None = None) -> int:
    """Shows what the calls of each name came to, over all runs that are recorded."""
    every = AllRuns()
    for records in SqliteReader(place.home.history).runs(since_ns=since_ns):
        every.add([span_of_record(record) for record in records])
    if not (every.runs or wanted.as_json):
        line(empty_history(place))
        return OK
    by = Rank.SELF if wanted.by is Rank.PATH else wanted.by
    chosen = ranked(every.totals(), by, wanted.names)
    if wanted.as_json:
        json_line({"version": 1, "runs": every.runs, "names": chosen})
        return OK
    if every.runs:
        line(f"{counted(every.runs, 'run')}, names by {_RANKS[by]}")
        line()
    _table(chosen, None)
    return OK


_RANKS: Final = {
    Rank.PATH: "time on the critical path",
    Rank.TOTAL: "total time",
    Rank.SELF: "self time",
    Rank.P95: "p95",
}


def read_run(reader: SqliteReader, run: str) -> Profile:
    """The profile of a run that is recorded, by its id, or as `profile_run` takes it.

    Raises UsageError when there is no such run, after listing the latest.
    """
    if run == LAST:
        latest = reader.query(limit=1)
        if not latest:
            raise UsageError(
                "no calls are recorded yet",
                next_step="Make one with `paceline run`.",
                category=Category.NOT_FOUND,
            )
        run = latest[0].id
    try:
        records = reader.trace(run)
    except UsageError as exc:
        if exc.category is Category.NOT_FOUND:
            _list(reader)
        raise
    return profile(span_of_record(record) for record in records)


def _list(reader: SqliteReader) -> None:
    """The latest runs, beside the result."""
    names: dict[str, str] = {}
    for record in reader.query(limit=_SEARCHED):
        if record.run not in names or record.parent is None:
            names[record.run] = f"{record.name}  {duration(record.total_ns)}"
    if names:
        note("the latest runs:")
    for run, text in list(names.items())[:_LATEST]:
        note(f"  {run}  {text}")


def _write(path: Path, found: Profile) -> None:
    try:
        path.write_bytes(msgspec.json.encode(chrome_trace(found)) + b"\n")
    except OSError as exc:
        raise PacelineError(
            f"{path} cannot be written: {exc.strerror or exc}",
            next_step="Name a file in a directory that you can write to.",
        ) from exc
    note(f"{path} is written: open it with Perfetto, or chrome://tracing")


def _show(found: Profile, wanted: Wanted) -> None:
    width = shutil.get_terminal_size((NARROWEST, 0)).columns
    for text in waterfall(found, width, _marks(), wanted.calls):
        line(text)
    line()
    line(f"names by {_RANKS[wanted.by]}")
    _table(ranked(found.totals, wanted.by, wanted.names), found)


def _marks() -> Marks:
    """Blocks where the output can show them."""
    with contextlib.suppress(UnicodeEncodeError, LookupError):
        BLOCKS.all.encode(sys.stdout.encoding or "ascii")
        return BLOCKS
    return ASCII


def _table(chosen: Sequence[Total], found: Profile | None) -> None:
    columns = ["name", "calls", "total", "self", "p95", "queue"]
    rows = [
        [
            total.name,
            f"{total.calls:,}",
            *map(duration, (total.total_ns, total.self_ns, total.p95_ns, total.queue_ns)),
        ]
        for total in chosen
    ]
    root = None if found is None else found.root
    if root is not None:
        columns += ["path", "share", "without"]
        rows = [
            row + _of_run(total, root.span.took_ns) for row, total in zip(rows, chosen, strict=True)
        ]
    table(columns, rows, whole=columns[1:])
    if root is not None:
        line("without: the least the run could take, were the calls of a name answered at once")


def _of_run(total: Total, took_ns: int) -> list[str]:
    share = f"{total.path_ns / took_ns:.0%}" if took_ns else "-"
    best = "-" if total.at_best_ns is None else duration(total.at_best_ns)
    return [duration(total.path_ns), share, best]
