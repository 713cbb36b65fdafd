"""`paceline history`, on a history of its own."""

import errno
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paceline.cli.board import Board, Sort
from paceline.cli.place import Place
from paceline.cli.profile import Wanted, profile_names
from paceline.cli.record import Filter, Shown, history, stats
from paceline.errors import Category, StorageError
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


def test_the_newest_message_is_the_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what a model was asked the newest message is shown, on one line; where that is no text all
    of it is. (S2-41)"""
    place = Place({}, tmp_path, home=tmp_path / "state")
    place.home.path.mkdir()
    system = {"role": "system", "content": "be kind"}
    said = {"role": "user", "content": "how many\nbolts?"}
    asked: list[Any] = [[system, said], [said, {"role": "assistant", "content": None}], "none", []]
    write(
        place.home.history,
        [
            row(str(at), at * S, kind="model", input=json.dumps({"messages": one, "seed": 1}))
            for at, one in enumerate(asked, 1)
        ],
    )
    history(place, Filter(), as_json=False)
    *_, whole, newest = capsys.readouterr().out.splitlines()
    assert newest.endswith("how many bolts?")
    assert '"messages"' in whole


def test_top_has_the_error_behind_a_fallback() -> None:
    """The errors that fallbacks answered in place of are among those that `top` shows. (S0-81)"""
    board = Board("5m")
    call = row("1", 300 * S, instead_of=Category.NETWORK, message="down")
    board.add([call], 301 * S)
    look = board.look(301 * S, Sort.CALLS)
    assert [(one.category, one.message) for one in look.troubles] == [(Category.NETWORK, "down")]
    assert look.total.errors == 0


def test_the_instance_is_a_column_where_there_are_some(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which instance did a call is shown where one of those listed has one, and else nobody is told
    of instances; for machines it is there. (S0-66)"""
    write(place.home.history, [row("4", 4 * S, instance="local:17")])
    history(place, Filter(), as_json=False)
    assert "INSTANCE" not in capsys.readouterr().out
    write(place.home.history, [row("5", 5 * S, name="far", instance="http-2")])
    history(place, Filter(limit=2), as_json=False)
    shown = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    [column] = [n for n, cell in enumerate(filter(None, shown[0])) if cell.strip() == "INSTANCE"]
    cells = [[cell.strip() for cell in line if cell][column] for line in shown[1:]]
    assert cells == ["http-2", "-"]
    history(place, Filter(limit=1), as_json=True)
    assert json.loads(capsys.readouterr().out)["instance"] == "http-2"


def test_a_history_that_cannot_be_written_is_not_an_empty_one() -> None:
    """Where nothing is recorded as nothing can be, that is said, and what to do. (S0-30)"""
    place = Place({}, Path("/"), home=Path("/proc/paceline"))  # where nobody can make a file
    commands = [
        partial(history, place, Filter(), as_json=False),
        partial(history, place, Filter(), as_json=True),
        partial(stats, place, Shown()),
        partial(profile_names, place, Wanted()),
    ]
    for command in commands:
        with pytest.raises(StorageError, match="/proc/paceline cannot be written") as caught:
            command()
        assert "PACELINE_HOME" in caught.value.next_step


def test_a_full_disk_is_told_of_beside_what_there_is(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of before are shown on a disk that is full since, with a note that those of now are not
    among them. (S0-30)"""

    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("paceline.cli.recording.TemporaryFile", full)
    commands = [
        partial(history, place, Filter(), as_json=True),
        partial(stats, place, Shown(as_json=True)),
    ]
    for command in commands:
        assert command() == 0
        said = capsys.readouterr()
        assert json.loads(said.out.splitlines()[0])
        assert "No space left on device. Free some space on the disk of " in said.err


def test_who_keeps_no_history_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the settings turn the history off, it is not called empty. (S0-30)"""
    place = Place({"PACELINE_HISTORY_ENABLED": "false"}, tmp_path, home=tmp_path / "state")
    history(place, Filter(), as_json=False)
    assert "not recorded: history.enabled" in capsys.readouterr().out
    history(Place({}, tmp_path, home=tmp_path / "state"), Filter(), as_json=False)
    assert "no calls yet" in capsys.readouterr().out
