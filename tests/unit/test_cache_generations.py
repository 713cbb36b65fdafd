"""Generations: a write puts what was read before out of reach, in every process."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.generations import SLOTS, Generations
from paceline.errors import CorruptStoreError, StorageError

_TAGS = st.lists(st.text(), max_size=6)


def _unexpected(exc: StorageError) -> None:
    raise exc


def _in_memory() -> Generations:
    return Generations(None, on_trouble=_unexpected)


@given(_TAGS, _TAGS)
def test_a_write_changes_the_stamps_of_its_tags(read: list[str], written: list[str]) -> None:
    """After a write the stamps of every list of tags that shares one with it are new. (S0-78,
    S1-53)"""
    generations = _in_memory()
    before = generations.read(read)
    generations.bump(written)
    assert len(before) == 8 * len(read)
    if set(read) & set(written):
        assert generations.read(read) != before
    if not written:
        assert generations.read(read) == before


def test_tags_have_stamps_of_their_own() -> None:
    """A write leaves practically all other tags alone. (S1-53)"""
    generations = _in_memory()
    others = [f"tag{number}" for number in range(1_000)]
    before = [generations.read([tag]) for tag in others]
    generations.bump(["node:/w/a"])
    changed = sum(generations.read([tag]) != old for tag, old in zip(others, before, strict=True))
    assert changed <= 5


def test_no_tags_no_stamps() -> None:
    """Without tags there is nothing to stamp."""
    assert _in_memory().read(()) == b""


def test_processes_share_stamps(tmp_path: Path) -> None:
    """A write in one process is seen by all others at once. (S0-78)"""
    path = tmp_path / "state" / "generations"
    mine = Generations(path, on_trouble=_unexpected)
    before = mine.read(["a", "b"])
    code = (
        "import sys, pathlib\n"
        "from paceline.cache.generations import Generations\n"
        "g = Generations(pathlib.Path(sys.argv[1]), on_trouble=print)\n"
        "print(g.read(['a', 'b']).hex())\n"
        "g.bump(['a'])\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert bytes.fromhex(seen.stdout) == before
    assert mine.read(["a"]) != before[:8]
    assert mine.read(["b"]) == before[8:]
    mine.close()


def test_stamps_outlive_the_process(tmp_path: Path) -> None:
    """A file that is opened again has the stamps it had."""
    path = tmp_path / "generations"
    first = Generations(path, on_trouble=_unexpected)
    first.bump(["a"])
    stamps = first.read(["a", "b"])
    first.close()
    second = Generations(path, on_trouble=_unexpected)
    assert second.read(["a", "b"]) == stamps
    second.close()


def test_a_lost_file_invalidates_everything(tmp_path: Path) -> None:
    """A file made anew has other stamps, so no result of before is found under them."""
    path = tmp_path / "generations"
    first = Generations(path, on_trouble=_unexpected)
    stamps = first.read(["a"])
    first.close()
    path.unlink()
    second = Generations(path, on_trouble=_unexpected)
    assert second.read(["a"]) != stamps
    second.close()


def _follows(path: Path, replace: Callable[[Path], None]) -> None:
    mine = Generations(path, on_trouble=_unexpected)
    stamps = mine.read(["a", "b"])
    mine.check()
    assert mine.read(["a", "b"]) == stamps
    replace(path)
    theirs = Generations(path, on_trouble=_unexpected)
    assert mine.read(["a", "b"]) == stamps  # for nobody told
    mine.check()
    assert mine.read(["a", "b"]) == theirs.read(["a", "b"]) != stamps
    theirs.bump(["a"])
    assert mine.read(["a"]) == theirs.read(["a"])
    mine.close()
    theirs.close()
    mine.check()
    assert mine.read(["a"]) != theirs.read(["a"])


def _newly_made(path: Path) -> None:
    Generations(path.with_name("new"), on_trouble=_unexpected).close()
    path.with_name("new").replace(path)


@pytest.mark.parametrize("replace", [Path.unlink, _newly_made])
def test_a_file_that_was_replaced_is_followed(
    tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    """A process whose file was removed or replaced under it uses the new one after a check, so
    that the writes of others reach it again. (S0-78)"""
    _follows(tmp_path / "generations", replace)


def test_keeping_the_old_file_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above fails for a process that never looks at the path again."""
    monkeypatch.setattr(Generations, "check", lambda _: None)
    with pytest.raises(AssertionError):
        _follows(tmp_path / "generations", Path.unlink)


