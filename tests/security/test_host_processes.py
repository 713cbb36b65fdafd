"""How commands end: in time, within bounds, and with nothing left behind, at every level."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from paceline.errors import Category, CommandFailedError, InvalidInputError, SandboxError
from paceline.hostexec.sandbox.command import Launch
from paceline.hostexec.sandbox.level import Level, Sandbox
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.process import run
from tests.security.shell_host import (
    ALL_LEVELS,
    AS_ROOT,
    BOTH_WEAKER,
    RUN_AS,
    ShellHost,
    running,
    started,
    until,
)

Make = Callable[..., ShellHost]
each_level = pytest.mark.parametrize("level", ALL_LEVELS)

# Each starts `sleep` so that it escapes a plain kill of the process group.
ESCAPES = "setsid sleep {m} & (setsid sh -c 'sleep {m} & sleep {m}' &) ; nohup sleep {m} & "


@pytest.fixture
def marker(directory: Path) -> str:
    """A length of sleep that nothing else on this machine sleeps for."""
    return f"600.{int.from_bytes(directory.name.encode()[-6:], 'big')}"


@each_level
async def test_a_timeout_leaves_no_process(shell: Make, level: Level, marker: str) -> None:
    """At its limit a command dies with every session, double fork and nohup it made, within two
    seconds. (B-41, S1-20)"""
    host = shell(level=level)
    script = ESCAPES.format(m=marker) + f"sleep {marker}"
    with pytest.raises(CommandFailedError, match=r"timed out after 0\.6s") as caught:
        await host.host.run(("sh", script), timeout_s=0.6)
    assert caught.value.category is Category.TIMEOUT
    assert caught.value.result.exit_kind == "timeout"  # type: ignore[attr-defined]
    assert caught.value.may_have_started
    assert await until(lambda: not running(marker))


async def test_a_plain_kill_would_not_do(marker: str) -> None:
    """The escapes used here do survive a kill of the process group alone. (B-41)"""
    script = ESCAPES.format(m=marker) + f"sleep {marker}"
    launch = Launch(argv=("/usr/bin/sh", "-c", script), env={"PATH": "/usr/bin"})
    await run(launch, timeout_s=0.4, output_bytes=100, drain_s=0.1)
    try:
        assert running(marker)
    finally:
        for pid in running(marker):
            os.kill(pid, signal.SIGKILL)


@each_level
async def test_a_daemon_does_not_hold_the_reply(shell: Make, level: Level, marker: str) -> None:
    """A command that leaves a daemon on its output is answered when it ends itself, and the daemon
    is gone. (B-42)"""
    result = await shell(level=level).sh(f"setsid sleep {marker} & echo done", timeout_s=10)
    assert (result.exit_kind, result.stdout) == ("exited", "done\n")
    assert await until(lambda: not running(marker))


@each_level
async def test_cancelling_ends_the_command(shell: Make, level: Level, marker: str) -> None:
    """A cancelled command is killed and reaped before the cancellation goes on, however often it
    is cancelled, and the log says so. (B-43)"""
    host, before = shell(level=level), psutil.Process().children()
    task = asyncio.ensure_future(host.sh(ESCAPES.format(m=marker) + f"sleep {marker}"))
    assert await until(lambda: len(running(f"sleep\0{marker}")) >= 5)
    for _ in range(3):
        task.cancel()
        await asyncio.wait({task}, timeout=0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(lambda: not running(marker))
    assert psutil.Process().children() == before
    assert host.lines()[-1]["exit"] == "cancelled"


@each_level
async def test_cancelled_at_any_moment_nothing_is_left(
    shell: Make, level: Level, marker: str
) -> None:
    """Wherever the start of a command is interrupted, half a sandbox standing, no process remains.
    (B-43)"""
    host = shell(level=level)
    for step in range(40):
        task = asyncio.ensure_future(host.sh(f"sleep {marker}"))
        await asyncio.wait({task}, timeout=step * 0.0004)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await until(lambda: not running(marker))


async def test_a_process_that_cannot_be_watched_is_not_left(
    monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    """Where the kernel gives no handle on a process, it is ended again and the error says why."""

    def refuse(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    launch = Launch(argv=("/usr/bin/sleep", marker), env={})
    with pytest.raises(SandboxError, match="Too many open files"):
        await run(launch, timeout_s=1, output_bytes=10, drain_s=0.1)
    assert not running(marker)


def test_a_loop_that_closes_mid_command_warns_of_nothing(directory: Path, marker: str) -> None:
    """When the program ends in the middle of a command, the command goes too and Python has
    nothing to complain of. (B-43)"""
    done = _program(
        f"task = asyncio.create_task(sh('sleep {marker}'))\n"
        "    await asyncio.wait({task}, timeout=0.3)"
    )
    script = subprocess.run(
        (sys.executable, "-X", "dev", "-c", done, str(directory), "bubblewrap"),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (script.returncode, script.stderr) == (0, "")
    assert not running(marker)


def _program(body: str) -> str:
    return textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from tests.security.shell_host import ShellHost
        host = ShellHost(Path(sys.argv[1]), level=sys.argv[2])
        sh = host.sh
        async def main():
            BODY
        asyncio.run(main())
        host.log.unlink()
    """).replace("BODY", body)


