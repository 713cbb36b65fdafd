"""What was typed before: private, without secrets, bounded."""

import os
import stat
from pathlib import Path

import pytest

from paceline.cli.chat.recall import Recall
from paceline.errors import StorageError
from paceline.redaction import Redactor, Secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "typed.jsonl"


def recall(path: Path) -> Recall:
    return Recall(path, Redactor([Secret("wx7-19-hidden")]).text)


def test_what_was_typed_is_there_again(path: Path) -> None:
    """Messages come back as they were typed, the oldest first, also those of several lines, and those
    that another process adds meanwhile."""
    first, second = recall(path), recall(path)
    assert first.read() == []
    first.add("one\n  two 宽")
    second.add("\ud800 three")
    first.add("one\n  two 宽")
    assert recall(path).read() == ["one\n  two 宽", "? three", "one\n  two 宽"]


def test_only_its_owner_may_read_it(path: Path) -> None:
    """The file and its directory are private, also if the file was not before."""
    path.parent.mkdir(mode=0o700)
    path.touch(0o644)
    recall(path).add("one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    path.parent.rmdir()
    recall(path).read()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_secret_is_written(path: Path) -> None:
    """Known secrets, and what has the form of one, never reach the disk."""
    key = "sk-ant-" + "a1b2c3d4e5f6g7"
    recall(path).add(f"use wx7-19-hidden and {key}\nor password=hunter2x")
    written = path.read_text()
    assert not any(secret in written for secret in ("wx7-19-hidden", key, "hunter2x"))
    assert recall(path).read() == ["use [redacted] and sk-ant-[redacted]\nor password=[redacted]"]


def test_it_is_bounded(path: Path) -> None:
    """The last 1,000 messages are there; a file with more than twice as many is made shorter, and what
    is longer than 16,384 characters is not kept."""
    path.parent.mkdir()
    path.write_text("".join(f'"{number}"\n' for number in range(2_001)))
    kept = [str(number) for number in range(1_001, 2_001)]
    assert recall(path).read() == kept
    assert len(path.read_text().splitlines()) == 1_000
    recall(path).add("x" * 16_384)
    recall(path).add("x" * 16_385)
    assert recall(path).read() == [*kept[1:], "x" * 16_384]


def test_a_torn_line_costs_itself(path: Path) -> None:
    """Lines that are no messages are left out, and one that has no end does not spoil the next."""
    path.parent.mkdir()
    path.write_bytes(b'"one"\n{}\n\xff\n"tor')
    recall(path).add("two")
    assert recall(path).read() == ["one", "two"]


def test_without_room_nothing_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message for which there is no room is an error, and nothing of it is left in the file."""
    recall(path).add("one")
    before, write = path.read_bytes(), os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[:3]))
        with pytest.raises(StorageError, match=r"what is typed is not kept: .*No space left"):
            recall(path).add("two")
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file_is_refused(path: Path, kind: str) -> None:
    """A link to elsewhere, a pipe that nobody reads, and a directory are neither written nor waited
    for."""
    path.parent.mkdir()
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("mine")
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    for use in (recall(path).read, lambda: recall(path).add("one")):
        with pytest.raises(StorageError, match="what is typed is not kept"):
            use()
    assert elsewhere.read_text() == "mine"
