"""The screen of `paceline top`: a look at the board as lines of text. Pure.

Columns of little use give way where there is no room for them; rows that have none are counted. No
line is wider than the screen, also where characters are two columns wide.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from rich.cells import cell_len, set_cell_size

from paceline.cli.board import SLOTS, Look, Row, Sort
from paceline.metrics.profile.waterfall import duration

__all__ = [
    "ASCII",
    "BLOCKS",
    "KEYS",
    "Line",
    "Marks",
    "Shape",
    "ago",
    "clipped",
    "frame",
    "help_lines",
    "said",
]


class Line(NamedTuple):
    """A line, and what it is: `title`, `head`, `bad`, `dim` or nothing special."""

    text: str
    style: str = ""


class Marks(msgspec.Struct, frozen=True):
    """What is drawn with: the steps of a curve, and the mark of a cut."""

    steps: str
    cut: str


BLOCKS: Final = Marks("▁▂▃▄▅▆▇█", "…")
ASCII: Final = Marks("_.-=+*%#", "~")

KEYS: Final[Mapping[str, Sort]] = {
    "c": Sort.CALLS,
    "s": Sort.SLOWEST,
    "e": Sort.ERRORS,
    "$": Sort.COST,
    "n": Sort.NAME,
}
_HELP: Final = (
    "c  most calls first        s  slowest first (p95)",
    "e  most failures first     $  most expensive first",
    "n  by name                 w  next window: 1m, 5m, 1h, 24h",
    "?  this help               q  quit, as does Ctrl-C",
    "",
    "/s: calls a second over the last minute; all else is of the window.",
    "p50, p95, max: time executing, of calls that were executed and succeeded.",
    "hit: share answered without an execution of their own.",
    "err, t/o, rej: failed, timed out, refused before anything ran.",
    "time: share of the time that all agents spent executing.",
    "The curve: calls over the window, each row by its own highest.",
)
_FOOTER: Final = "sort: c s e $ n   w window   ? help   q quit"


class Shape(msgspec.Struct, frozen=True):
    """The room there is. Without a `height` everything is shown; `keys` is whether any are read."""

    width: int = 80
    height: int | None = None
    marks: Marks = BLOCKS
    keys: bool = False


class _Column(msgspec.Struct, frozen=True):
    title: str
    width: int
    rank: int
    """The lower, the sooner it is shown."""
    text: Callable[[Row, Look], str]


_LEAST_NAME: Final = 12
_WIDEST_NAME: Final = 40
_COLUMNS: Final[tuple[_Column, ...]] = (
    _Column("/s", 5, 3, lambda row, _: _rate(row.per_s)),
    _Column("calls", 5, 0, lambda row, _: _count(row.calls)),
    _Column("p50", 7, 5, lambda row, _: _time(row.p50_ns)),
    _Column("p95", 7, 1, lambda row, _: _time(row.p95_ns)),
    _Column("max", 7, 10, lambda row, _: _time(row.max_ns)),
    _Column("hit", 4, 4, lambda row, _: _share(row.hit_rate)),
    _Column("err", 4, 2, lambda row, _: _count(row.errors)),
    _Column("t/o", 4, 6, lambda row, _: _count(row.timeouts)),
    _Column("rej", 4, 11, lambda row, _: _count(row.rejected)),
    _Column("time", 4, 7, lambda row, _: _share(row.share)),
    _Column("cost", 7, 9, lambda row, _: _money(row.cost_usd)),
    _Column("last", 4, 12, lambda row, look: ago(look.at_ns - row.last_ns)),
)
_CURVE_RANK: Final = 8
_CURVE: Final = SLOTS // 3
"""The narrowest curve; it is as wide as slots are, or half, or a third of it."""
_LISTED: Final = 5
"""Rows of a section below the agents; it is left out where it could not have a title and one."""
_LEAST_ROWS: Final = 8
"""Rows that agents have, if they need them, before anything is shown below."""
_NOTE: Final = 4
"""Lines of a note."""
_FAILING: Final = 0.05
_SORTED_BY: Final = {
    Sort.CALLS: "calls",
    Sort.SLOWEST: "p95",
    Sort.ERRORS: "err",
    Sort.COST: "cost",
    Sort.NAME: "agent",
}
"""The column of each order, which has its title in capitals."""


def frame(
    look: Look,
    shape: Shape,
    *,
    up_ns: int,
    notes: Sequence[str] = (),
    inputs: Mapping[str, str] | None = None,
) -> list[Line]:
    """The lines of one screen. `up_ns` is how long it has been looked at, `notes` what is to be
    said of the history, `inputs` what slow calls were asked, by their ids."""
    head = [Line(text, "title") for text in _wrapped(_title(look, up_ns), shape.width)]
    head += [Line(text) for text in _wrapped(_summary(look.total), shape.width)]
    head += [Line(text, "bad") for note in notes for text in said(note, shape)]
    foot = [Line(_FOOTER, "dim")] if shape.keys else []
    sections = [
        ("slowest of the last minute", _slow(look, shape, inputs or {})),
        ("latest errors", _troubles(look, shape)),
    ]
    room = None if shape.height is None else max(0, shape.height - len(head) - len(foot) - 2)
    below = _below(sections, look, room)
    rows = None if room is None else room - len(below)
    lines = [*head, Line(""), *_table(look, shape, rows), *below]
    if shape.height is not None and foot:
        lines = lines[: shape.height - 1]
        lines += [Line("")] * (shape.height - 1 - len(lines))
    cut = [Line(clipped(line.text, shape), line.style) for line in [*lines, *foot]]
    return cut[: shape.height]


def help_lines(shape: Shape) -> list[Line]:
    """What keys and columns mean."""
    lines = [Line("paceline top", "title"), Line(""), *map(Line, _HELP)]
    lines += [Line(""), Line("any key: back", "dim")]
    return [Line(clipped(line.text, shape), line.style) for line in lines][: shape.height]


def clipped(text: str, shape: Shape) -> str:
    """On one line, within the width, and with nothing that moves a cursor."""
    text = _shown(text, shape.marks).rstrip()
    return _fit(text, shape.width, shape.marks).rstrip()


def _title(look: Look, up_ns: int) -> list[str]:
    agents = f"{look.agents:,} agent{'' if look.agents == 1 else 's'}"
    return [
        "paceline top",
        f"up {ago(up_ns)}",
        f"last {look.window}",
        agents,
        f"by {look.sort}",
    ]


def _summary(total: Row) -> Iterator[str]:
    yield f"{_rate(total.per_s)}/s"
    yield f"calls {_count(total.calls)}"
    yield f"hit {_share(total.hit_rate)}"
    for word, count in (
        ("errors", total.errors), ("timeouts", total.timeouts), ("rejected", total.rejected)
    ):  # fmt: skip
        if count or word == "errors":
            yield f"{word} {_count(count)}"
    yield f"p50 {_time(total.p50_ns)}"
    yield f"p95 {_time(total.p95_ns)}"
    if total.tokens_in or total.tokens_out:
        yield f"tokens {_count(total.tokens_in)} in {_count(total.tokens_out)} out"
    if total.cost_usd:
        yield f"cost {_money(total.cost_usd)}"


def said(note: str, shape: Shape) -> list[str]:
    """A note in as many lines as it needs, but not too many."""
    return _wrapped(_shown(note, shape.marks).split(), shape.width, " ")[:_NOTE]


def _wrapped(parts: Iterable[str], width: int, between: str = "  ") -> list[str]:
    """The parts in as few lines as they fit in."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}{between}{part}" if lines else part
        if lines and cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _table(look: Look, shape: Shape, room: int | None) -> Iterator[Line]:
    """The agents: a heading, as many rows as there is room for, and how many more there are."""
    shown = len(look.rows) if room is None else max(0, min(len(look.rows), room))
    if shown < look.agents and room is not None and shown == room:
        shown = max(0, shown - 1)
    columns, name, curve = _layout(look, shape.width)
    if look.rows:
        titles = ["agent".ljust(name), *[column.title.rjust(column.width) for column in columns]]
        order = _SORTED_BY[look.sort]
        titles = [title.upper() if title.strip() == order else title for title in titles]
        yield Line(" ".join([*titles, *([f"last {look.window}"[:curve]] if curve else [])]), "head")
    for row in look.rows[:shown]:
        cells = [column.text(row, look).rjust(column.width) for column in columns]
        drawn = [_curve(row.curve, curve, shape.marks)] if curve else []
        label = _fit(_shown(row.name, shape.marks), name, shape.marks)
        failing = bool(row.calls) and row.failed / row.calls >= _FAILING
        yield Line(" ".join([label, *cells, *drawn]), "bad" if failing else "")
    if shown < look.agents:
        yield Line(f"and {look.agents - shown:,} more", "dim")


