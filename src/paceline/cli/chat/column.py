"""Where a terminal's cursor is after text was written. Pure."""

from typing import Final

from rich.cells import cell_len

__all__ = ["place_after"]

_TAB: Final = 8


def place_after(text: str, column: int, width: int) -> tuple[int, int]:
    """How many rows further down the cursor is after this text, which began in `column`, on a terminal
    of so many columns, and the column there; `width` itself where the line is full and the next
    character begins another."""
    rows = -1
    for line in text.split("\n"):
        rows, column = rows + 1, column if rows < 0 else 0
        for character in line:
            if character == "\t":
                column = min((column // _TAB + 1) * _TAB, width - 1)
                continue
            cells = cell_len(character)
            if column + cells > width:
                rows, column = rows + 1, 0
            column += cells
    return rows, column
