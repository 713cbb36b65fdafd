"""`paceline history`, on a history of its own."""

import json
from pathlib import Path

import pytest

from paceline.cli.board import Board, Sort
from paceline.cli.place import Place
from paceline.cli.record import Filter, history
from paceline.errors import Category
from tests.recorded import row, write

S = 1_000_000_000


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where a call succeeded, one failed, and one was answered by a fallback."""
    place = Place({}, tmp_path, home=tmp_path / "state")
    place.home.path.mkdir()
    late = {"message": "too late", "error_type": "paceline.errors.CallTimeoutError"}
    write(
        place.home.history,
        [
            row("1", 1 * S),
            row("2", 2 * S, category=Category.TIMEOUT, **late),
            row("3", 3 * S, instead_of=Category.TIMEOUT, **late),
        ],
    )
    return place


def test_a_fallback_is_seen(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A call that a fallback answered says so, and in place of what; it is not among the errors,
    and its message is there in full. (S0-81)"""
    history(place, Filter(), as_json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["category"], one["instead_of"]) for one in found] == [
        (None, "timeout"),
        ("timeout", None),
        (None, None),
    ]
    history(place, Filter(), as_json=False)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("5.00")[1].strip() for line in shown[1:]] == [
        "fallback: timeout",
        "timeout",
        "ok",
    ]
    history(place, Filter(call="3"), as_json=False)
    said = capsys.readouterr().out
    assert "too late" in said
    assert "instead_of" in said
    history(place, Filter(errors=True), as_json=True)
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ["2"]


def test_top_has_the_error_behind_a_fallback() -> None:
    """The errors that fallbacks answered in place of are among those that `top` shows. (S0-81)"""
    board = Board("5m")
    call = row("1", 300 * S, instead_of=Category.NETWORK, message="down")
    board.add([call], 301 * S)
    look = board.look(301 * S, Sort.CALLS)
    assert [(one.category, one.message) for one in look.troubles] == [(Category.NETWORK, "down")]
    assert look.total.errors == 0
