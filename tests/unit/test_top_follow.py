"""A history file that is read as it grows."""

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from paceline.errors import CorruptStoreError, StorageError
from paceline.history.follow import Follower
from paceline.history.record import Record
from paceline.history.sqlite import SqliteReader
from tests.live_calls import NOW, S
from tests.recorded import row, write


def ids(rows: list[Record]) -> list[str]:
    return [each.id for each in rows]


def test_each_look_brings_what_is_new_once(tmp_path: Path) -> None:
    """Whatever is written between looks, in whatever order of time, is brought by one of them,
    once."""
    rng, path, follower = (
        random.Random(3),
        tmp_path / "history.db",
        Follower(tmp_path / "history.db"),
    )
    written: list[str] = []
    found: list[str] = []
    for turn in range(20):
        fresh = [row(f"{turn}-{n}", NOW - rng.randrange(300) * S) for n in range(rng.randrange(4))]
        write(path, fresh)
        written += [each.id for each in fresh]
        found += ids(follower.look().rows)
    assert found == written


def test_a_look_brings_so_many_and_says_that_there_is_more(tmp_path: Path) -> None:
    """A long history is brought in parts, in order; the last says that there is no more."""
    path = tmp_path / "history.db"
    write(path, [row(f"{n:03}", NOW + n) for n in range(25)])
    follower = Follower(path, most=10)
    looks = [follower.look() for _ in range(4)]
    assert [len(look.rows) for look in looks] == [10, 10, 5, 0]
    assert [look.more for look in looks] == [True, True, False, False]
    assert [look.anew for look in looks] == [True, False, False, False]
    assert looks[3].latest_ns == NOW + 24


def test_the_first_look_begins_at_a_moment(tmp_path: Path) -> None:
    """What was recorded before the first call of the time asked for is not read."""
    path = tmp_path / "history.db"
    write(path, [row(f"{n}", NOW - (10 - n) * S) for n in range(10)])
    assert ids(Follower(path).look(NOW - 3 * S).rows) == ["7", "8", "9"]
    follower = Follower(path)
    assert follower.look(NOW).rows == []
    write(path, [row("late", NOW)])
    assert ids(follower.look(NOW).rows) == ["late"]


def test_a_file_may_come_and_go(tmp_path: Path) -> None:
    """A file that is not there is no error; one that came instead of another is read from its
    beginning, and said to be another."""
    path = tmp_path / "history.db"
    follower = Follower(path)
    assert follower.look().missing
    path.touch()
    assert follower.look().missing
    path.unlink()
    write(path, [row("a", NOW), row("b", NOW)])
    assert ids(follower.look().rows) == ["a", "b"]
    path.unlink()
    assert follower.look().missing
    write(tmp_path / "other.db", [row("c", NOW), row("d", NOW), row("e", NOW)])
    (tmp_path / "other.db").rename(path)
    look = follower.look()
    assert (look.anew, ids(look.rows)) == (True, ["c", "d", "e"])


def notices_another(follower: Follower, path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a file that got the number and places of another is told from it."""
    stat = os.stat_result([0o100600, 1, 1, 1, 0, 0, 10, 0, 0, 0])
    write(path, [row("a", NOW), row("b", NOW)])
    write(path.with_name("other"), [row("c", NOW), row("d", NOW), row("e", NOW)])
    monkeypatch.setattr(Path, "stat", lambda self, **_: stat)
    follower.look()
    path.with_name("other").rename(path)
    return ids(follower.look().rows) == ["c", "d", "e"]


def test_a_file_that_has_the_number_of_another_is_told_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems give the numbers of removed files to new ones: what is in it tells."""
    assert notices_another(Follower(tmp_path / "history.db"), tmp_path / "history.db", monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(Follower, "_goes_on", lambda self, db, last: True)
    path = tmp_path / "again.db"
    assert not notices_another(Follower(path), path, monkeypatch)


def test_pruning_takes_nothing_back(tmp_path: Path) -> None:
    """Records removed for their age leave the place where reading goes on; a history emptied in
    full is another."""
    path = tmp_path / "history.db"
    write(path, [row(f"{n}", NOW) for n in range(5)])
    follower = Follower(path)
    follower.look()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM calls WHERE seq < 5")
    write(path, [row("more", NOW)])
    look = follower.look()
    assert (look.anew, ids(look.rows)) == (False, ["more"])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM calls")
    write(path, [row("new", NOW)])
    look = follower.look()
    assert (look.anew, ids(look.rows)) == (True, ["new"])


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    """A record of a kind that this version does not know hides no other."""
    path = tmp_path / "history.db"
    write(path, [row("a", NOW), row("b", NOW), row("c", NOW)])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE calls SET source = 'telepathy' WHERE id = 'b'")
    look = Follower(path).look()
    assert (ids(look.rows), look.unreadable) == (["a", "c"], 1)


def test_trouble_with_the_file_is_an_error_until_it_is_over(tmp_path: Path) -> None:
    """A damaged file is an error at each look, and the next look goes on once it is whole."""
    path = tmp_path / "history.db"
    write(path, [row("a", NOW)])
    follower = Follower(path)
    follower.look()
    whole = path.read_bytes()
    path.write_bytes(b"not a database at all" * 1_000)
    with pytest.raises(CorruptStoreError):
        follower.look()
    path.write_bytes(whole)
    write(path, [row("b", NOW)])
    assert ids(follower.look().rows) == ["b"]
    directory = Follower(tmp_path)
    with pytest.raises(StorageError):
        directory.look()


def test_inputs_are_read_by_id(tmp_path: Path) -> None:
    """Inputs are brought for the calls asked for, where they were kept."""
    path = tmp_path / "history.db"
    assert Follower(path).inputs(["a"]) == {}
    kept = msgspec.structs.replace(row("a", NOW), input='{"query": "x"}')
    write(path, [kept, row("b", NOW)])
    assert Follower(path).inputs(["a", "b", "c"]) == {"a": '{"query": "x"}'}
    assert Follower(path).inputs([]) == {}


def test_facts_are_those_of_the_whole_reading(tmp_path: Path) -> None:
    """What a follower brings is what the history's own reader folds."""
    path = tmp_path / "history.db"
    write(path, [row(f"{n}", NOW + n) for n in range(3)])
    folded: list[object] = []
    SqliteReader(path).fold(folded.append)
    assert [each.facts for each in Follower(path).look().rows] == folded
