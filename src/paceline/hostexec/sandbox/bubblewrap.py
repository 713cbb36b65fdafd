"""The strongest level: the command line that builds a sandbox of namespaces with bubblewrap.

Nothing is started here: facts in, arguments out. What is protected is exactly what these arguments say, so each of
them has a probe (`paceline.hostexec.sandbox.probe`) that notices when it is gone.
"""

from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from paceline.hostexec.sandbox.command import Command
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.workspace import Workspace

__all__ = ["BWRAP", "WORKSPACE", "HostTree", "arguments"]

BWRAP: Final = "/usr/bin/bwrap"
"""By this path only: it is the one that distributions' AppArmor profiles allow."""
SETPRIV: Final = "/usr/bin/setpriv"
PRLIMIT: Final = "/usr/bin/prlimit"
WORKSPACE: Final = "/ws"
"""Where the workspace is inside: the host's path is not shown."""

_ETC: Final = (
    "alternatives",
    "debian_version",
    "ld.so.cache",
    "localtime",
    "lsb-release",
    "os-release",
    "timezone",
)
_ETC_NETWORK: Final = (
    "ca-certificates",
    "hosts",
    "nsswitch.conf",
    "pki",
    "resolv.conf",
    "ssl/certs",
)


class HostTree(msgspec.Struct, frozen=True):
    """How this host lays out the directories that programs need beside /usr."""

    links: tuple[tuple[str, str], ...] = (
        ("usr/bin", "/bin"),
        ("usr/sbin", "/sbin"),
        ("usr/lib", "/lib"),
        ("usr/lib64", "/lib64"),
    )
    """(target, path) of symbolic links."""
    directories: tuple[str, ...] = ()
    """Real directories, on hosts that keep them apart from /usr."""

    @classmethod
    def here(cls) -> "HostTree":
        """The layout of this machine."""
        roots = [Path(p) for p in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")]
        return cls(
            tuple((str(p.readlink()), str(p)) for p in roots if p.is_symlink()),
            tuple(str(p) for p in roots if p.is_dir() and not p.is_symlink()),
        )


def arguments(
    command: Command, limits: Limits, workspace: Workspace, *, tree: HostTree, run_as: int | None
) -> tuple[str, ...]:
    """The whole command line. `run_as` is the user to become first, None to stay who we are."""
    return (
        *(_become(run_as) if run_as is not None else ()),
        *_bounds(limits),
        BWRAP,
        *_isolation(command),
        *_root(command, limits, tree),
        *(_workspace(command, workspace) if command.workspace else ("--chdir", "/")),
        *(() if command.view == "mounts" else ("--remount-ro", "/")),
        "--",
        # Inside, where only the sandbox's own processes count: outside, every process that the
        # user has on the host would.
        PRLIMIT,
        f"--nproc={limits.processes}",
        "--",
        *command.argv,
    )


def _become(uid: int) -> tuple[str, ...]:
    # Outside the sandbox: limits on processes do not bind a user that is root out there.
    return (SETPRIV, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs")


def _bounds(limits: Limits) -> tuple[str, ...]:
    return (
        PRLIMIT,
        f"--cpu={limits.cpu_s}:{limits.cpu_s + 1}",
        f"--as={limits.memory_bytes}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        "--core=0",
        "--",
    )


def _isolation(command: Command) -> tuple[str, ...]:
    return (
        "--unshare-all",
        *(("--share-net",) if command.network else ()),
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
    )


def _root(command: Command, limits: Limits, tree: HostTree) -> tuple[str, ...]:
    if command.view == "mounts":
        # No file of it is opened by the programs this view is for: they ask for sizes.
        return ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--remount-ro", "/dev")
    scratch = ("--size", str(limits.file_bytes), "--tmpfs")
    etc = _ETC + (_ETC_NETWORK if command.network else ())
    return (
        *("--ro-bind", "/usr", "/usr"),
        *(arg for target, path in tree.links for arg in ("--symlink", target, path)),
        *(arg for path in tree.directories for arg in ("--ro-bind", path, path)),
        *(arg for name in etc for arg in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")),
        # The process list of the host is only read: the command's own processes stay apart, so
        # it can signal nobody and dies as a whole.
        *(("--ro-bind", "/proc", "/proc") if command.view == "processes" else ("--proc", "/proc")),
        *("--dev", "/dev"),
        *(*scratch, "/dev/shm"),  # noqa: S108 (inside)
        *("--remount-ro", "/dev"),
        *(*scratch, "/tmp"),  # noqa: S108 (inside)
    )


def _workspace(command: Command, workspace: Workspace) -> tuple[str, ...]:
    host, inside = workspace.path, PurePosixPath(WORKSPACE)
    if command.view == "mounts":
        return ("--chdir", str(host))
    if not command.writable:
        return (
            *("--ro-bind", str(host), str(inside)),
            *_hide(workspace),
            *("--chdir", str(inside)),
        )
    protected = workspace.present(workspace.protected)
    hidden = workspace.present(workspace.hidden)
    # A mount point cannot be renamed; a directory above one can, and would take it along.
    above = {p for name in (*protected, *hidden) for p in PurePosixPath(name).parents} - {
        PurePosixPath()
    }
    return (
        *("--bind", str(host), str(inside)),
        *(arg for p in sorted(above) for arg in ("--bind", str(host / p), str(inside / p))),
        *(arg for n in protected for arg in ("--ro-bind", str(host / n), str(inside / n))),
        *_hide(workspace),
        *("--chdir", str(inside)),
    )


def _hide(workspace: Workspace) -> tuple[str, ...]:
    return tuple(
        arg
        for name in workspace.present(workspace.hidden)
        for path in (f"{WORKSPACE}/{name}",)
        for arg in (
            # an empty read-only directory, or the null device for a file
            ("--tmpfs", path, "--remount-ro", path)
            if (workspace.path / name).is_dir()
            else ("--ro-bind", "/dev/null", path)
        )
    )
