"""What the default policy allows really runs, in the sandbox, and does what it says."""

import itertools
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest

from paceline.clock import SystemClock
from paceline.errors import CommandDeniedError, CommandFailedError
from paceline.hostexec.audit import AuditLog
from paceline.hostexec.executor import HostExec
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox.level import Level, Sandbox
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.workspace import Workspace
from tests.security.shell_host import USER

Make = Callable[..., HostExec]


@pytest.fixture
def host(directory: Path) -> Iterator[Make]:
    """Makes hosts with the default policy over the workspace."""
    log = directory.parent / f"{directory.name}.policy-audit.jsonl"

    def make(level: Level = "bubblewrap", *, writes: bool = True) -> HostExec:
        ids = itertools.count(1)
        return HostExec(
            Policy.default(writes=writes),
            Sandbox(level, run_as=USER),
            AuditLog(log, clock=SystemClock()),
            workspace=Workspace(directory),
            limits=Limits(),
            clock=SystemClock(),
            new_id=lambda: f"run-{next(ids)}",
        )

    yield make
    log.unlink(missing_ok=True)


def fill(directory: Path) -> None:
    """A small repository."""
    (directory / "src").mkdir(mode=0o777)
    (directory / "src").chmod(0o777)
    (directory / "src" / "a.py").write_text("x = 1\n")
    (directory / "README.md").write_text("one\ntwo\n")
    git(directory, "init", "-q", "-b", "main")
    git(directory, "add", ".")
    git(directory, "commit", "-q", "-m", "first words")
    (directory / "src" / "a.py").write_text("x = 2\n")


def git(directory: Path, *words: str) -> None:
    who = ("-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgSign=false")
    subprocess.run(["git", "-C", str(directory), *who, *words], check=True, capture_output=True)


