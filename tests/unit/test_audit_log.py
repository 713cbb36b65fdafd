"""The audit log: complete lines, in a chain, for its owner only."""

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.clock import SystemClock
from paceline.errors import AuditError
from paceline.hostexec.audit import AuditLog, first_break
from paceline.redaction import MASK, Redactor
from paceline.testing.virtual_time import VirtualClock


def _log(path: Path) -> AuditLog:
    return AuditLog(path, clock=VirtualClock())


def _write_many(path: Path, name: str) -> None:
    log = AuditLog(path, clock=SystemClock())
    for number in range(50):
        log.write("intent", {"id": f"{name}-{number}"})


def test_lines_are_chained_across_openings(tmp_path: Path) -> None:
    """Every line has the hash of the line before, also when another process goes on with it."""
    path = tmp_path / "state/audit.jsonl"
    for number in range(3):
        _log(path).write("intent", {"id": str(number)})
    lines = path.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["0", "1", "2"]
    assert json.loads(lines[0])["prev"] == "0" * 64
    assert json.loads(lines[0])["ts"] == "2023-11-14T22:13:20.000+00:00"
    assert first_break(path) is None


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda lines: [lines[0].replace(b"first", b"FIRST"), *lines[1:]], 2),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [*lines[:2], lines[0], *lines[2:]], 3),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines[:2], b"torn", *lines[2:]], 3),
        (lambda lines: lines[1:], 1),
    ],
    ids=["changed", "removed", "repeated", "swapped", "junk", "beginning cut off"],
)
def test_tampering_shows(tmp_path: Path, tamper: object, found: int) -> None:
    """A line changed, removed, repeated, moved or put in is found, and where."""
    path = tmp_path / "audit.jsonl"
    for name in ("first", "second", "third", "fourth"):
        _log(path).write("intent", {"id": name})
    assert callable(tamper)
    path.write_bytes(b"\n".join(tamper(path.read_bytes().splitlines())) + b"\n")
    assert first_break(path) == found


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    """Two processes that write at once keep one whole chain with all their lines."""
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert len(set(ids)) == 100
    assert first_break(path) is None


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    """The file is mode 0600, even where it was wider before."""
    path = tmp_path / "audit.jsonl"
    path.touch(0o644)
    _log(path).write("intent", {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_is_one_line_of_plain_characters(tmp_path: Path) -> None:
    """No control, format or other non-ASCII character of a command reaches the file as itself."""
    path = tmp_path / "audit.jsonl"
    nasty = "a\nb\r\x1b[2J\x7f\x85\u202e\u2028\ud800\u200b"
    _log(path).write("intent", {"argv": [nasty]})
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in data.rstrip(b"\n"))
    assert json.loads(data)["argv"] == [nasty]


@pytest.mark.parametrize(
    ("argv", "masked"),
    [
        (["rm", "token='", "a", "important", "'"], ["rm", "token='", "a", "important", "'"]),
        (
            ["rm", "-----BEGIN PRIVATE KEY-----", "a", "b/c"],
            ["rm", f"-----BEGIN PRIVATE KEY-----{MASK}", "a", "b/c"],
        ),
        (["x", 'password="hush', "y"], ["x", f"password={MASK}", "y"]),
        (["x", "--password", "correcthorse", "y"], ["x", "--password", MASK, "y"]),
        (["x", "--token", "two words", "y"], ["x", "--token", MASK, "y"]),
        (["x", "--token", "--verbose", "y"], ["x", "--token", "--verbose", "y"]),
        (["x", "Authorization:", "Bearer", "abcdefgh"], ["x", "Authorization:", MASK, MASK]),
        (["curl", "-u", "bob:SECRET", "y"], ["curl", "-u", f"bob:{MASK}", "y"]),
        (["x", "pass=hunter", "pwd=hunter"], ["x", f"pass={MASK}", f"pwd={MASK}"]),
        (["rm", "a\nb", MASK, f"{MASK}x"], ["rm", "a\nb", MASK, f"{MASK}x"]),
        ([], []),
    ],
)
def test_no_word_hides_those_behind_it(tmp_path: Path, argv: list[str], masked: list[str]) -> None:
    """Every word of a command is in the log, masked by its own form or by the one word before it
    that names a credential."""
    assert _log(tmp_path / "audit.jsonl").mask(argv) == masked


@given(st.lists(st.text("'\"=: -\ntokenpasBEGIN", max_size=12), max_size=8))
def test_masking_keeps_the_number_of_words(argv: list[str]) -> None:
    """Whatever is masked, there are as many words as before."""
    assert len(_log(Path("unused")).mask(argv)) == len(argv)


def test_a_torn_last_line_is_closed_and_shows(tmp_path: Path) -> None:
    """After a line that a crash cut short the log goes on in a line of its own, and the torn one
    is reported."""
    path = tmp_path / "audit.jsonl"
    _log(path).write("intent", {"id": "a"})
    with path.open("ab") as file:
        file.write(b'{"ts":"20')
    _log(path).write("intent", {"id": "b"})
    _log(path).write("intent", {"id": "c"})
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()[2:]] == ["b", "c"]
    assert first_break(path) == 2


def test_a_line_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    """A very long last line is still the one that the next is bound to."""
    path = tmp_path / "audit.jsonl"
    for size in (10, 300_000, 10):
        _log(path).write("intent", {"argv": "x " * size})
    assert first_break(path) is None


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that does not fit is an error, and no part of it stays."""
    path = tmp_path / "audit.jsonl"
    _log(path).write("intent", {"id": "a"})
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:10]))
    with pytest.raises(AuditError, match="No space left"):
        _log(path).write("intent", {"id": "b"})
    assert path.read_bytes() == before


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    """The log does not follow a symbolic link, and an unreadable one cannot be verified."""
    path = tmp_path / "audit.jsonl"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError):
        _log(path).write("intent", {})
    with pytest.raises(AuditError):
        first_break(path)


def test_masking_takes_time_in_proportion(tmp_path: Path) -> None:
    """A command of a hundred thousand equal letters is masked at once, not in minutes."""
    assert _log(tmp_path / "a").mask(["x" * 100_000, "http" * 25_000, "token" + " " * 50_000])


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["echo", "token", "=", "hunter2"], ["echo", "token", "=", "[redacted]"]),
        (["echo", "api_key", ":", "abcd"], ["echo", "api_key", ":", "[redacted]"]),
        (["echo", "--token", "=", "hunter2"], ["echo", "--token", "=", "[redacted]"]),
        (["echo", "a", "=", "b"], ["echo", "a", "=", "b"]),
        (["=", ":", "="], ["=", ":", "="]),
    ],
)
def test_a_secret_after_its_name_and_a_sign_is_masked(words: list[str], shown: list[str]) -> None:
    """A name, an equals sign and a value given as three words show no secret value."""
    assert Redactor().words(words) == shown
