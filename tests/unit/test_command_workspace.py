"""The workspace of commands and the command line around it."""

import fcntl
import os
from pathlib import Path

import pytest

from paceline.errors import Category, SandboxError
from paceline.hostexec.sandbox import standins
from paceline.hostexec.sandbox.bubblewrap import HostTree, arguments
from paceline.hostexec.sandbox.command import Command
from paceline.hostexec.sandbox.launcher import Spec
from paceline.hostexec.sandbox.level import Sandbox, supervised
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.workspace import Workspace

ARGV = ("/usr/bin/ls", "-l")


def _line(place: Workspace, /, run_as: int | None = None, **command: object) -> str:
    made = Command(argv=ARGV, **command)  # type: ignore[arg-type]
    return " ".join(
        arguments(made, Limits(), place, tree=HostTree(), run_as=run_as),
    )


def _found(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def test_the_order_of_the_walls(tmp_path: Path) -> None:
    """The user is dropped first, limits come next, and the limit on processes last, inside the
    sandbox, right before the command."""
    line = _line(Workspace(tmp_path), run_as=1234)
    assert line.startswith(
        "/usr/bin/setpriv --reuid=1234 --regid=1234 --clear-groups --no-new-privs"
    )
    order = (
        "setpriv",
        "prlimit --cpu=10:11",
        "/usr/bin/bwrap --unshare-all",
        "-- /usr/bin/prlimit",
    )
    assert [line.index(part) for part in order] == sorted(line.index(part) for part in order)
    assert line.endswith("-- /usr/bin/prlimit --nproc=64 -- /usr/bin/ls -l")
    assert "setpriv" not in _line(Workspace(tmp_path))


@pytest.mark.parametrize(
    "flag",
    ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"],
)
@pytest.mark.parametrize("view", ["none", "processes", "mounts"])
def test_every_command_has_every_wall(tmp_path: Path, flag: str, view: str) -> None:
    """No grant takes a wall away but the network its own."""
    for network in (False, True):
        line = _line(Workspace(tmp_path), view=view, network=network, workspace=True)
        assert f" {flag} " in line
        assert " --cap-drop ALL " in line
        assert (" --share-net " in line) == network


def test_the_workspace_is_bound_only_when_granted(tmp_path: Path) -> None:
    """A command sees the workspace only where its rule says so, and writes only where it says so
    too."""
    workspace = Workspace(tmp_path)
    assert str(tmp_path) not in _line(workspace)
    assert f"--ro-bind {tmp_path} /ws" in _line(workspace, workspace=True)
    assert f" --bind {tmp_path} /ws" in _line(workspace, workspace=True, writable=True)
    assert _line(workspace, workspace=True).count("--chdir /ws") == 1


async def test_guarded_parts_are_made_and_bound(tmp_path: Path) -> None:
    """While a command may write, every guarded part exists, and it and the directories above it
    are mount points, which cannot be renamed; afterwards what was not there is gone. (B-29)"""
    (tmp_path / "state").mkdir()
    names = (".git/", "a/b/c.toml")
    workspace = Workspace(tmp_path, protected=names, hidden=("state", "token"))
    async with workspace.guarded():
        assert (tmp_path / ".git").is_dir()
        assert (tmp_path / "a/b/c.toml").is_file()
        line = _line(workspace, workspace=True, writable=True)
    for part in (
        f"--ro-bind {tmp_path}/.git /ws/.git",
        f"--bind {tmp_path}/a /ws/a --bind {tmp_path}/a/b /ws/a/b",
        f"--ro-bind {tmp_path}/a/b/c.toml /ws/a/b/c.toml",
        "--tmpfs /ws/state --remount-ro /ws/state",
        "--ro-bind /dev/null /ws/token",
    ):
        assert f" {part} " in line
    assert _found(tmp_path) == {"state"}


async def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    """Guarding changes nothing that exists: neither content nor kind, not even what is empty."""
    (tmp_path / ".git").write_text("gitdir: elsewhere")
    (tmp_path / "agents").mkdir()
    (tmp_path / "paceline.toml").touch()
    workspace = Workspace(tmp_path, protected=(".git/", "agents/", "paceline.toml"), hidden=())
    for _ in range(2):
        async with workspace.guarded():
            pass
    assert (tmp_path / ".git").read_text() == "gitdir: elsewhere"
    assert _found(tmp_path) == {".git", "agents", "paceline.toml"}


async def check_stand_ins(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, protected=("agents/", "new/", "paceline.toml"))
    (tmp_path / "paceline.toml").touch()
    (tmp_path / "paceline.toml").chmod(0o1644)  # as a crash leaves it
    async with workspace.guarded():
        async with workspace.guarded():
            pass
        assert (tmp_path / "agents").is_dir()
        assert (tmp_path / ".paceline").is_file(), "no home that a process could take for its own"
        (tmp_path / "new/file").touch()
    assert _found(tmp_path) == {"new", "new/file"}


async def test_stand_ins_last_as_long_as_somebody_needs_them(tmp_path: Path) -> None:
    """Of several commands the last one takes the stand-ins away, also those that a crash left; what
    somebody has filled meanwhile stays. (B-29)"""
    await check_stand_ins(tmp_path)


@pytest.mark.parametrize("name", ["fcntl.flock", "_take_away"])
async def test_stand_ins_taken_away_too_soon_or_never_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without the lock, or without tidying up, the check above fails."""
    monkeypatch.setattr(f"paceline.hostexec.sandbox.standins.{name}", lambda *_: None)
    with pytest.raises(AssertionError):
        await check_stand_ins(tmp_path)


async def test_a_workspace_locked_by_others_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another program keeps the workspace locked, nothing is run that writes, and it can be
    tried again. (B-29)"""
    monkeypatch.setattr(standins, "_ROUND_S", 0.0)
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SandboxError) as caught:
            async with Workspace(tmp_path).guarded():
                raise AssertionError
    finally:
        os.close(other)
    assert caught.value.category is Category.UNAVAILABLE
    assert not _found(tmp_path)
    async with Workspace(tmp_path).guarded():
        assert (tmp_path / ".git").exists()


