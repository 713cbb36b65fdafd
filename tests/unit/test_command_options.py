"""What the options of commands have in common."""

import pytest
import typer

from paceline.cli.options import is_time, seconds


@pytest.mark.parametrize(
    ("text", "is_s"), [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("30", 30)]
)
def test_times_have_units(text: str, is_s: float) -> None:
    """A time is a number and a unit, seconds if it has none, wherever a command takes one. (S1-60)"""
    assert seconds(text) == is_s
    assert is_time(text) == text
    assert is_time(None) is None


@pytest.mark.parametrize("text", ["", "-1d", "1w", "1.5h", "9999999999d", "\u0661d", "1d\n", " 1d"])
def test_other_times_are_refused(text: str) -> None:
    """What is no such time is an error of usage that says how to write one. (S1-60)"""
    with pytest.raises(typer.BadParameter, match="is no time; write 90s, 15m, 24h or 7d"):
        is_time(text)
