"""`paceline stats` and `paceline history`: what calls did so far."""

from datetime import UTC, datetime
from typing import Final

import msgspec

from paceline.cli.output import OK, json_line, line, table
from paceline.cli.place import Place
from paceline.cli.recording import empty_history, warn_of_gaps
from paceline.cli.replay import replay
from paceline.errors import UsageError
from paceline.history.record import Record
from paceline.history.sqlite import SqliteReader
from paceline.metrics.figures import Snapshot
from paceline.metrics.report import Sort, data, report, verbose

__all__ = ["Filter", "Shown", "history", "stats", "watched"]

_MS: Final = 1e6
_HERE: Final = "local:"
"""How processes begin that have done a call themselves; what follows is the id of the process."""
_SHOWN: Final = 80
"""Characters of an input or message that a table shows."""


class _Message(msgspec.Struct):
    """Of what a model was asked, as far as it is shown."""

    content: object = None


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls to show; `call` is an id or the beginning of one."""

    call: str | None = None
    agent: str | None = None
    user: str | None = None
    errors: bool = False
    limit: int = 20


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Which statistics to show, and how."""

    in_full: bool = False
    as_json: bool = False
    agents: list[str] | None = None
    sort: Sort = "name"
    limit: int | None = None


def stats(place: Place, shown: Shown) -> int:
    """The statistics of all calls in the history."""
    snapshot = replay(SqliteReader(place.home.history)).snapshot()
    if snapshot.series:
        warn_of_gaps(place)
    else:
        empty_history(place)
    if shown.as_json:
        json_line(data(snapshot))
        return OK
    line(_text(snapshot, shown))
    return OK


def watched(place: Place, shown: Shown, every_s: float) -> int:
    """The same, refreshed in place every so many seconds (0: as often as is usual); see `top`.
    Raises UsageError for JSON, which cannot be."""
    from paceline.cli.live import watch_stats  # noqa: PLC0415 (only a view needs a terminal)

    if shown.as_json:
        raise UsageError("--json cannot be watched", next_step="Leave out --watch, or --json.")
    return watch_stats(place, lambda snapshot: _text(snapshot, shown), every_s)


def _text(snapshot: Snapshot, shown: Shown) -> str:
    text = verbose if shown.in_full else report
    return text(snapshot, sort=shown.sort, agents=shown.agents, limit=shown.limit)


def history(place: Place, wanted: Filter, *, as_json: bool) -> int:
    """Past calls, the newest first; or one in full."""
    records = _records(place, wanted)
    if wanted.call:
        json_line(records[0]) if as_json else _show(records[0])
        return OK
    empty = "no calls match"
    if records:
        warn_of_gaps(place)
    elif not (wanted.agent or wanted.user or wanted.errors):
        empty = empty_history(place)
    if as_json:
        for record in records:
            json_line(record)
        return OK
    columns = ["id", "when", "agent", "user", "source", "ms", "result", "input"]
    rows = [_row(record) for record in records]
    instances = [_instance(record) for record in records]
    if any(instances):
        columns.insert(3, "instance")
        for row, instance in zip(rows, instances, strict=True):
            row.insert(3, instance or "-")
    if wanted.errors:
        columns.append("why")
        for row, record in zip(rows, records, strict=True):
            row.append(_cut(record.message or ""))
    whole = ("id", "when", "agent", "instance", "source", "ms", "result")
    table(columns, rows, empty=empty, whole=whole)
    return OK


def _records(place: Place, wanted: Filter) -> list[Record]:
    store = SqliteReader(place.home.history)
    if wanted.call:
        return [store.get(wanted.call)]
    return store.query(
        name=wanted.agent, user=wanted.user, errors_only=wanted.errors, limit=wanted.limit
    )


def _row(record: Record) -> list[str]:
    return [
        record.id,
        _when(record),
        record.name,
        record.user or "-",
        record.source,
        f"{record.total_ns / _MS:,.2f}",
        record.category or _answer(record),
        _cut(_input(record)),
    ]


def _instance(record: Record) -> str:
    """The instance that did it; nothing for what was done where it was called."""
    return "" if record.instance.startswith(_HERE) else record.instance


def _answer(record: Record) -> str:
    return "ok" if record.instead_of is None else f"fallback: {record.instead_of}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _input(record: Record) -> str:
    """What was asked: the query alone where that is all, the newest of messages, else the
    arguments."""
    if record.input is None:
        return f"#{record.input_hash}" if record.input_hash else ""
    arguments = msgspec.json.decode(record.input, type=dict[str, object])
    if list(arguments) == ["query"]:
        return str(arguments["query"])
    return _newest(arguments.get("messages")) or record.input


def _newest(messages: object) -> str:
    """The text of the last message, without line breaks; nothing if there is none."""
    try:
        told = msgspec.convert(messages, list[_Message])
    except msgspec.ValidationError:
        return ""
    content = told[-1].content if told else None
    return " ".join(content.split()) if isinstance(content, str) else ""


def _show(record: Record) -> None:
    fields = msgspec.structs.asdict(record)
    for name in ("queue_ns", "execute_ns", "total_ns"):
        fields[name.replace("_ns", "_ms")] = f"{fields.pop(name) / _MS:.3f}"
    fields["at"] = _when(record)
    del fields["at_ns"]
    table(
        ("field", "value"),
        [(name, str(value)) for name, value in fields.items() if value is not None],
    )


def _when(record: Record) -> str:
    at = datetime.fromtimestamp(record.at_ns / 1e9, UTC).astimezone()
    return at.isoformat(sep=" ", timespec="seconds")