def _layout(look: Look, width: int) -> tuple[list[_Column], int, int]:
    """The columns there is room for, and the widths of names and curves."""
    longest = max([cell_len(row.name) for row in look.rows], default=0)
    name = min(max(longest, _LEAST_NAME), _WIDEST_NAME)
    least = min(name, max(_LEAST_NAME, width // 5))
    room = width - least
    order = _SORTED_BY[look.sort]
    ranked = [
        (-1 if column.title == order else column.rank, column.title, column.width)
        for column in _COLUMNS
        if column.title != "cost" or look.total.cost_usd
    ]
    chosen: set[str] = set()
    curve = 0
    for _, title, wide in sorted([*ranked, (_CURVE_RANK, "", _CURVE)]):
        if room <= wide:
            break
        room -= wide + 1
        if title:
            chosen.add(title)
        else:
            curve = wide
    more = min(room, name - least)
    room -= more
    if curve:
        curve = max(each for each in (SLOTS // 3, SLOTS // 2, SLOTS) if each <= curve + room)
    return [column for column in _COLUMNS if column.title in chosen], least + more, curve


def _below(
    sections: Sequence[tuple[str, Sequence[str]]], look: Look, room: int | None
) -> list[Line]:
    """What stands below the agents, who have at least half of the room if they need it."""
    wanted = [len(entries) for _, entries in sections]
    if room is None:
        given = [min(_LISTED, count) for count in wanted]
    else:
        given = _dealt(wanted, room - min(look.agents, max((room + 1) // 2, _LEAST_ROWS)))
    lines: list[Line] = []
    for (name, entries), count in zip(sections, given, strict=True):
        if count:
            lines += [Line(""), Line(name, "head"), *map(Line, entries[:count])]
    return lines


def _dealt(wanted: Sequence[int], room: int) -> list[int]:
    """How many rows each section gets: in turn, one after the other, the first two lines of each
    being a blank one and its title."""
    given = [0 for _ in wanted]
    dealt = True
    while dealt:
        dealt = False
        for at, most in enumerate(wanted):
            cost = 1 if given[at] else 3
            if given[at] < min(most, _LISTED) and room >= cost:
                given[at] += 1
                room -= cost
                dealt = True
    return given


def _slow(look: Look, shape: Shape, inputs: Mapping[str, str]) -> list[str]:
    name = _names([entry.name for entry in look.slow], shape)
    return [
        f"{ago(look.at_ns - entry.at_ns):>4} {_time(entry.took_ns):>7}"
        f" {entry.category or entry.source:<10} {name(entry.name)}  {inputs.get(entry.id, '')}"
        for entry in look.slow[:_LISTED]
    ]


def _troubles(look: Look, shape: Shape) -> list[str]:
    name = _names([entry.name for entry in look.troubles], shape)
    return [
        f"{ago(look.at_ns - entry.at_ns):>4} {f'{_count(entry.count)}x' if entry.count > 1 else '':>7}"
        f" {entry.category:<10} {name(entry.name)}  {entry.message}"
        for entry in look.troubles[:_LISTED]
    ]


def _names(names: Sequence[str], shape: Shape) -> Callable[[str], str]:
    """Fits names into a column, which leaves most of a line to what stands after it."""
    longest = max([cell_len(_shown(name, shape.marks)) for name in names], default=0)
    width = min(longest, max(_LEAST_NAME, shape.width // 4))
    return lambda name: _fit(_shown(name, shape.marks), width, shape.marks)


def _curve(counts: Sequence[int], width: int, marks: Marks) -> str:
    """A curve of so many columns, scaled to its highest; nothing where nothing was."""
    if not width:
        return ""
    each = len(counts) // width
    sums = [sum(counts[at : at + each]) for at in range(0, each * width, each)]
    highest = max(sums)
    last = len(marks.steps) - 1
    return "".join([marks.steps[round(last * n / highest)] if n else " " for n in sums])


def _shown(text: str, marks: Marks) -> str:
    """On one line, with nothing in it that moves a cursor, in characters that can be drawn."""
    text = "".join([c if c.isprintable() else " " for c in text])
    return text.encode("ascii", "backslashreplace").decode() if marks is ASCII else text


def _fit(text: str, width: int, marks: Marks) -> str:
    """The text in exactly so many columns, marked if it is cut."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + marks.cut if width > 1 else marks.cut[:width]


def _rate(per_s: float) -> str:
    if per_s >= 99.95:  # noqa: PLR2004 (three figures show)
        return _count(round(per_s))
    return "0" if not per_s else f"{per_s:.1f}" if per_s >= 9.995 else f"{per_s:.2f}"  # noqa: PLR2004


def _count(number: int) -> str:
    """A number in at most four characters, below a thousand millions of millions."""
    if number < 1_000:  # noqa: PLR2004 (then it is short enough)
        return str(number)
    value = float(number)
    for unit in "kMGT":
        value /= 1_000
        if value < 9.95:  # noqa: PLR2004 (two figures, or three)
            return f"{value:.1f}{unit}"
        if value < 999.5:  # noqa: PLR2004
            return f"{value:.0f}{unit}"
    return f"{float(number):.0e}"


def _share(share: float | None) -> str:
    if share is None:
        return "-"
    if 0 < share < 0.005:  # noqa: PLR2004 (it would be shown as none)
        return "<1%"
    return f"{share:.0%}"


def _time(ns: float | None) -> str:
    return "-" if ns is None else duration(round(ns))


def _money(usd: float) -> str:
    if not usd:
        return "-"
    if usd >= 1_000:  # noqa: PLR2004 (as above)
        return f"${_count(round(usd))}"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"


def ago(ns: int) -> str:
    """How long ago, in at most four characters."""
    seconds = max(0, ns) // 1_000_000_000
    for unit, size, most in (("s", 1, 100), ("m", 60, 100), ("h", 3_600, 100)):
        if seconds < most * size:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86_400}d"
