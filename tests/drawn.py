"""What stands on a terminal after text with the few escape codes that we write was sent to it."""

import re

from rich.cells import cell_len

__all__ = ["drawn"]

_PIECE = re.compile(r"\x1b\[(?:\?\d+[hl]|\d*(?:;\d+)*m|(\d*)([A-Za-z]))|(.)", re.DOTALL)
_MOVES = {"A": (-1, 0), "C": (0, 1), "D": (0, -1)}
"""Lines and columns; other codes are written by nobody."""


def drawn(text: str, width: int = 80) -> list[str]:
    """Its lines, without the empty ones below."""
    cells: dict[tuple[int, int], str] = {}
    line = column = 0
    for number, code, character in _PIECE.findall(text.replace("\r\n", "\n")):
        if code in ("J", "K"):
            cells = {
                place: cell for place, cell in cells.items() if _stays(place, (line, column), code)
            }
        elif code:
            down, right = _MOVES[code]
            line = max(0, line + down * int(number or 1))
            column = max(0, min(width - 1, column + right * int(number or 1)))
        elif character == "\n":
            line, column = line + 1, 0
        elif character in ("\r", "\b"):
            column = 0 if character == "\r" else max(0, column - 1)
        elif character:
            wide = cell_len(character)
            if column + wide > width:
                line, column = line + 1, 0
            for cell in range(wide):
                cells[line, column + cell] = "" if cell else character
            column += wide
    last = max((place[0] for place in cells), default=-1)
    return [
        "".join(cells.get((row, at), " ") for at in range(width)).rstrip()
        for row in range(last + 1)
    ]


def _stays(place: tuple[int, int], cursor: tuple[int, int], code: str) -> bool:
    """Whether what stands there is not erased."""
    return place < cursor or (code == "K" and place[0] > cursor[0])