@each_level
async def test_the_service_killed_takes_its_commands_along(
    directory: Path, level: Level, marker: str
) -> None:
    """A service that is killed outright leaves no command behind. (B-44)"""
    body = f"await sh('{ESCAPES.format(m=marker).replace(chr(39), chr(34))} sleep {marker}')"
    service = started(sys.executable, "-c", _program(body), str(directory), level)
    try:
        assert await until(lambda: len(running(f"sleep\0{marker}")) >= 5, 10)
    finally:
        service.kill()
        service.wait()
    directory.with_name(f"{directory.name}.audit.jsonl").unlink()
    assert await until(lambda: not running(marker), 3)


@each_level
@pytest.mark.parametrize(
    "script",
    [
        "yes",
        "yes >&2",
        "yes & yes >&2",
        "cat /dev/zero | tr '\\0' a",
        "head -c 100M /dev/urandom",
    ],
)
async def test_endless_output_is_cut_off(shell: Make, level: Level, script: str) -> None:
    """A command that prints without end is stopped at the bound of either stream, with flat
    memory. (B-45)"""
    host = shell(level=level, limits=Limits(output_bytes=50_000))
    before = psutil.Process().memory_info().rss
    result = await host.sh(script)
    assert result.exit_kind == "output_limit"
    assert result.truncated
    assert max(host.lines()[-1]["bytes"]) == 50_000
    assert psutil.Process().memory_info().rss - before < 64 * 1024**2


async def test_the_bound_itself_may_be_reached(shell: Make) -> None:
    """Output of exactly the bound is complete; one byte more is cut, though the command is long
    over by then. (B-45)"""
    host = shell(limits=Limits(output_bytes=1000))
    exact = await host.sh("head -c 1000 /dev/zero | tr '\\0' a")
    assert (exact.exit_kind, exact.truncated, len(exact.stdout)) == ("exited", False, 1000)
    over = await host.sh("head -c 1001 /dev/zero | tr '\\0' a")
    assert (over.exit_kind, over.truncated, len(over.stdout)) == ("output_limit", True, 1000)


async def test_bytes_that_are_no_text_are_marked(shell: Make) -> None:
    """Invalid UTF-8 arrives with replacements and is marked as lossy; valid text is not. (B-45)"""
    host = shell()
    broken = await host.sh(r"printf 'a\377b'")
    assert (broken.stdout, broken.lossy) == ("a\ufffdb", True)
    whole = await host.sh("printf 'gr\u00fcn'")
    assert (whole.stdout, whole.lossy) == ("gr\u00fcn", False)


async def _served(host: ShellHost) -> bool:
    """Whether a command gets through. Where the kernel counts all processes of a user, those of
    tests in other processes can be in its way for a moment."""
    for _ in range(1 if AS_ROOT else 5):
        with contextlib.suppress(SandboxError):
            if (await host.sh("echo served")).stdout == "served\n":
                return True
    return False


