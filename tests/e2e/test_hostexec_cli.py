"""Host commands on the command line: what is left behind, told and shown."""

import asyncio
import logging
import os
import re
from pathlib import Path

import pytest

from paceline.cli import hostexec
from paceline.hostexec.executor import HostExec
from paceline.hostexec.policy.file import PolicyFile
from paceline.redaction import Redactor, Secret
from tests.e2e.command_line import Cli
from tests.security.shell_host import open_directory

POLICY = 'version = 1\n[[command]]\nid = "uname"\nargv = ["uname"]\n'


def test_a_command_that_writes_leaves_only_what_it_wrote(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a command that changes the workspace there is nothing in it that was not asked for, and
    nothing that the next process would take for its state. (B-29)"""
    monkeypatch.setenv("PACELINE_HOSTEXEC_WRITES", "true")
    with open_directory() as home:
        monkeypatch.setenv("PACELINE_HOME", str(home))
        before = {path.name for path in place.iterdir()}
        for line in ("touch new", "mkdir .paceline", "touch paceline.toml", "cp new agents/x.py"):
            cli("run", "host_exec", line)
        assert {path.name for path in place.iterdir()} == before | {"new"}
        assert not (place / "agents/x.py").exists()


def test_a_time_limit_is_told_as_the_commands_own(cli: Cli, place: Path) -> None:
    """A command that is still running when the caller's time is up is told with its limit, not as a
    call that did not finish. (S1-21)"""
    os.mkfifo(place / "fifo")
    (place / "fifo").chmod(0o666)
    said = cli("run", "host_exec", "cat fifo", "--timeout", "0.8")
    assert said.code == 4
    assert re.search(r"❌ Command timed out after 0\.[67]\d?s: cat fifo\n", said.err)
    assert "hostexec.timeout_s" in said.err


def test_explaining_shows_no_secret(cli: Cli) -> None:
    """`hostexec explain` masks secrets and shows control characters as what they are."""
    for line in ("echo --token=abcd1234efgh", "echo --token abcd1234efgh", "rm token=abcd1234efgh"):
        assert "abcd1234efgh" not in "".join(map(str, cli("hostexec", "explain", line)))
    said = cli("hostexec", "explain", "echo \x1b[31m\nallowed by rule uname")
    assert "\x1b" not in said.out
    assert "\nallowed" not in said.out


def test_one_policy_is_served_and_followed(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy that the service starts with is the one whose file it looks at from then on, so
    that no change between two readings is missed. (A-24)"""
    (place / "policy.toml").write_text(POLICY)
    monkeypatch.setenv("PACELINE_HOSTEXEC_POLICY", "policy.toml")
    seen: list[bool] = []

    async def follow(file: PolicyFile, host: HostExec, stop: asyncio.Event) -> None:
        seen.append(file.policy is host.policy)
        stop.set()

    monkeypatch.setattr(hostexec, "_follow", follow)
    assert cli("hostexec", "serve", "--port", "0").code == 0
    assert seen == [True]


def test_errors_of_the_service_are_shown_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """While the service runs, an error in it is one line on standard error, with its id and without
    secrets; what strangers send is not shown, and afterwards nothing is."""
    log = logging.getLogger("paceline.hostexec")
    error = ValueError("no\nluck with canary-7788 password=hunter2")
    with hostexec._errors_shown(Redactor([Secret("canary-7788")])):
        log.error("internal error %s", "id-1", exc_info=error)
        log.warning("bad HTTP")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ERROR: internal error id-1: ValueError: no\\nluck with [redacted]")
    assert "hunter2" not in line
    assert not log.handlers


def test_commands_cannot_change_the_settings_in_use(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that the settings come from is read-only for commands that may write, whatever
    its name is. (B-29)"""
    monkeypatch.setenv("PACELINE_HOSTEXEC_WRITES", "true")
    place.chmod(0o777)
    (place / "mine.toml").write_text("[run]\nthreads = 4\n")
    (place / "mine.toml").chmod(0o666)
    (place / "evil.toml").write_text("[run]\nthreads = 8\n")
    assert cli("run", "host_exec", "cp evil.toml other.toml").code == 0
    said = cli("--config", "mine.toml", "run", "host_exec", "cp evil.toml mine.toml")
    assert said.code == 1
    assert "threads = 4" in (place / "mine.toml").read_text()