def test_a_write_reaches_the_file_of_others(tmp_path: Path) -> None:
    """A write invalidates in the file that others have by now, not in one that was removed."""
    path = tmp_path / "generations"
    mine = Generations(path, on_trouble=_unexpected)
    path.unlink()
    theirs = Generations(path, on_trouble=_unexpected)
    before = theirs.read(["a"])
    mine.bump(["a"])
    assert theirs.read(["a"]) != before
    mine.close()
    theirs.close()


def test_a_file_that_cannot_be_made_again_is_told(tmp_path: Path) -> None:
    """If the place of a removed file cannot be used, trouble is told once and this process goes on
    alone, and nothing of before matches."""
    place = tmp_path / "state"
    trouble: list[StorageError] = []
    generations = Generations(place / "generations", on_trouble=trouble.append)
    before = generations.read(["a"])
    (place / "generations").unlink()
    place.rmdir()
    place.touch()
    generations.check()
    generations.check()
    assert [type(exc) for exc in trouble] == [StorageError]
    assert generations.read(["a"]) != before
    _check_invalidates(generations)


def test_after_close_nothing_matches(tmp_path: Path) -> None:
    """What is read after close equals nothing that was read before."""
    generations = Generations(tmp_path / "generations", on_trouble=_unexpected)
    stamps = generations.read(["a"])
    generations.close()
    generations.close()
    assert generations.read(["a"]) != stamps
    generations.bump(["a"])


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """The file is private, and no draft of it is left."""
    path = tmp_path / "generations"
    Generations(path, on_trouble=_unexpected).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [b"", b"PACEGEN1", b"PACEGEN1" + bytes(100_000), b"x" * 32_776, b"\0" * 32_776]
)
def test_a_damaged_file_is_told_and_not_used(tmp_path: Path, content: bytes) -> None:
    """With an empty, short, long or foreign file trouble is told once, the file stays as it is
    and invalidation works in this process."""
    path = tmp_path / "generations"
    path.write_bytes(content)
    trouble: list[StorageError] = []
    generations = Generations(path, on_trouble=trouble.append)
    assert [type(exc) for exc in trouble] == [CorruptStoreError]
    assert str(path) in trouble[0].next_step
    assert path.read_bytes() == content
    _check_invalidates(generations)


@pytest.mark.parametrize("place", ["/proc/none/generations", "directory"])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    """Where no file can be made or opened, trouble is told once and this process goes on alone."""
    (tmp_path / "directory").mkdir()
    trouble: list[StorageError] = []
    generations = Generations(tmp_path / place, on_trouble=trouble.append)
    assert [isinstance(exc, StorageError) for exc in trouble] == [True]
    _check_invalidates(generations)


def test_a_read_only_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file that may not be written trouble is told once and this process goes on alone."""
    path = tmp_path / "generations"
    Generations(path, on_trouble=_unexpected).close()

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    trouble: list[StorageError] = []
    _check_invalidates(Generations(path, on_trouble=trouble.append))
    assert "Permission denied" in str(trouble[0])


def test_a_file_made_meanwhile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process makes the file at the same moment, both use one."""
    path = tmp_path / "generations"
    first = Generations(path, on_trouble=_unexpected)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    second = Generations(path, on_trouble=_unexpected)
    assert second.read(["a"]) == first.read(["a"])
    first.bump(["a"])
    assert second.read(["a"]) == first.read(["a"])
    first.close()
    second.close()


def test_a_process_killed_while_it_made_the_file_leaves_nothing(tmp_path: Path) -> None:
    """What a killed process had written beside the file is removed, the file is made whole, and
    the draft of a living process is left alone. (D86)"""
    path = tmp_path / "generations"
    left = tmp_path / "generations.999999999.deadbeef"
    made_now = tmp_path / f"generations.{os.getpid()}.12345678"
    for draft in (left, made_now):
        draft.write_bytes(b"PACEG")
    _check_invalidates(Generations(path, on_trouble=_unexpected))
    assert not left.exists()
    assert made_now.exists()


def _check_invalidates(generations: Generations) -> None:
    for _ in range(2):
        before = generations.read(["a"])
        assert generations.read(["a"]) == before
        generations.bump(["a"])
        assert generations.read(["a"]) != before


def test_stamps_that_repeat_are_caught() -> None:
    """The check of invalidation fails for stamps that are not fresh."""
    with pytest.raises(AssertionError):
        _check_invalidates(Generations(None, on_trouble=_unexpected, random_bytes=bytes))


