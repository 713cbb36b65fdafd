"""What the command line shows: tables on a terminal, plain text in a pipe, one JSON on request.

Values and errors of agents may hold anything. A pipe gets them as they are, a terminal nothing
that could move its cursor, and JSON what JSON can carry.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final, TextIO, cast

import msgspec

from paceline.errors import (
    CallCancelledError,
    Category,
    PacelineError,
    UsageError,
)
from paceline.hostexec.text import shorten

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "LONGEST_ERROR",
    "OK",
    "REFUSED",
    "TERMINATED",
    "TIMED_OUT",
    "USAGE",
    "as_text",
    "exit_code",
    "harmless",
    "json_line",
    "line",
    "note",
    "paragraph",
    "plain",
    "problem",
    "problem_data",
    "table",
]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
TIMED_OUT: Final = 4
INTERRUPTED: Final = 130
TERMINATED: Final = 143

LONGEST_ERROR: Final = 2_000
"""Characters of an error that are shown."""
_INTEGERS: Final = range(-(2**63), 2**64)
"""Those that JSON can carry here."""
_NARROW: Final = 24
_NARROWEST: Final = 8
"""Characters of a column that may be cut, on a terminal with too little room: those, and at least these."""
_BETWEEN: Final = 2
"""Characters between two columns."""
_WIDEST: Final = 80
_LEAST: Final = 20
"""Columns of a paragraph, at most and at least."""


def exit_code(error: PacelineError | None) -> int:
    """0 ok, 1 failed, 2 wrong usage, 3 refused by policy, 4 timed out, 130 interrupted."""
    if error is None:
        return OK
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, CallCancelledError):
        return INTERRUPTED
    return {Category.POLICY: REFUSED, Category.TIMEOUT: TIMED_OUT}.get(error.category, FAILED)


def line(text: str = "") -> None:
    """One line of result."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """One line beside the result, which a pipe does not get."""
    _write(sys.stderr, text)


def paragraph(text: str, head: str = "") -> list[str]:
    """The lines of a text that fit the terminal, 80 columns at most; all but the first stand below what
    follows the `head`."""
    columns = shutil.get_terminal_size((_WIDEST, 0)).columns
    width = max(_LEAST, min(_WIDEST, columns))
    return textwrap.wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )


def _write(out: TextIO, text: str) -> None:
    out.write(f"{harmless(text) if out.isatty() else text}\n")


def harmless(text: str) -> str:
    """What a terminal can be sent: what is not printable is written out, save the ends of lines and
    tabs."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def problem(error: PacelineError, what: str = "error") -> None:
    """An error, and what to do about it."""
    note(f"{what}: {shorten(as_text(error), LONGEST_ERROR)}\n  next: {error.next_step}")


def problem_data(error: PacelineError) -> dict[str, str]:
    """The same for machines."""
    return {
        "type": type(error).__name__,
        "category": error.category.value,
        "message": error.message,
        "next_step": error.next_step,
    }


def json_line(value: object) -> None:
    """One JSON object on one line. What JSON does not know is shown as text."""
    line(msgspec.json.encode(plain(value)).decode())


def plain(value: object) -> object:
    """A value as data that JSON can carry. What has no such form is its text; bytes that are text
    become text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    try:
        return _portable(msgspec.to_builtins(value, enc_hook=as_text, str_keys=True))
    except Exception:  # noqa: BLE001 (an agent's own class may do anything when it is looked at)
        return as_text(value)


def _portable(data: object) -> object:
    if isinstance(data, dict):
        items = cast("dict[object, object]", data).items()
        return {as_text(key): _portable(value) for key, value in items}
    if isinstance(data, list):
        return [_portable(part) for part in cast("list[object]", data)]
    if isinstance(data, str) or (isinstance(data, int) and data not in _INTEGERS):
        return as_text(data)
    return data


def as_text(value: object) -> str:
    """The text of any value, without what UTF-8 has no form for."""
    try:
        text = str(value)
    except Exception as exc:  # noqa: BLE001 (as above; a very long integer has no text either)
        text = f"<{type(value).__name__} without a text: {type(exc).__name__}>"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    empty: str = "",
    whole: Sequence[str] = (),
) -> None:
    """A table: drawn on a terminal, columns of text in a pipe.

    The columns named in `whole` are never broken, however narrow the terminal is; then the
    others are cut.
    """
    out: TextIO = sys.stdout
    cells = [[_visible(cell) for cell in row] for row in rows]
    if not cells:
        out.write(f"{empty}\n" if empty else "")
    elif out.isatty():
        _drawn(columns, cells, whole, out)
    else:
        _aligned(columns, cells, out)


def _visible(text: str) -> str:
    """On one line, and with nothing in it that moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _drawn(
    columns: Sequence[str], rows: list[list[str]], whole: Sequence[str], out: TextIO
) -> None:
    from rich.console import Console  # noqa: PLC0415 (only a terminal needs it)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=out, highlight=False)
    widths = [_width(n, column, rows, whole) for n, column in enumerate(columns)]
    narrow = bool(whole) and _across(widths) > console.width
    if narrow:
        cut = [n for n, column in enumerate(columns) if column not in whole]
        short = _across(widths) - console.width
        for n in sorted(cut, key=widths.__getitem__, reverse=True):
            less = min(short, max(0, widths[n] - _NARROWEST))
            widths[n] -= less
            short -= less
    least = _across(widths)
    drawing = Table(box=None, pad_edge=False, header_style="bold")
    for n, column in enumerate(columns):
        drawing.add_column(
            column,
            overflow="ellipsis" if narrow else "fold",
            no_wrap=narrow or column in whole,
            max_width=widths[n] if narrow else None,
        )
    for row in rows:
        drawing.add_row(*(Text(cell) for cell in row))
    if narrow:  # then the terminal breaks the lines, not we the words
        console.size = least, console.height
    console.print(drawing)


def _across(widths: Sequence[int]) -> int:
    """What columns of these widths take side by side."""
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def _width(n: int, column: str, rows: list[list[str]], whole: Sequence[str]) -> int:
    """The room that a column needs, or is given where there is too little."""
    longest = max(len(column), *(len(row[n]) for row in rows))
    return longest if column in whole else min(longest, _NARROW)


def _aligned(columns: Sequence[str], rows: list[list[str]], out: TextIO) -> None:
    everything = [[column.upper() for column in columns], *rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    for row in everything:
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write(f"{text.rstrip()}\n")
