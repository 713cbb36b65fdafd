"""The line that says what takes its time."""

import io
import sys

import pytest

from paceline.cli.ticking import ticking
from paceline.testing.virtual_time import VirtualClock


class Tty(io.StringIO):
    """A terminal that moves, or one that cannot."""

    def isatty(self) -> bool:
        return True


def test_nothing_is_written_where_it_could_not_be_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, and a terminal that cannot move its cursor, get no line that ticks; one that can is left
    without it. (S2-51)"""
    for out, environ, left in (
        (io.StringIO(), {"TERM": "xterm"}, ""),
        (Tty(), {"TERM": "dumb"}, ""),
        (Tty(), {"TERM": "xterm"}, "\r\x1b[K"),
    ):
        monkeypatch.setattr(sys, "stderr", out)
        with ticking("reading", VirtualClock(), environ) as far:
            far(0.5)
        assert out.getvalue() == left
