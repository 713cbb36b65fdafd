"""`paceline doctor` finds what is wrong, and says what to do about it."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from paceline.cli.doctor_state import examine_state
from paceline.home import Home
from tests.e2e.command_line import Cli
from tests.security.shell_host import AS_ROOT

SHOWN_AS = {"history.db": "history", "cache.db": "result cache", "generations": "generations"}


def findings(cli: Cli) -> dict[str, dict[str, str]]:
    return {finding["what"]: finding for finding in cli("doctor", "--json").data["findings"]}


def test_the_doctor_looks_at_everything(cli: Cli, place: Path) -> None:
    """`doctor` reports settings, state, agents, policy and sandbox; damage makes it fail."""
    cli("run", "host_exec", "uname -a")
    said = cli("doctor", "--json")
    found = {finding["what"]: finding["state"] for finding in said.data["findings"]}
    assert said.code == 0
    assert {"settings", "state directory", "result cache", "history", "sandbox"} <= set(found)
    (place / ".paceline" / "history.db").write_bytes(b"damaged" * 1000)
    said = cli("doctor")
    assert said.code == 1
    assert "Move" in said.out


def overwrite(path: Path) -> None:
    path.write_bytes(b"damaged" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def renew(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def swap(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()


@pytest.mark.parametrize(
    ("name", "damage", "word"),
    [
        ("history.db", overwrite, "not a database"),
        ("history.db", renew, "schema version 99"),
        ("history.db", swap, "another program"),
        ("cache.db", swap, "another program"),
        ("generations", cut, "damaged"),
    ],
)
def test_files_that_are_not_ours_any_more(
    cli: Cli, place: Path, name: str, damage: Callable[[Path], None], word: str
) -> None:
    """A file that is damaged, of another version or of another program is found, and left as it
    is."""
    cli("run", "echo", "x")
    file = place / ".paceline" / name
    damage(file)
    before = file.read_bytes()
    found = findings(cli)[SHOWN_AS[name]]
    assert found["state"] == "broken"
    assert word in found["detail"]
    assert found["next_step"]
    assert file.read_bytes() == before


def test_a_state_directory_that_is_none(cli: Cli, place: Path) -> None:
    """A file, or a link that leads nowhere, in place of the state directory is found."""
    home = place / ".paceline"
    home.write_text("")
    assert findings(cli)["state directory"]["state"] == "broken"
    home.unlink()
    home.symlink_to("nowhere")
    found = findings(cli)["state directory"]
    assert (found["state"], "is not a directory" in found["detail"]) == ("broken", True)


def test_a_state_directory_that_is_open_to_all(cli: Cli, place: Path) -> None:
    """A state directory that others can write to is a warning."""
    cli("run", "echo", "x")
    (place / ".paceline").chmod(0o777)
    found = findings(cli)["state directory"]
    assert (found["state"], "chmod 700" in found["next_step"]) == ("warning", True)


def test_a_state_directory_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory that cannot be written is found, with advice that helps there."""
    monkeypatch.setattr("paceline.cli.doctor_state.os.access", lambda *_: False)
    found = next(iter(examine_state(Home(tmp_path))))
    assert (found.state, "PACELINE_HOME" in found.next_step) == ("broken", True)


@pytest.mark.parametrize("arguments", [("stats",), ("history",), ("history", "x")])
def test_state_that_cannot_be_read_is_an_error_of_ours(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Where the state directory may not be entered, statistics and history say so."""

    stat = Path.stat

    def refused(path: Path, **_: object) -> os.stat_result:
        if path.name == "history.db":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path)

    monkeypatch.setattr(Path, "stat", refused)
    said = cli(*arguments)
    assert said.code == 1
    assert "Permission denied" in said.err
    assert "next:" in said.err


def test_a_workspace_that_commands_cannot_enter(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox that works is not enough: the user that commands run as has to get into the
    workspace."""
    assert findings(cli)["workspace"]["state"] == "ok"
    inner = place / "inner"
    inner.mkdir(mode=0o700)
    monkeypatch.setenv("PACELINE_HOSTEXEC_WORKSPACE", "inner")
    found = findings(cli)["workspace"]
    assert found["state"] == ("broken" if AS_ROOT else "ok")
    assert str(inner) in found["detail"]


def test_a_token_that_others_can_read(cli: Cli, place: Path) -> None:
    """A token of the service that is open to others is found."""
    cli("run", "echo", "x")
    token = place / ".paceline" / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o644)
    found = findings(cli)["service token"]
    assert (found["state"], "open to others" in found["detail"]) == ("broken", True)


def test_where_settings_are_from(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting that is not at its default is listed with its value and source, also where
    it is wrong; what looks like a secret is masked."""
    (place / "paceline.toml").write_text("[run]\nthreads = 2\n")
    monkeypatch.setenv("PACELINE_RUN_MAX_QUEUE", "many")
    monkeypatch.setenv("PACELINE_HOSTEXEC_URL", "http://ada:hunter2hunter2@127.0.0.1:9000")
    found = findings(cli)
    assert found["settings"]["state"] == "broken"
    assert found["run.max_queue"]["detail"] == "many (from PACELINE_RUN_MAX_QUEUE)"
    assert found["run.threads"]["detail"] == f"2 (from {place / 'paceline.toml'})"
    assert "hunter2" not in found["hostexec.url"]["detail"]


@pytest.mark.parametrize("name", ["cache.db", "history.db", "generations", "audit.jsonl"])
def test_what_stands_in_place_of_a_file_is_found(cli: Cli, place: Path, name: str) -> None:
    """A directory or a link that leads nowhere, where a file of ours should be, is broken."""
    home = place / ".paceline"
    for make in (Path.mkdir, lambda path: path.symlink_to("/nowhere/at/all")):
        home.mkdir(exist_ok=True)
        make(home / name)
        said = cli("doctor")
        assert (said.code, "is not a file" in said.out) == (1, True)
        (home / name).rmdir() if (home / name).is_dir() else (home / name).unlink()