def test_a_file_cut_short_is_noticed(tmp_path: Path) -> None:
    """When somebody empties the file of a running process, the next check tells of it, nothing of
    before is found, and the process goes on alone."""
    path, trouble = tmp_path / "generations", list[StorageError]()
    generations = Generations(path, on_trouble=trouble.append)
    before = generations.read(["a", "b"])
    os.truncate(path, 0)
    generations.check()
    after = generations.read(["a", "b"])
    assert after != before
    generations.bump(["a"])
    assert generations.read(["a", "b"]) != after
    assert [type(error) for error in trouble] == [CorruptStoreError]


def _shared(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _all(number: int) -> bytes:
    return _shared(number) * SLOTS


def test_a_servers_stamps_only_rise() -> None:
    """Of stamps that a server gave out the later one stays, in whatever order they are heard of.
    (S0-78)"""
    generations = _in_memory()
    generations.learn_all(_all(10))
    assert not generations.unknown()
    assert generations.latest() == 10
    for slot in range(SLOTS):
        assert generations.learn(slot, _shared(30))
        assert generations.learn(slot, _shared(20))
    assert generations.read(["a"]) == _shared(30)
    generations.learn_all(_all(25))
    assert generations.read(["a"]) == _shared(30)


def test_a_write_holds_until_the_server_knows_it() -> None:
    """What others write does not replace a write of here; the server's answer does, unless
    there was another write meanwhile. (S0-78)"""
    generations = _in_memory()
    generations.learn_all(_all(10))
    generations.bump(["a"])
    ((slot, first),) = generations.written()
    assert not generations.learn(slot, _shared(20))
    assert generations.read(["a"]) == first
    generations.bump(["a"])
    ((_, second),) = generations.written()
    generations.told(slot, first, _shared(21))
    assert generations.read(["a"]) == second
    generations.told(slot, second, _shared(22))
    assert generations.read(["a"]) == _shared(22)
    generations.told(slot, second, _shared(21))
    assert generations.read(["a"]) == _shared(22)
    assert generations.written() == []


def test_forgetting_changes_all_stamps_and_keeps_what_is_to_be_told() -> None:
    """Nothing of before is found, the server's stamps are welcome again, and writes that were
    not told still are. (D92)"""
    generations = _in_memory()
    generations.learn_all(_all(10))
    generations.bump(["a"])
    before = generations.read(["a", "b"])
    generations.forget()
    after = generations.read(["a", "b"])
    assert before[:8] != after[:8]
    assert before[8:] != after[8:]
    assert generations.unknown()
    assert [stamp for _, stamp in generations.written()] == [after[:8]]
    generations.learn_all(_all(5))
    assert generations.read(["b"]) == _shared(5)
    assert generations.read(["a"]) == after[:8]


def test_a_new_file_has_nothing_to_tell() -> None:
    """Random stamps that nobody wrote are replaced by the server's and told to nobody."""
    generations = _in_memory()
    assert generations.written() == []
    assert generations.unknown()
    assert generations.latest() == 0
    with pytest.raises(ValueError, match="all stamps"):
        generations.learn_all(b"short")


def test_writes_are_reported() -> None:
    """Whoever attaches is called after every write, until it detaches."""
    generations, seen = _in_memory(), list[bytes]()
    generations.attach(lambda: seen.append(generations.read(["a"])))
    generations.bump(["a"])
    assert seen == [generations.read(["a"])]
    generations.attach(None)
    generations.bump(["a"])
    assert len(seen) == 1


def test_threads_and_processes_lose_no_write(tmp_path: Path) -> None:
    """Stamps learned on one thread never cover a write made at the same moment on another,
    through another opening of the file. (D93)"""
    path = tmp_path / "generations"
    mine, theirs = (Generations(path, on_trouble=_unexpected) for _ in range(2))
    mine.learn_all(_all(1))
    theirs.bump(["a"])
    ((slot, _),) = mine.written()
    stop = threading.Event()

    def learn() -> None:
        number = 2
        while not stop.is_set():
            mine.learn(slot, _shared(number))
            number += 1

    thread = threading.Thread(target=learn)
    thread.start()
    try:
        for _ in range(500):
            ((_, written),) = theirs.written()
            theirs.told(slot, written, _shared(1))
            theirs.bump(["a"])
            assert theirs.read(["a"])[0] >= 0xC0
    finally:
        stop.set()
        thread.join()
    mine.close()
    theirs.close()