@pytest.mark.parametrize("place", ["a", "a/b"])
async def test_links_cannot_be_guarded(tmp_path: Path, place: str) -> None:
    """A symbolic link at a guarded part, or on the way to it, is refused. (B-30)"""
    (tmp_path / "real").mkdir()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(tmp_path / "real")
    with pytest.raises(SandboxError, match="symbolic link"):
        async with Workspace(tmp_path, protected=("a/b/",), hidden=()).guarded():
            raise AssertionError
    assert Workspace(tmp_path).present(("a/b",)) == ()


@pytest.mark.parametrize("name", ["/etc", "../x", "a/../../x", ""])
def test_guarded_parts_lie_inside(tmp_path: Path, name: str) -> None:
    """A guarded name that leads out of the workspace is refused."""
    with pytest.raises(SandboxError):
        Workspace(tmp_path, protected=(name,))


def test_what_is_no_workspace(tmp_path: Path) -> None:
    """A missing directory, a file, a link to itself and the root of the host are no workspace."""
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to("round")
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / "round", Path("/")):
        with pytest.raises(SandboxError):
            Workspace(path)


def test_the_directory_in_the_way_is_found(tmp_path: Path) -> None:
    """The first directory that another user cannot enter is named; nobody is kept out of what is
    open."""
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    for path in (inner, *inner.parents):
        if path.is_relative_to(tmp_path):
            path.chmod(0o755)
    own = os.getuid(), os.getgid()
    workspace = Workspace(inner)
    assert workspace.closed_at(*own) is None
    (tmp_path / "a").chmod(0o600)
    try:
        assert Workspace(tmp_path).closed_at(*own) is None
        closed = workspace.closed_at(*own)
    finally:
        (tmp_path / "a").chmod(0o755)
    assert closed == tmp_path / "a"


