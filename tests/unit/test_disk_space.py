"""A disk that is full, wherever something is written to it."""

import ast
import errno
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from paceline.cache.disk.leases import FileLeases
from paceline.cache.generations import Generations
from paceline.cli.chat.recall import Recall
from paceline.cli.listing import reload
from paceline.cli.place import Place
from paceline.cli.recording import unwritable
from paceline.database import connect, storage_errors
from paceline.disk_space import free_some, full, is_full
from paceline.errors import Category, StorageError
from paceline.history.layout import SCHEMA
from paceline.speculation.kept import KeptPredictions
from paceline.testing.virtual_time import VirtualClock

ROOT = Path(__file__).parents[2]
HOME = "PACELINE_HOME to a directory on another disk."


def space(
    free: int, files: int = 1, all_files: int = 9, *, blocks: int = 9, flag: int = 0
) -> Callable[[object], SimpleNamespace]:
    return lambda _: SimpleNamespace(
        f_blocks=blocks,
        f_bavail=free // 4096,
        f_frsize=4096,
        f_favail=files,
        f_files=all_files,
        f_flag=flag,
    )


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (space(0), True),
        (space(32 * 1024), True),
        (space(1024**2), False),
        (space(1024**2, files=0), True),
        (space(1024**2, files=0, all_files=0), False),  # a file system that does not count them
        (space(0, files=0, blocks=0), False),  # nor blocks
        (space(0, files=0, flag=os.ST_RDONLY), False),  # an image, which is always full
        (space(0, flag=os.ST_NOSUID), True),
    ],
)
def test_a_full_disk_is_known(
    there: Callable[[object], SimpleNamespace],
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk is full where there is hardly any space left, or room for no file; not where that is not
    counted, nor where nothing can be written anyway."""
    monkeypatch.setattr(os, "statvfs", there)
    assert is_full(tmp_path) is expected


def test_a_path_that_is_not_there_yet_lies_where_it_is_to_be(tmp_path: Path) -> None:
    """Of a file that is not there the directory is asked; of what cannot be asked nothing is said."""
    assert not is_full(tmp_path / "not" / "there" / "file")
    (tmp_path / "file").write_text("")
    assert not is_full(tmp_path / "file" / "below a file")


@pytest.mark.parametrize("text", ["disk I/O error", "unable to open database file"])
def test_what_sqlite_does_not_say_is_looked_at(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SQLite calls a broken disk is told as a full one where it is full, and else as it is."""
    for there, category in ((space(0), Category.EXHAUSTED), (space(1024**2), Category.STORAGE)):
        monkeypatch.setattr(os, "statvfs", there)
        with pytest.raises(StorageError) as caught, storage_errors(tmp_path / "f.db"):
            raise sqlite3.OperationalError(text)
        assert caught.value.category is category
        assert ("the disk is full" in caught.value.message) is (category is Category.EXHAUSTED)
        assert (HOME in caught.value.next_step) is (category is Category.EXHAUSTED)
        assert text in caught.value.message


def refused(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def generations(place: Path) -> None:
    told: list[StorageError] = []
    Generations(place / "new" / "generations", on_trouble=told.append)
    raise told[0]


def leases(place: Path) -> None:
    told: list[StorageError] = []
    held = FileLeases(place / "new" / "leases", on_trouble=told.append, rng=random.Random(1))
    held.acquire(b"key")
    raise told[0]


def predictions(place: Path) -> None:
    kept = KeptPredictions(place / "new" / "kept", VirtualClock(), on_trouble=lambda _: None)
    kept.save({}, None, {})


def reloaded(place: Path) -> None:
    reload(Place({}, place, home=place / "new"), None)


def recorded(place: Path) -> None:
    trouble = unwritable(Place({}, place, home=place / "new").home)
    assert trouble is not None
    raise trouble


@pytest.mark.parametrize(
    "write",
    [
        generations,
        leases,
        predictions,
        reloaded,
        recorded,
        lambda place: Recall(place / "new" / "typed", str).add("a"),
        lambda place: connect(place / "new" / "a.db", SCHEMA),
    ],
)
def test_every_store_says_what_to_do_about_a_full_disk(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written because the disk is full is of category EXHAUSTED, and says where to free
    space or how to have another."""
    monkeypatch.setattr(os, "mkdir", refused)
    monkeypatch.setattr("paceline.cli.recording.TemporaryFile", refused)
    with pytest.raises(StorageError) as caught:
        write(tmp_path)
    assert caught.value.category is Category.EXHAUSTED
    assert caught.value.next_step == free_some(tmp_path / "new")
    assert full(OSError(errno.EDQUOT, "Quota"))
    assert not full(OSError(errno.EACCES, "Permission"))


def test_no_error_of_exhausted_storage_is_without_advice() -> None:
    """Wherever a StorageError of category EXHAUSTED is made, it is said what to do next."""
    made = 0
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("StorageError"):
                given = {each.arg: ast.unparse(each.value) for each in node.keywords}
                if "EXHAUSTED" in given.get("category", ""):
                    made += 1
                    assert given.get("next_step", "None") != "None", f"{path}:{node.lineno}"
    assert made >= 4