def times(directory: Path) -> dict[Path, int]:
    """When each file was changed last."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


async def run(host: HostExec, line: str) -> CommandResult:
    return await host.run(shlex.split(line))


READS = {
    "uname -a": "Linux",
    "df -h": "Filesystem",
    "ps aux": "USER",
    "ps -eo pid,comm --sort=-%mem": "PID",
    "top -b -n 1": "load average",
    "free -m": "Mem:",
    "uptime": "load average",
    "nproc": "",
    "lscpu": "Architecture",
    "hostname": "",
    "id": "uid=",
    "whoami": "",
    "date -u +%Y": "20",
    "echo hello world": "hello world\n",
    "pwd": "/ws",
    "cat /etc/os-release": "NAME=",
    "cat /proc/loadavg": "/",
    "cat README.md": "one\ntwo\n",
    "head -n 1 README.md": "one\n",
    "tail -1 README.md": "two\n",
    "wc -l README.md": "2 README.md",
    "ls -la": "README.md",
    "stat -c %s README.md": "8\n",
    "file README.md": "ASCII text",
    "du -sh src": "src",
    "find . -name '*.py'": "./src/a.py\n",
    "find src -type f": "src/a.py\n",
    "grep -rn x .": "src/a.py:1:x = 2",
    "grep -rn nothinglikethis src": "",
    "rg x": "src/a.py",
    "rg nothinglikethis": "",
    "rg --files": "README.md",
    "git status": "modified:   src/a.py",
    "git log --oneline": "first words",
    "git log -n 1 main -- README.md": "ada@example.org",
    "git diff": "+x = 2",
    "git diff HEAD -- src/a.py": "-x = 1",
    "git show HEAD:src/a.py": "x = 1\n",
    "git show --stat": "README.md",
    "git branch --show-current": "main\n",
}


async def test_commands_that_look_run_and_tell(host: Make, directory: Path) -> None:
    """Every reading command of the default policy runs confined and prints what it is for; no match
    is no failure; and none of them changes a file. (S1-36 to S1-39, S1-53)"""
    fill(directory)
    before = times(directory)
    runner = host(writes=False)
    for line, expected in READS.items():
        result = await run(runner, line)
        assert expected in result.stdout, line
        assert result.ok, line
    assert times(directory) == before


async def test_the_weaker_level_runs_them_too(host: Make, directory: Path) -> None:
    """What needs no view of its own also runs under landlock."""
    fill(directory)
    runner = host("landlock", writes=False)
    for line in ("uname -a", "cat README.md", "ls -la", "git status", "grep -rn x .", "free -m"):
        result = await run(runner, line)
        assert READS.get(line, "") in result.stdout, line


async def test_commands_that_change_do_so_in_the_workspace(host: Make, directory: Path) -> None:
    """With writes on, files of the workspace are copied, moved, made and removed."""
    fill(directory)
    runner = host()
    for line in (
        "mkdir -p new/deep",
        "touch new/empty",
        "cp README.md new/copy",
        "cp -r src new/src",
        "mv new/copy new/moved",
        "dd if=README.md of=new/dd bs=4 count=1 status=none",
        "tee new/tee",
        "rm -rf new/src",
        "rmdir new/deep",
    ):
        assert (await run(runner, line)).ok, line
    left = sorted(str(path.relative_to(directory)) for path in (directory / "new").rglob("*"))
    assert left == ["new/dd", "new/empty", "new/moved", "new/tee"]
    assert (directory / "new" / "moved").read_text() == "one\ntwo\n"
    assert (directory / "new" / "dd").read_text() == "one\n"


async def test_changes_stay_out_of_the_repository_and_of_other_places(
    host: Make, directory: Path
) -> None:
    """A change of what is protected is refused or fails, and a link does not lead out. (B-29)"""
    fill(directory)
    (directory / "out").symlink_to("/etc")
    runner = host()
    for line in ("rm -rf .git", "touch .git/hooks/post-checkout", "touch sub/.git/config"):
        with pytest.raises(CommandDeniedError):
            await run(runner, line)
    for line in ("touch out/new", "tee paceline.toml", "mkdir .paceline", "mv .paceline x"):
        with pytest.raises(CommandFailedError):
            await run(runner, line)
    assert not (directory / ".paceline").exists()
    assert not (directory / "paceline.toml").exists()
    assert (directory / ".git" / "HEAD").exists()
    assert not (directory / "out" / "new").exists()
    with pytest.raises(CommandFailedError):
        await run(runner, "cat out/shadow")


async def test_a_refused_command_never_starts(host: Make, directory: Path) -> None:
    """With writes off, and for what no rule allows, nothing is run."""
    runner = host(writes=False)
    for line in ("touch a", "sh -c 'touch a'", "find . -fprint a"):
        with pytest.raises(CommandDeniedError):
            await run(runner, line)
    assert not (directory / "a").exists()


GIT = (
    "git status", "git diff", "git diff --cached", "git log", "git log -p", "git show", "git show HEAD:src/a.py",
    "git branch",
)  # fmt: skip


def arm(directory: Path) -> None:
    """Makes the repository name a program of its own wherever its configuration can."""
    fill(directory)
    (directory / "evil").write_text("#!/bin/sh\necho PWNED >&2\necho PWNED\n")
    (directory / "evil").chmod(0o755)
    (directory / ".gitattributes").write_text("*.py diff=evil\n")
    for key in (
        "core.fsmonitor", "core.pager", "diff.external", "diff.evil.command", "diff.evil.textconv",
        "gpg.program", "pager.log", "pager.diff", "pager.status", "pager.show", "pager.branch",
    ):  # fmt: skip
        git(directory, "config", key, "./evil")
    git(directory, "config", "log.showSignature", "true")
    git(directory, "config", "format.pretty", "%G? %s")


async def owned(host: HostExec) -> list[str]:
    """The git commands that ran a program of the repository."""
    results = [(line, await run(host, line)) for line in GIT]
    return [line for line, result in results if "PWNED" in result.stdout + result.stderr]


async def test_a_repository_cannot_run_its_own_programs(host: Make, directory: Path) -> None:
    """Monitors, pagers, external diffs, text converters and signature checkers that a repository
    configures are not started by any git command of the policy. (A-25)"""
    arm(directory)
    assert await owned(host(writes=False)) == []


async def test_the_trap_works(host: Make, directory: Path) -> None:
    """Without the safeguards of the policy the same repository does run its programs."""
    arm(directory)
    runner = host(writes=False)
    text = resources.files("paceline.hostexec.policy").joinpath("default.toml").read_text("utf-8")
    bare = re.sub(r'^append = \["--no-ext-diff.*$', "", text, flags=re.MULTILINE)
    bare = bare.replace('"-c", "core.fsmonitor=false",', "")
    runner.policy = Policy.load(bare, name="without safeguards")
    assert set(await owned(runner)) >= {"git status", "git diff", "git log -p"}