def test_landlock_is_told_of_all_but_the_hidden(tmp_path: Path) -> None:
    """The list of what may be read has the whole workspace save its hidden parts; without a
    workspace it has nothing of it."""
    for name in ("src", "keep/inner", "keep/secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("/etc")
    workspace = Workspace(tmp_path, protected=(), hidden=("keep/secret/",))
    whole, names = workspace.readable()
    assert set(whole) == {tmp_path / "src", tmp_path / "keep/inner"}
    assert set(names) == {tmp_path, tmp_path / "keep"}
    spec = supervised(Command(argv=ARGV), Limits(), workspace, confined=True, run_as=None)
    assert not [path for path in spec.paths["read"] if path.startswith(str(tmp_path))]
    assert spec.paths["write"] == ["/dev/null"]
    assert (spec.numbers["landlock"], spec.numbers["user"]) == (1, -1)
    without = supervised(Command(argv=ARGV), Limits(), workspace, confined=False, run_as=7)
    assert (without.numbers["landlock"], without.numbers["user"]) == (0, 7)


def test_the_launcher_reads_what_it_is_told(tmp_path: Path) -> None:
    """A spec survives its way through arguments, with any name a path can have; what is no spec is
    an error."""
    odd = tmp_path / "-- a=b\n"
    odd.mkdir()
    command = Command(argv=("/usr/bin/ls", "--", "cpu=9"), workspace=True)
    spec = supervised(command, Limits(), Workspace(odd), confined=True, run_as=7)
    read, argv = Spec.parse([*spec.arguments(), *command.argv])
    assert vars(read) == {**vars(spec), "paths": {k: v for k, v in spec.paths.items() if v}}
    assert argv == list(command.argv)
    for wrong in (["--"], ["cpu=x", "--"], ["evil=1", "--"], []):
        with pytest.raises(ValueError, match=r"\w"):
            Spec.parse([*wrong, *command.argv][: len(wrong)])


def test_too_many_names_are_told_as_that(tmp_path: Path) -> None:
    """A workspace whose names cannot all be handed to the launcher is refused with what to do,
    and not for the length of the command."""
    (tmp_path / ".paceline").mkdir()
    for number in range(300):
        (tmp_path / f"{number}{'x' * 200}").touch()
    command, sandbox = Command(argv=ARGV, workspace=True), Sandbox("landlock", run_as=None)
    assert sandbox.launch(command, Limits(), Workspace(tmp_path)).argv[-2:] == ARGV
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paceline.hostexec.sandbox.level._MOST_SPEC_BYTES", 50_000)
        with pytest.raises(SandboxError, match="too many names") as caught:
            sandbox.launch(command, Limits(), Workspace(tmp_path))
    assert "PACELINE_HOME" in caught.value.next_step


async def test_readers_keep_what_stands_in_and_clean_up_after_a_crash(tmp_path: Path) -> None:
    """While a command reads, stand-ins of a command that writes do not go; when the last has ended
    they do, those that a crash has left too, and a reader makes none. (B-29)"""
    workspace = Workspace(tmp_path)
    async with workspace.guarded(writing=False):
        assert list(tmp_path.iterdir()) == []
        async with workspace.guarded():
            assert (tmp_path / ".paceline").exists()
        assert (tmp_path / ".paceline").exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "paceline.toml").touch()
    (tmp_path / "paceline.toml").chmod(0o1644)
    async with workspace.guarded(writing=False):
        assert (tmp_path / "paceline.toml").exists()
    assert list(tmp_path.iterdir()) == []


async def test_a_workspace_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    """Where the workspace has been removed meanwhile, the error is typed and says what to do."""
    (tmp_path / "work").mkdir()
    workspace = Workspace(tmp_path / "work")
    (tmp_path / "work").rmdir()
    with pytest.raises(SandboxError) as caught:
        async with workspace.guarded(writing=False):
            raise AssertionError
    assert "workspace" in caught.value.next_step
