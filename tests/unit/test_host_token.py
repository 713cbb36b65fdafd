"""The token file of the host command service."""

import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ConfigError
from paceline.hostexec.http import token as token_module
from paceline.hostexec.http.token import checked, matches, read_or_create_token, read_token
from paceline.redaction import Secret

GOOD = "0123456789abcdef"


def _file(path: Path, text: str | bytes = GOOD, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_a_token_is_made_once(tmp_path: Path) -> None:
    """The first start makes 32 random bytes in a file that only its owner can read, in a directory
    nobody else enters, whatever the umask; later starts read the same. (C-52)"""
    path = tmp_path / "new" / "token"
    before = os.umask(0)
    try:
        token = read_or_create_token(path)
    finally:
        os.umask(before)
    assert re.fullmatch("[0-9a-f]{64}", token.reveal())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_or_create_token(path) == token == read_token(path)
    assert list(path.parent.iterdir()) == [path]
    assert read_or_create_token(tmp_path / "other") != token


def test_all_of_several_starts_have_one_token(tmp_path: Path) -> None:
    """Processes that start at the same moment agree on a token, and leave nothing else behind."""
    path = tmp_path / "token"
    with ThreadPoolExecutor(16) as pool:
        tokens = {token.reveal() for token in pool.map(read_or_create_token, [path] * 64)}
    assert len(tokens) == 1
    assert list(tmp_path.iterdir()) == [path]


def check_modes(path: Path) -> None:
    for mode in (0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o666):
        with pytest.raises(ConfigError, match="open to others"):
            read_or_create_token(_file(path, mode=mode))
    for mode in (0o600, 0o400):
        assert read_or_create_token(_file(path, mode=mode)).reveal() == GOOD


def check_contents(path: Path) -> None:
    for text in ("", "\n", "short", GOOD + "\n\n", f"{GOOD} x", f" {GOOD}", "é" * 20, "x" * 1025):
        with pytest.raises(ConfigError) as caught:
            read_or_create_token(_file(path, text))
        assert caught.value.next_step.startswith("Remove it")
        assert not text.strip() or text.strip() not in str(caught.value)
    for data in (b"\xff" * 20, b"\0" * 20):
        with pytest.raises(ConfigError):
            read_or_create_token(_file(path, data))
    for text in (GOOD, GOOD + "\n", "x" * 1024, "x" * 1024 + "\n"):
        assert read_or_create_token(_file(path, text)).reveal() == text.removesuffix("\n")


def check_links(path: Path) -> None:
    target = _file(path.with_name("target"))
    path.symlink_to(target)
    with pytest.raises(ConfigError, match="it is a link"):
        read_or_create_token(path)
    target.unlink()
    with pytest.raises(ConfigError, match="it is a link"):
        read_or_create_token(path)
    assert not target.exists()


def test_a_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """A token file that anybody else may read, write or run is a start-up error. (C-52)"""
    check_modes(tmp_path / "token")


def test_a_content_that_is_no_token_is_refused(tmp_path: Path) -> None:
    """An empty file, a short token, and what a header cannot carry are start-up errors that do not
    show the content. (C-52)"""
    check_contents(tmp_path / "token")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A token file that is a link is refused, wherever it leads, and nothing is made there."""
    check_links(tmp_path / "token")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A directory, a pipe, or a place where no file can be made is an error at once, with advice."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory", "pipe/token"):
        with pytest.raises(ConfigError) as caught:
            read_or_create_token(tmp_path / name)
        assert caught.value.next_step
    with pytest.raises(ConfigError, match="there is no token file"):
        read_token(tmp_path / "none")


def test_another_users_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that somebody else put there is not ours."""
    path = _file(tmp_path / "token")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="another user"):
        read_token(path)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_only_the_token_matches(given_text: str) -> None:
    """No other text matches, and none, not even of broken bytes, is an error. (C-53)"""
    assert matches(given_text, Secret(GOOD)) == (given_text == GOOD)
    broken = (given_text.encode() + b"\xff\x80").decode("utf-8", "surrogateescape")
    assert not matches(broken, Secret(GOOD))
    assert matches(GOOD, checked(Secret(GOOD)))


def _follow_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "O_NOFOLLOW", 0)


def _only_readers_count(patch: pytest.MonkeyPatch) -> None:
    check = token_module._check_owner

    def lenient(path: Path, status: os.stat_result) -> None:
        if status.st_mode & 0o044:
            check(path, status)

    patch.setattr(token_module, "_check_owner", lenient)


def _anything_goes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(token_module, "checked", lambda token, _: token)


def _stripped(patch: pytest.MonkeyPatch) -> None:
    check = token_module.checked
    patch.setattr(
        token_module, "checked", lambda token, name: check(Secret(token.reveal().strip()), name)
    )


@pytest.mark.parametrize(
    ("seed", "check"),
    [
        (_follow_links, check_links),
        (_only_readers_count, check_modes),
        (_anything_goes, check_contents),
        (_stripped, check_contents),
    ],
)
def test_seeded_bugs_of_the_token_are_caught(
    seed: Callable[[pytest.MonkeyPatch], None],
    check: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these bugs fails its check."""
    seed(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(tmp_path / "token")


def test_a_stand_in_becomes_the_token_in_place(tmp_path: Path) -> None:
    """An empty file of ours that keeps commands from making one is filled, and stays the same
    file: a running sandbox has it mounted over."""
    path = tmp_path / "token"
    path.touch()
    path.chmod(0o1644)
    before = path.stat().st_ino
    token = read_or_create_token(path)
    assert token == read_token(path)
    assert (path.stat().st_ino, path.stat().st_mode & 0o7777) == (before, 0o600)