@each_level
async def test_a_fork_bomb_is_contained(shell: Make, level: Level, marker: str) -> None:
    """A command cannot have more than its number of processes; others are served beside it, and it
    is gone afterwards. (B-46)"""
    limits = Limits(processes=24)
    host = shell(level=level, limits=limits)
    bomb = f"perl -e 'fork while {marker}'"
    again = "do { select(undef, undef, undef, 0.02); next }"
    each = f'defined($p = fork) or {again}; $p or exec "sleep", "{marker}"'
    many = f"perl -e 'while (1) {{ {each} }}'"
    attacks = [asyncio.ensure_future(host.sh(many, timeout_s=3))]
    assert await until(lambda: len(running(f"sleep\0{marker}")) >= 10, 3)
    attacks.append(asyncio.ensure_future(host.sh(bomb, timeout_s=1)))
    assert await until(lambda: len(running(f"while {marker}")) >= 10)
    beside = await _served(host)
    most = len(running(f"sleep\0{marker}"))
    await asyncio.gather(*attacks)
    assert beside
    # the weaker levels count with all processes of the user, those of other tests too
    assert 10 <= most <= (24 if level == "bubblewrap" else 150)
    assert await until(lambda: not running(marker) and not running(f"while {marker}"))


@each_level
async def test_a_busy_user_can_still_start_commands(shell: Make, level: Level, marker: str) -> None:
    """A hundred other processes of the same user do not count against a command. (B-46)"""
    script = f"for i in $(seq 100); do sleep {marker} & done; wait"
    become = ("setpriv", f"--reuid={RUN_AS}", f"--regid={RUN_AS}", "--clear-groups")
    crowd = started(*(become if AS_ROOT else ()), "sh", "-c", script)
    try:
        assert await until(lambda: len(running(f"sleep\0{marker}")) == 100, 10)
        result = await shell(level=level).sh("echo one & echo two & wait")
    finally:
        os.killpg(crowd.pid, signal.SIGKILL)
        crowd.wait()
    assert sorted(result.stdout.split()) == ["one", "two"]


@each_level
async def test_memory_processor_and_files_have_limits(shell: Make, level: Level) -> None:
    """A command that takes too much memory, processor time or disk meets its limit, and the result
    says which. (B-47)"""
    small = Limits(memory_bytes=128 * 1024**2, cpu_s=1, file_bytes=1024**2)
    host = shell(level=level, limits=small)
    memory = await host.sh(
        "head -c 300M /dev/zero | tail -c 290M | wc -c; perl -e '$x = q(a) x 3e8'"
    )
    assert memory.exit_kind == "memory_limit"
    spinner = await host.sh("while :; do :; done")
    assert spinner.exit_kind == "cpu_limit"


async def test_a_disk_filler_stops_at_the_file_limit(shell: Make, directory: Path) -> None:
    """No file of the workspace grows beyond the limit. (B-47)"""
    host = shell(effect="write", limits=Limits(file_bytes=1024**2))
    result = await host.sh("exec head -c 20M /dev/zero > big")
    assert result.exit_kind == "file_limit"
    assert (directory / "big").stat().st_size == 1024**2


async def test_many_files_stop_at_the_limit_of_the_disk(shell: Make, directory: Path) -> None:
    """A command that fills the workspace with files, each within its own limit, is stopped, and
    says why. (B-47)"""
    host = shell(effect="write", limits=Limits(disk_bytes=16 * 1024**2))
    result = await host.sh(
        "i=0; while [ $i -lt 4000 ]; do head -c 1M /dev/zero > f$i; i=$((i + 1)); done"
    )
    assert (result.exit_kind, result.ok) == ("disk_limit", False)
    assert len([*directory.iterdir()]) < 2_000


@each_level
async def test_there_is_no_input(shell: Make, level: Level) -> None:
    """A command that reads its input is at the end at once, and there is no terminal to type
    into. (B-48)"""
    result = await shell(level=level).sh("cat; echo end; tty; cat /dev/tty")
    assert result.stdout.split("\n")[:2] == ["end", "not a tty"]
    assert result.exit_code == 1


@each_level
async def test_ends_are_told_apart(shell: Make, level: Level) -> None:
    """Success, exit codes, an unknown program in a script and signals give distinct results.
    (B-51)"""
    host = shell(level=level)
    ends = [await host.sh(script) for script in ("true", "exit 1", "nope", "kill -SEGV $$")]
    assert [(end.exit_kind, end.exit_code, end.ok) for end in ends] == [
        ("exited", 0, True),
        ("exited", 1, False),
        ("exited", 127, False),
        ("signaled", 139, False),
    ]


