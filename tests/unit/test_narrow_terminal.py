"""Paragraphs and tables on a terminal with little room."""

import io
import re
import sys

import pytest

from paceline.cli.output import paragraph, table

WORDS = (
    "launching ahead would have hidden 12% of the wait for tools, for 0.1 calls with --read-only "
    * 3
)
ROWS = [
    ("launched in vain for a call that reads", "0.00", "2,200 calls that change nothing at all"),
    ("hits", "94.0%", "200 calls that change nothing"),
]


class Tty(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("columns", "width"), [("200", 80), ("60", 60), ("33", 33), ("4", 20)])
def test_a_paragraph_fits(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are broken where the terminal ends, at 80 columns at most, and never within an option."""
    monkeypatch.setenv("COLUMNS", columns)
    lines = paragraph(WORDS, "1. ")
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) > width - 13
    assert [each[:3] for each in lines] == ["1. ", *["   "] * (len(lines) - 1)]
    assert " ".join("".join(each[3:] + " " for each in lines).split()) == WORDS.strip()
    assert sum("--read-only" in each for each in lines) == 3


@pytest.mark.parametrize(("columns", "widest"), [(120, 90), (70, 70), (60, 60), (30, 58)])
def test_a_table_gives_way_where_it_may(
    columns: int, widest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be cut is cut as far as the terminal needs, but not to nothing; what is to be whole is
    whole on every terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", out := Tty())
    table(["what", "figure", "of"], ROWS, whole=["what", "figure"])
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()]
    assert len(lines) == 3
    assert all(row[0] in line and row[1] in line for row, line in zip(ROWS, lines[1:], strict=True))
    assert widest - 6 <= max(map(len, lines)) <= widest
    assert ("change nothing at all" in lines[1]) is (columns == 120)
