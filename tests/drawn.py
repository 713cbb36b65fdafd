"""What stands on a terminal after text with the few escape codes that we write was sent to it."""

import re

__all__ = ["drawn"]

_PIECE = re.compile(r"\x1b\[(\d*)([A-Za-z])|(.)", re.DOTALL)


def drawn(text: str, width: int = 80) -> list[str]:
    """Its lines, without the empty ones below."""
    cells: dict[tuple[int, int], str] = {}
    line = column = 0
    for number, code, character in _PIECE.findall(text.replace("\r\n", "\n")):
        if code == "J":
            cells = {
                place: cell
                for place, cell in cells.items()
                if place[0] < line or (place[0] == line and place[1] < column)
            }
        elif code == "A":
            line = max(0, line - int(number or 1))
        elif code == "C":
            column = min(width - 1, column + int(number or 1))
        elif code:
            assert code == "m", f"nobody writes {code!r}"
        elif character == "\n":
            line, column = line + 1, 0
        elif character == "\r":
            column = 0
        else:
            if column == width:
                line, column = line + 1, 0
            cells[line, column] = character
            column += 1
    last = max((place[0] for place in cells), default=-1)
    return [
        "".join(cells.get((row, at), " ") for at in range(width)).rstrip()
        for row in range(last + 1)
    ]