@each_level
async def test_a_vanished_program_is_unavailable(shell: Make, level: Level) -> None:
    """A program that is no longer there is the host's trouble, not the command's: unavailable, and
    nothing was started. (B-51)"""
    with pytest.raises(SandboxError, match="is not there") as caught:
        await shell(level=level).host.run(("/usr/bin/no-such-program",))
    assert caught.value.category is Category.UNAVAILABLE
    assert not caught.value.may_have_started


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("a\0b", InvalidInputError),
        ("\ud800", InvalidInputError),
        ("x" * 300_000, InvalidInputError),
    ],
    ids=["null", "surrogate", "too-long"],
)
async def test_arguments_that_no_process_takes(
    shell: Make, argument: str, error: type[Exception]
) -> None:
    """A null byte, a lone surrogate and an argument longer than the kernel takes are errors of the request."""
    with pytest.raises(error):
        await shell().sh(f"echo {argument}")


async def test_a_directory_as_program_is_unavailable() -> None:
    """What cannot be executed is reported as unavailable."""
    launch = Launch(argv=("/usr",), env={})
    with pytest.raises(SandboxError) as caught:
        await run(launch, timeout_s=1, output_bytes=10, drain_s=0.1)
    assert caught.value.category is Category.UNAVAILABLE


@pytest.mark.parametrize("level", BOTH_WEAKER)
async def test_weaker_levels_run_no_writing_rule(shell: Make, level: Level) -> None:
    """A level that cannot keep parts of the workspace read-only refuses rules that write."""
    with pytest.raises(SandboxError, match="read-only"):
        await shell(level=level, effect="write").sh("true")


async def test_landlock_confines_files(shell: Make, directory: Path) -> None:
    """At the landlock level the workspace can be read and not written; the rest of the host,
    secrets of ours and what links lead to cannot be read. (B-31)"""
    (directory / "a").write_text("mine\n")
    (directory / "out").symlink_to("/etc/hostname")
    (directory / ".paceline").mkdir()
    (directory / ".paceline/token").write_text("hush")
    result = await shell(level="landlock").sh(
        "cat a; cat out /etc/hostname /etc/passwd .paceline/token /proc/1/cmdline;"
        " ls /home /tmp /var; echo x > made; echo x > /tmp/made; rm a"
    )
    assert result.stdout == "mine\n"
    assert result.stderr.count("Permission denied") + result.stderr.count("cannot create") >= 9
    assert (directory / "a").exists()


async def test_landlock_confines_environment_and_connections(
    shell: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the landlock level no variable of ours is readable and no TCP connection succeeds, where
    one without it does. (B-34, B-38)"""
    monkeypatch.setenv("SERVICE_TOKEN", "very-secret-value")
    seen: dict[str, str] = {}

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        script = (
            f"bash -c 'echo > /dev/tcp/127.0.0.1/{port}' && echo reached; env;"
            f" cat /proc/{os.getpid()}/environ /proc/*/environ"
        )
        for level in BOTH_WEAKER:
            seen[level] = (await shell(level=level, view="processes").sh(script)).stdout
    assert "reached" not in seen["landlock"]
    assert "reached" in seen["limits"]
    assert "very-secret-value" not in seen["landlock"]


@pytest.mark.parametrize("level", BOTH_WEAKER)
async def test_the_supervisor_cannot_be_killed(shell: Make, level: Level, marker: str) -> None:
    """A command cannot rid itself of its supervisor to live on. (B-41)"""
    if level == "limits" and not AS_ROOT:
        return  # without isolation and under one user, nothing stands between the two
    host = shell(level=level)
    await host.sh(
        f"kill -9 $PPID; kill -STOP $PPID; setsid sleep {marker} & sleep 5", timeout_s=0.5
    )
    assert await until(lambda: not running(marker))


async def test_a_launcher_that_cannot_start_says_so(shell: Make, directory: Path) -> None:
    """When the launcher fails before the command, the error is the sandbox's."""
    host = shell(level="landlock")
    (directory / "closed").mkdir(mode=0o700)
    host.host.sandbox = Sandbox("landlock", run_as=RUN_AS if AS_ROOT else None)
    program = directory / "not-a-program"
    program.write_text("no magic")
    program.chmod(0o755)
    with pytest.raises(SandboxError, match="paceline-launcher"):
        await host.host.run((str(program),))
