"""What a command in the strongest sandbox cannot reach, tried for real."""

import asyncio
import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paceline.errors import SandboxError
from paceline.hostexec.sandbox import bubblewrap
from paceline.hostexec.sandbox.level import Sandbox, choose_sandbox
from paceline.hostexec.sandbox.probe import probe
from paceline.hostexec.sandbox.workspace import Workspace
from tests.security.shell_host import AS_ROOT, RUN_AS, USER, ShellHost, open_directory, started

Make = Callable[..., ShellHost]


def _repository(directory: Path) -> None:
    git = ("git", "-C", str(directory), "-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run((*git, "init", "-q", "-b", "main"), check=True)
    (directory / "a.txt").write_text("one\n")
    subprocess.run((*git, "add", "a.txt"), check=True)
    subprocess.run((*git, "commit", "-q", "-m", "first"), check=True)


def _found(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def _open_all(directory: Path) -> None:
    for path in directory.rglob("*"):
        path.chmod(0o777)


async def test_a_hostile_repository_changes_nothing(shell: Make, directory: Path) -> None:
    """Git run on a repository whose configuration starts a program leaves no mark. (B-27)"""
    _repository(directory)
    with (directory / ".git/config").open("a") as file:
        file.write('[core]\n\tfsmonitor = "touch PWN /tmp/PWN; false"\n')
    result = await shell().sh("git -c safe.directory='*' status --short; echo done")
    assert "done" in result.stdout
    assert not (directory / "PWN").exists()
    assert not (directory.parent / "PWN").exists()


async def test_drivers_filters_and_hooks_stay_inside(shell: Make, directory: Path) -> None:
    """Programs named by attributes, filters and hooks of a repository reach nothing outside, not
    even where the command may write. (B-28)"""
    _repository(directory)
    (directory / ".gitattributes").write_text("*.txt diff=evil filter=evil\n")
    outside = directory.with_name(f"{directory.name}-escaped")
    with (directory / ".git/config").open("a") as file:
        file.write(
            f'[diff "evil"]\n\ttextconv = "touch {outside}; cat"\n\tcommand = "touch {outside}"\n'
            f'[filter "evil"]\n\tclean = "touch {outside}; cat"\n'
        )
    hook = directory / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {outside}\n")
    hook.chmod(0o755)
    (directory / "a.txt").write_text("two\n")
    host = shell(effect="write")
    await host.sh(
        "git -c safe.directory='*' diff; git -c safe.directory='*' status;"
        " git -c safe.directory='*' checkout -q -b other"
    )
    assert not outside.exists()


@pytest.mark.parametrize("existed", [True, False])
async def test_protected_parts_stay_as_they_are(
    shell: Make, directory: Path, *, existed: bool
) -> None:
    """A command that may write cannot change, make, move or replace what runs code later, whether
    it was there before or not. (B-29, B-30)"""
    if existed:
        _repository(directory)
        (directory / "paceline.toml").write_text("[run]\n")
        (directory / "sub/agents").mkdir(parents=True)
        (directory / "sub/agents/a.py").write_text("x = 1\n")
    _open_all(directory)
    host = shell(effect="write", protected=(".git/", "paceline.toml", "sub/agents/"))
    attacks = (
        "mkdir -p .git/hooks",
        "echo x > .git/hooks/pre-commit",
        "echo x >> .git/config",
        "echo x > paceline.toml",
        "echo x > sub/agents/a.py",
        "rm -rf .git sub/agents paceline.toml",
        "mv .git gone",
        "mv sub elsewhere && mkdir -p sub/agents && echo x > sub/agents/evil.py",
        "ln -sfn /ws/mine .git",
        "ln -sf mine paceline.toml",
        "chmod 777 .git",
    )
    script = "\n".join(f"( {attack} )" for attack in attacks)
    result = await host.sh(f"{script}\necho fine > allowed.txt; cat allowed.txt")
    assert result.stdout == "fine\n", "what is not protected can be written"
    assert "Read-only file system" in result.stderr
    assert (directory / "allowed.txt").read_text() == "fine\n"
    assert not (directory / ".git").is_symlink()
    assert not (directory / ".git/hooks/pre-commit").exists()
    assert not (directory / "elsewhere").exists()
    assert not (directory / "sub/agents/evil.py").exists()
    if not existed:
        assert _found(directory) == {"allowed.txt"}
    else:
        assert (directory / "paceline.toml").read_text() == "[run]\n"
        assert (directory / "sub/agents/a.py").read_text() == "x = 1\n"
        assert "x" not in (directory / ".git/config").read_text().split()


async def test_a_protected_link_refuses_writing_commands(shell: Make, directory: Path) -> None:
    """Where a protected part is a symbolic link, no command that writes is run. (B-30)"""
    (directory / "real").mkdir()
    (directory / ".git").symlink_to("real")
    with pytest.raises(SandboxError, match="symbolic link"):
        await shell(effect="write").sh("echo never > ran")
    assert not (directory / "ran").exists()


async def test_commands_at_once_keep_each_others_guards(shell: Make, directory: Path) -> None:
    """A command that ends does not take away what guards another that still runs. (B-29)"""
    host = shell(effect="write")
    long = asyncio.ensure_future(
        host.sh("touch here; while [ -e here ]; do :; done; mkdir .git/hooks; mkdir .paceline")
    )
    while not (directory / "here").exists():
        await asyncio.wait({long}, timeout=0.01)
    await host.sh("rm here")
    result = await long
    assert "Read-only file system" in result.stderr
    assert not _found(directory)


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_state_behind_a_link_is_not_readable(
    shell: Make, directory: Path, effect: str
) -> None:
    """State that is reached through a symbolic link, inside the workspace or outside of it, is as
    hidden where it really is; a link that could be replaced lets no command write."""
    (directory / "real").mkdir()
    (directory / "real/token").write_text("hush")
    (directory / "real/token").chmod(0o644)
    with open_directory() as elsewhere:
        (elsewhere / "way").symlink_to(directory / "real")
        host = shell(effect=effect)
        host.host.workspace = Workspace.guarding(directory, unseen=[elsewhere / "way"])
        result = await host.sh("cat real/token; ls -A real; echo end")
        assert result.stdout == "end\n"
        (directory / ".paceline").symlink_to("real/")
        host.host.workspace = Workspace.guarding(directory)
        if effect == "write":
            with pytest.raises(SandboxError, match="symbolic link"):
                await host.sh("true")
        else:
            result = await host.sh("cat real/token .paceline/token; echo end")
            assert result.stdout == "end\n"


async def test_our_own_state_is_not_readable(shell: Make, directory: Path) -> None:
    """The state directory inside the workspace looks empty to commands, writing ones too, even
    when its files are readable for all."""
    (directory / ".paceline").mkdir()
    (directory / ".paceline/token").write_text("hush")
    (directory / ".paceline/token").chmod(0o644)
    for effect in ("read", "write"):
        result = await shell(effect=effect).sh("cat .paceline/token; ls -A .paceline; echo end")
        assert result.stdout == "end\n"


async def test_files_of_the_host_are_not_there(shell: Make, directory: Path) -> None:
    """Password hashes, home directories and what a link in the workspace points to outside do not
    exist inside. (B-31)"""
    (directory / "out").symlink_to("/etc")
    script = "for f in /etc/shadow /etc/passwd /root /home out/shadow out/passwd; do cat $f; done"
    result = await shell().sh(script)
    assert result.stdout == ""
    assert result.stderr.count("No such file") == 6
    listed = await shell().sh("ls /")
    assert set(listed.stdout.split()) <= {
        *("bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr"),
        "ws",
    }


async def test_swapping_a_path_for_a_link_leaks_nothing(shell: Make, directory: Path) -> None:
    """While somebody keeps swapping a file for a link to a secret outside, no reader ever gets
    the secret: the wall is the mount, not a check of the path. (B-32)"""
    with open_directory() as elsewhere:
        (elsewhere / "secret").write_text("LEAKED")
        (elsewhere / "secret").chmod(0o644)
        stop = threading.Event()

        def flip() -> None:
            while not stop.is_set():
                fresh = directory / "fresh"
                fresh.write_text("safe\n")
                fresh.replace(directory / "f")
                fresh.symlink_to(elsewhere / "secret")
                fresh.replace(directory / "f")

        flipper = threading.Thread(target=flip)
        flipper.start()
        try:
            result = await shell().sh(
                "i=0; while [ $i -lt 400 ]; do cat f; i=$((i+1)); done; echo end"
            )
        finally:
            stop.set()
            flipper.join()
    assert "safe" in result.stdout
    assert result.stdout.endswith("end\n")
    assert "LEAKED" not in result.stdout


async def test_names_near_the_workspace_lead_nowhere(shell: Make, directory: Path) -> None:
    """Siblings with the same prefix, parents and dotted spellings reach the workspace or
    nothing. (B-33)"""
    (directory / "x").write_text("mine\n")
    sibling = directory.parent / f"{directory.name}-evil"
    sibling.mkdir()
    try:
        (sibling / "x").write_text("theirs\n")
        result = await shell().sh(
            f"cat ./x ../ws/x x/. ../{sibling.name}/x /ws-evil/x {sibling}/x ../../x; ls -A /tmp"
        )
    finally:
        (sibling / "x").unlink()
        sibling.rmdir()
    assert result.stdout == "mine\nmine\n"


@pytest.mark.parametrize("view", ["none", "processes", "mounts"])
async def test_the_environment_is_ours_alone(
    shell: Make, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    """No variable of the service is seen by a command: not its own, not its parent's, not that of
    the first process, whatever it may see of the host. (B-34)"""
    monkeypatch.setenv("SERVICE_TOKEN", "very-secret-value")
    result = await shell(view=view, env={"EXTRA": "1"}).sh(
        "env; cat /proc/self/environ /proc/1/environ /proc/$PPID/environ"
        f" /proc/{os.getpid()}/environ; cat /proc/*/environ"
    )
    assert "EXTRA=1" in result.stdout
    assert "very-secret-value" not in result.stdout
    assert "SERVICE_TOKEN" not in result.stdout


async def test_open_files_are_not_inherited(shell: Make) -> None:
    """A file that the service has open under an inheritable number is not open inside. (B-35)"""
    reading, writing = os.pipe()
    high = fcntl.fcntl(writing, fcntl.F_DUPFD, 200)  # inheritable, unlike all that Python opens
    try:
        result = await shell().sh(f"ls /proc/self/fd; echo x > /proc/self/fd/{high}")
    finally:
        for file in (reading, writing, high):
            os.close(file)
    assert set(result.stdout.split()) == {"0", "1", "2", "3"}
    assert result.exit_code != 0


async def test_no_rights_at_all(shell: Make) -> None:
    """A command has no capability, gains none, and is not root, whoever runs the service. (B-36)"""
    result = await shell().sh("grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status")
    fields = dict(line.split(":", 1) for line in result.stdout.splitlines())
    assert {fields[name].strip() for name in fields if name.startswith("Cap")} == {"0" * 16}
    assert fields["NoNewPrivs"].strip() == "1"
    uid = str(RUN_AS if AS_ROOT else os.getuid())
    assert fields["Uid"].split() == [uid] * 4
    assert uid != "0"


async def test_no_namespace_in_the_namespace(shell: Make) -> None:
    """A command cannot make a user namespace of its own. (B-37)"""
    result = await shell().sh("unshare -U true && echo made; unshare -rn true && echo made")
    assert "made" not in result.stdout
    assert "unshare failed" in result.stderr


async def test_no_network(shell: Make, directory: Path) -> None:
    """Neither TCP, UDP, name lookups, sockets of other programs nor our own port can be
    reached. (B-38)"""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
        open_directory() as elsewhere,
    ):
        tcp.setblocking(False)
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        named.bind(str(elsewhere / "s"))
        (elsewhere / "s").chmod(0o777)
        abstract.bind(f"\0{directory.name}")
        for server in (named, abstract):
            server.listen()
            server.setblocking(False)
        ports = tcp.getsockname()[1], udp.getsockname()[1]
        # perl's own packing, as no shell reaches sockets of the local kind
        connect = "perl -MSocket -e 'socket(S,PF_UNIX,SOCK_STREAM,0);connect(S,%s) or die'"
        script = (
            f"bash -c 'echo hi > /dev/tcp/127.0.0.1/{ports[0]}' && echo reached tcp\n"
            f"bash -c 'echo hi > /dev/udp/127.0.0.1/{ports[1]}' && echo sent udp\n"
            "getent hosts example.org && echo reached names\n"
            f"{connect % f'pack_sockaddr_un(q({elsewhere}/s))'} && echo reached named\n"
            f"{connect % f'pack(q(Sa*),1,chr(0).q({directory.name}))'} && echo reached abstract\n"
            "echo; tail -n +3 /proc/net/dev | cut -d: -f1"
        )
        result = await shell().sh(script)
        said, _, interfaces = result.stdout.partition("\n\n")
        assert "reached" not in said
        assert interfaces.split() == ["lo"]
        for server in (tcp, named, abstract):
            with pytest.raises(BlockingIOError):
                server.accept()
        with pytest.raises(BlockingIOError):
            udp.recv(10)
        # the same script does get through where a rule grants the network
        granted = await shell(network=True).sh(script)
        assert "reached tcp\n" in granted.stdout
        assert "reached abstract\n" in granted.stdout
        assert "reached named" not in granted.stdout
        assert udp.recv(10) == b"hi\n"


async def test_processes_of_the_host_are_out_of_reach(shell: Make) -> None:
    """A command sees only its own few processes, and killing number 1, or everybody, hurts only
    itself; one that may see the host's list can signal nobody on it. (B-39)"""
    result = await shell().sh("ls -d /proc/[0-9]* | wc -l; kill -9 1; echo alive; kill -9 -1")
    assert int(result.stdout.split()[0]) <= 4
    assert "alive" in result.stdout
    with started("sleep", "60") as victim:
        try:
            viewing = await shell(view="processes").sh(
                f"cat /proc/{victim.pid}/comm; kill -9 {victim.pid}; kill -9 -1"
            )
            assert viewing.stdout == "sleep\n"
            assert victim.poll() is None
        finally:
            victim.kill()


async def test_devices_mounts_and_setuid_do_not_work(shell: Make) -> None:
    """No device node, no mount, no disk, no gain from a setuid program. (B-40)"""
    result = await shell(effect="write").sh(
        "mknod n c 1 3 && echo made; mount -t tmpfs none /tmp && echo made\n"
        "mount --bind /usr /tmp && echo made; umount /proc && echo made\n"
        "ls /dev/sd* /dev/vd* /dev/nvme* /dev/kmsg /dev/mem && echo made\n"
        "cp /usr/bin/id mine && chmod u+s mine && ./mine -u\n"
        "for s in /usr/bin/su /usr/bin/mount /usr/bin/passwd; do [ -u $s ] && echo found; done\n"
        "su -c 'echo made' </dev/null; grep ' /usr ' /proc/self/mountinfo"
    )
    assert "made" not in result.stdout
    assert "nosuid" in result.stdout
    assert str(RUN_AS if AS_ROOT else os.getuid()) in result.stdout.split()


async def test_the_tree_outside_the_workspace_is_read_only(shell: Make) -> None:
    """Nothing but the scratch directory can be written, and that is bounded and private."""
    host = shell()
    result = await host.sh(
        "for d in / /usr /etc /dev /proc /ws /usr/bin; do echo x > $d/made && echo wrote $d; done\n"
        "head -c 64M /dev/zero > /dev/shm/a; head -c 64M /dev/zero > /tmp/b; echo x > /tmp/c\n"
        "du -sm /tmp /dev/shm | cut -f1"
    )
    assert "wrote" not in result.stdout
    assert all(int(size) <= 17 for size in result.stdout.split())
    assert (await host.sh("ls /tmp")).stdout == ""


async def test_the_mounts_view_measures_and_does_not_write(shell: Make) -> None:
    """A command that asks for file systems sees the host's, and changes none."""
    result = await shell(view="mounts", effect="write").sh("df -P / | tail -1; echo x > ./made")
    assert result.stdout.split()[-1] == "/"
    assert "Read-only file system" in result.stderr


async def test_a_closed_workspace_is_named(shell: Make, directory: Path) -> None:
    """Where the user that commands run as may not enter the workspace, the error names the
    directory in the way and how to open it."""
    inner = directory / "closed/ws"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    uid = RUN_AS if AS_ROOT else os.getuid() + 1
    sandbox = Sandbox("bubblewrap", run_as=uid)
    host = shell()
    host.host.sandbox = sandbox
    host.host.workspace = Workspace(inner)
    with pytest.raises(SandboxError, match="closed") as caught:
        await host.sh("true")
    assert "chmod o+rx" in caught.value.next_step


async def test_the_strongest_level_works_here() -> None:
    """On a machine that tests Paceline, bubblewrap works and holds all it promises: a missing
    sandbox fails the tests and is never skipped. (B-49)"""
    sandbox = await choose_sandbox("auto", run_as=RUN_AS)
    assert (sandbox.level, sandbox.warning) == ("bubblewrap", "")
    findings = await probe(sandbox, Workspace(Path("/usr")))
    assert [finding for finding in findings if not finding.ok] == []
    assert all(finding.required for finding in findings)


async def test_a_missing_bubblewrap_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bubblewrap, asking for it is an error with advice, and `auto` says what the weaker
    level does not protect from. (B-49)"""
    monkeypatch.setattr(bubblewrap, "BWRAP", "/nowhere/bwrap")
    with pytest.raises(SandboxError, match="there is no /nowhere/bwrap") as caught:
        await choose_sandbox("bubblewrap", run_as=RUN_AS)
    assert "apt install bubblewrap" in caught.value.next_step
    weaker = await choose_sandbox("auto", run_as=RUN_AS)
    assert weaker.level == "landlock"
    assert "/nowhere/bwrap" in weaker.warning
    assert "UDP" in weaker.warning


async def test_forbidden_namespaces_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the host forbids user namespaces, the tool's own complaint is the reason given, and
    `auto` never falls to a level without isolation. (B-49)"""

    async def forbidden(sandbox: Sandbox) -> str:
        return "bwrap: No permissions to create new namespace"

    with pytest.raises(SandboxError, match=r"No permissions.*landlock"):
        await choose_sandbox("auto", run_as=RUN_AS, check=forbidden)
    only = await choose_sandbox("limits", run_as=RUN_AS)
    assert "WITHOUT a sandbox" in only.warning


async def test_a_broken_sandbox_is_no_failed_command(shell: Make, directory: Path) -> None:
    """What the sandbox's own tools complain of is the sandbox's error, not the command's."""
    host = shell()
    host.host.sandbox = Sandbox(
        "bubblewrap", run_as=USER, tree=bubblewrap.HostTree(directories=("/nowhere",))
    )
    with pytest.raises(SandboxError, match="bwrap: "):
        await host.host.run(("sh", "true"))
    assert host.lines()[-1]["exit"] == "not_started"


def _without(*tokens: str, instead: tuple[str, ...] = ()) -> Callable[..., tuple[str, ...]]:
    real = bubblewrap.arguments

    def arguments(*args: Any, **options: Any) -> tuple[str, ...]:
        made = list(real(*args, **options))
        for at in range(len(made)):
            if tuple(made[at : at + len(tokens)]) == tokens:
                made[at : at + len(tokens)] = instead
                return tuple(made)
        raise AssertionError(f"{tokens} is not among the arguments")

    return arguments


@pytest.mark.parametrize(
    ("flag", "instead", "noticed"),
    [
        (("--unshare-all",), ("--unshare-all", "--share-net"), "no connection to the host"),
        (("--new-session",), (), "own session"),
        (("--disable-userns",), (), "no nested user namespaces"),
        (("--unshare-all",), ("--unshare-net",), "host processes absent"),
        (("--remount-ro", "/"), ("--ro-bind", "/etc", "/etc"), "host files absent"),
    ],
)
async def test_the_probe_notices_a_missing_wall(
    monkeypatch: pytest.MonkeyPatch,
    flag: tuple[str, ...],
    instead: tuple[str, ...],
    noticed: str,
) -> None:
    """With any one argument of the sandbox taken away, the self-check names what no longer
    holds."""
    monkeypatch.setattr(bubblewrap, "arguments", _without(*flag, instead=instead))
    findings = await probe(Sandbox("bubblewrap", run_as=USER), Workspace(Path("/usr")))
    assert noticed in {finding.name for finding in findings if not finding.ok}


async def test_the_probe_notices_rights_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where root forgets to drop its user, the self-check says so, and says it of the
    capabilities too once those are kept. (B-36)"""
    workspace = Workspace(Path("/usr"))
    careless = Sandbox("bubblewrap", run_as=None)
    findings = await probe(careless, workspace)
    assert ("not root" in {f.name for f in findings if not f.ok}) == AS_ROOT
    monkeypatch.setattr(bubblewrap, "arguments", _without("--cap-drop", "ALL"))
    findings = await probe(careless, workspace)
    assert ("no capabilities" in {f.name for f in findings if not f.ok}) == AS_ROOT


async def test_the_probe_notices_a_leaking_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that hands its own environment on is caught by the variable's name. (B-34)"""
    real = Sandbox.launch
    monkeypatch.setenv("SERVICE_TOKEN", "x")

    def leaking(*args: Any) -> Any:
        launch = real(*args)
        return type(launch)(argv=launch.argv, env={**os.environ, **launch.env})

    monkeypatch.setattr(Sandbox, "launch", leaking)
    findings = await probe(Sandbox("bubblewrap", run_as=USER), Workspace(Path("/usr")))
    leak = next(finding for finding in findings if finding.name == "clean environment")
    assert not leak.ok
    assert "SERVICE_TOKEN" in leak.detail


@pytest.mark.parametrize("level", ["landlock", "limits"])
async def test_weaker_levels_hold_what_they_promise(level: Any) -> None:
    """Every wall that a weaker level promises holds, and the self-check admits which others are
    missing."""
    findings = await probe(Sandbox(level, run_as=USER), Workspace(Path("/usr")))
    assert [finding for finding in findings if finding.required and not finding.ok] == []
    assert any(not finding.ok for finding in findings)
