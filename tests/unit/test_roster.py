"""The roster: what operators want of instances, and how those stand, in a file of all processes."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from paceline.errors import Category, CorruptStoreError, StorageError
from paceline.roster import Roster, State, Status, Wish, WishKind
from paceline.roster import file as module
from paceline.roster.process import is_gone, pid_of, this_process
from paceline.testing.virtual_time import VirtualClock

pytestmark = pytest.mark.usefixtures("closed_rosters")

S = 1_000_000_000
UP = Status(agent="a", instance="one", state=State.UP, in_flight=1, capacity=5, limit=5)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def never(process: str) -> bool:
    return False


def roster(home: Path, clock: VirtualClock, process: str = "1:2:here") -> Roster:
    return Roster(home / "instances.sqlite", clock, process=process, gone=never)


def drained(clock: VirtualClock, instance: str = "one", until_s: int | None = None) -> Wish:
    at_ns = clock.wall_ns()
    until_ns = None if until_s is None else at_ns + until_s * S
    return Wish(
        agent="a",
        instance=instance,
        kind=WishKind.DRAINED,
        by="ada",
        at_ns=at_ns,
        until_ns=until_ns,
    )


def contents(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


# --- wishes


def test_wishes_outlive_who_had_them(tmp_path: Path, clock: VirtualClock) -> None:
    """What is wanted of an instance is seen by every process, also by those that begin later, until
    something else is wanted of it. (S0-59)"""
    first, second = roster(tmp_path, clock), roster(tmp_path, clock)
    first.wish(drained(clock))
    assert second.wishes() == first.wishes() == [drained(clock)]
    ejected = replace(drained(clock), kind=WishKind.EJECTED)
    first.wish(ejected)
    first.close()
    assert second.wishes() == first.wishes() == roster(tmp_path, clock).wishes() == [ejected]


def test_a_wish_ends_at_its_time(tmp_path: Path, clock: VirtualClock) -> None:
    """A wish with an end is not there from then on, and leaves the file with the next that is
    written."""
    it = roster(tmp_path, clock)
    it.wish(drained(clock, until_s=10))
    clock.advance(9.999)
    assert it.wishes()
    clock.advance(0.001)
    assert not it.wishes()
    assert contents(it.path, "wishes") == 1
    it.publish([UP])
    assert contents(it.path, "wishes") == 0


def test_a_wish_is_withdrawn_once(tmp_path: Path, clock: VirtualClock) -> None:
    """Taking a wish back returns it, leaves those about other instances, and the second time there
    is none."""
    it = roster(tmp_path, clock)
    it.wish(drained(clock))
    it.wish(drained(clock, "two"))
    assert it.withdraw("a", "one") == drained(clock)
    assert it.withdraw("a", "one") is None
    assert it.wishes() == [drained(clock, "two")]


def test_looking_makes_no_file(tmp_path: Path, clock: VirtualClock) -> None:
    """Where nothing was ever wanted or published, looking, taking back and leaving write nothing."""
    it = roster(tmp_path, clock)
    assert (it.wishes(), it.statuses(), it.withdraw("a", "one")) == ([], [], None)
    it.publish([])
    assert not list(tmp_path.iterdir())


# --- statuses


def test_processes_are_shown_side_by_side(tmp_path: Path, clock: VirtualClock) -> None:
    """The instances of all processes are shown, each with its process, as that said last; none
    of a process that has left. (S0-66)"""
    first, second = roster(tmp_path, clock, "1::"), roster(tmp_path, clock, "2::")
    first.publish([UP, replace(UP, instance="two")])
    second.publish([UP])
    full = replace(UP, state=State.FULL, in_flight=5, p95_ms=1.5, error_rate=0.25, circuit="closed")
    second.publish([full])
    assert first.statuses() == [
        replace(UP, process="1::"),
        replace(UP, instance="two", process="1::"),
        replace(full, process="2::"),
    ]
    first.publish([])
    assert first.statuses() == [replace(full, process="2::")]


@pytest.mark.parametrize("moved_s", [10.1, -10.1])
def test_what_is_not_renewed_is_not_believed(
    tmp_path: Path, clock: VirtualClock, moved_s: float
) -> None:
    """What a process said ten seconds ago is not shown, nor what is of a time to come since the
    clock was set back; and both go with the next that is written. (S0-66)"""
    old = roster(tmp_path, clock, "1::")
    old.publish([UP])
    clock.advance(moved_s - 0.2 if moved_s > 0 else moved_s + 0.2)
    assert old.statuses()
    clock.advance(0.2 if moved_s > 0 else -0.2)
    assert not old.statuses()
    assert contents(old.path, "processes") == 1
    roster(tmp_path, clock, "2::").publish([UP])
    assert contents(old.path, "processes") == 1


def test_what_has_ended_is_not_shown(tmp_path: Path, clock: VirtualClock) -> None:
    """The instances of a process that was killed are not shown from that moment on, and go with
    the next that is written. (S0-66)"""
    roster(tmp_path, clock, "1::").publish([UP])
    other = Roster(
        tmp_path / "instances.sqlite", clock, process="2::", gone=lambda process: process == "1::"
    )
    assert other.statuses() == []
    other.publish([UP])
    assert contents(other.path, "processes") == 1


# --- the file


def test_the_file_is_its_owners(tmp_path: Path, clock: VirtualClock) -> None:
    """Nobody but its owner reads or writes the roster."""
    it = roster(tmp_path / "home", clock)
    it.wish(drained(clock))
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "home").iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, clock: VirtualClock, when: str) -> None:
    """Damage is told once, the file is kept under another name, and the next call begins anew,
    whether it was there before or came while the file was in use."""
    it = roster(tmp_path, clock)
    it.wish(drained(clock))
    if when == "before":
        it.close()
        it.path.write_bytes(b"this is no database" * 100)
    else:
        with contextlib.closing(sqlite3.connect(it.path)) as db:
            db.execute("UPDATE wishes SET kind = 'painted'")
            db.commit()
    with pytest.raises(CorruptStoreError, match="moved aside") as caught:
        it.wishes()
    assert "once more" in caught.value.next_step
    assert (tmp_path / "instances.sqlite.damaged").exists()
    assert it.wishes() == []
    it.wish(drained(clock))
    assert it.wishes() == [drained(clock)]


def test_statuses_that_cannot_be_read_are_damage(tmp_path: Path, clock: VirtualClock) -> None:
    """Statuses in a form that is not ours raise a StorageError, and nothing of another kind."""
    it = roster(tmp_path, clock)
    it.publish([UP])
    with contextlib.closing(sqlite3.connect(it.path)) as db:
        db.execute("UPDATE processes SET statuses = '[{}]'")
        db.commit()
    with pytest.raises(CorruptStoreError, match="cannot be read"):
        it.statuses()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path, clock: VirtualClock) -> None:
    """A roster that a later version of Paceline made is neither changed nor moved."""
    it = roster(tmp_path, clock)
    it.wish(drained(clock))
    it.close()
    with contextlib.closing(sqlite3.connect(it.path)) as db:
        db.execute("PRAGMA user_version=2")
    before = it.path.read_bytes()
    with pytest.raises(CorruptStoreError, match="schema version 2"):
        it.wish(drained(clock, "two"))
    assert it.path.read_bytes() == before


def test_a_new_file_in_its_place_is_found(tmp_path: Path, clock: VirtualClock) -> None:
    """Who has the roster open sees what is written to the file that somebody put in its place."""
    it = roster(tmp_path, clock)
    it.wish(drained(clock))
    for file in tmp_path.iterdir():
        file.unlink()
    assert it.wishes() == []
    roster(tmp_path, clock).wish(drained(clock, "two"))
    assert it.wishes() == [drained(clock, "two")]


def test_a_file_that_is_held_raises_and_works_again(
    tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process holds the file, writing raises a transient error and changes nothing;
    afterwards it works."""
    monkeypatch.setattr(module, "_BUSY_MS", 1)
    it = roster(tmp_path, clock)
    it.wish(drained(clock))
    with contextlib.closing(sqlite3.connect(it.path)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError) as caught:
            it.wish(drained(clock, "two"))
        assert caught.value.category is Category.UNAVAILABLE
        assert it.wishes() == [drained(clock)]
    it.wish(drained(clock, "two"))
    assert len(it.wishes()) == 2


# --- processes


def test_a_process_is_told_from_all_others() -> None:
    """A process that runs is not gone, one that has ended is, also when its number was given to
    another; of one that is counted elsewhere nothing is said."""
    code = "from paceline.roster.process import *; print(this_process()); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as it:
        assert it.stdout is not None
        other = it.stdout.readline().strip()
        assert pid_of(other) == str(it.pid)
        assert not is_gone(other)
        it.kill()
        os.waitid(os.P_PID, it.pid, os.WEXITED | os.WNOWAIT)  # not yet reaped
        assert is_gone(other)
    assert is_gone(other)
    mine = this_process()
    pid, started, numbering = mine.split(":", 2)
    assert pid == str(os.getpid())
    assert not is_gone(mine)
    assert is_gone(f"{pid}:{int(started) + 1}:{numbering}")
    assert not is_gone(f"{pid}:{int(started) + 1}:elsewhere")
    assert not is_gone(f"{pid}::")
