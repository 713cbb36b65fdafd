"""What the command line shows: tables on a terminal, plain text in a pipe, one JSON on request."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TextIO

import msgspec

from paceline.errors import (
    CallCancelledError,
    Category,
    PacelineError,
    UsageError,
)

__all__ = [
    "FAILED",
    "OK",
    "REFUSED",
    "TIMED_OUT",
    "USAGE",
    "exit_code",
    "json_line",
    "line",
    "note",
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
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """One line beside the result, which a pipe does not get."""
    sys.stderr.write(f"{text}\n")


def problem(error: PacelineError) -> None:
    """An error, and what to do about it."""
    note(f"error: {error}\n  next: {error.next_step}")


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
    line(msgspec.json.encode(plain(value), enc_hook=str).decode())


def plain(value: object) -> object:
    """A value as plain data; bytes that are text become text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    try:
        return msgspec.to_builtins(value, enc_hook=str, str_keys=True)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    empty: str = "",
) -> None:
    """A table: drawn on a terminal, columns of text in a pipe."""
    out: TextIO = sys.stdout
    cells = [[_visible(cell) for cell in row] for row in rows]
    if not cells:
        out.write(f"{empty}\n" if empty else "")
        return
    show: Callable[[Sequence[str], list[list[str]], TextIO], None]
    show = _drawn if out.isatty() else _aligned
    show(columns, cells, out)


def _visible(text: str) -> str:
    """On one line, and with nothing in it that moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _drawn(columns: Sequence[str], rows: list[list[str]], out: TextIO) -> None:
    from rich.console import Console  # noqa: PLC0415 (only a terminal needs it)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawing = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawing.add_column(column, overflow="fold")
    for row in rows:
        drawing.add_row(*(Text(cell) for cell in row))
    Console(file=out, highlight=False).print(drawing)


def _aligned(columns: Sequence[str], rows: list[list[str]], out: TextIO) -> None:
    everything = [[column.upper() for column in columns], *rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    for row in everything:
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write(f"{text.rstrip()}\n")
