"""Isolation levels, and which of them works here.

============  =============================================================================
bubblewrap    own view of files, processes, network and users; writes only where granted
landlock      a list of what may be opened, TCP closed, no signals outwards; no write rules, but
              modes, owners and times of files can be changed
limits        only a dropped user, resource limits and no new privileges: by request only
============  =============================================================================

At every level the command has limits, gains no privilege, and dies with everything it started.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final, Literal, final

from paceline.errors import Category, SandboxError
from paceline.hostexec.sandbox import bubblewrap, launcher
from paceline.hostexec.sandbox.command import Command, Launch
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.process import Ended, run
from paceline.hostexec.sandbox.workspace import Workspace

__all__ = ["LEVELS", "Level", "Sandbox", "choose_sandbox", "launch_failure", "supervised"]

Level = Literal["bubblewrap", "landlock", "limits"]
LEVELS: Final[tuple[Level, ...]] = ("bubblewrap", "landlock", "limits")
"""The strongest first."""

_CHECK_S: Final = 10.0
_SUPERVISOR_GRACE_S: Final = 3.0
_MOST_SPEC_BYTES: Final = 1024**2
"""Half of what a process usually may be handed; the rest is the command's."""
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8", "HOME": "/tmp"}  # noqa: S108 (inside)
_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives"),
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/os-release",
    "/proc/cpuinfo",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/dev/urandom",
    "/dev/zero",
)
_NETWORK_FILES: Final = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/ssl/certs")
_SPEAKERS: Final = ("bwrap: ", "setpriv: ", "prlimit: ", launcher.NAME)


@final
class Sandbox:
    """One isolation level, with what it needs to know of this host."""

    __slots__ = ("_tree", "level", "run_as", "warning")

    def __init__(
        self,
        level: Level,
        *,
        run_as: int | None,
        warning: str = "",
        tree: bubblewrap.HostTree | None = None,
    ) -> None:
        """`run_as` is the user that commands become, None to stay who we are (not as root).
        `warning` says what this level does not protect from; empty for the strongest."""
        self.level: Level = level
        self.run_as = run_as
        self.warning = warning
        self._tree = tree or bubblewrap.HostTree.here()

    @contextlib.asynccontextmanager
    async def prepared(
        self, command: Command, limits: Limits, workspace: Workspace
    ) -> AsyncGenerator[Launch]:
        """The process to start for this command, which has to end before the block does.

        Raises SandboxError as `launch`, and where the workspace cannot be guarded from a command
        that writes.
        """
        async with contextlib.AsyncExitStack() as guard:
            if command.workspace and self.level == "bubblewrap":
                await guard.enter_async_context(workspace.guarded(writing=command.writable))
            yield self.launch(command, limits, workspace)

    def launch(self, command: Command, limits: Limits, workspace: Workspace) -> Launch:
        """The process to start for this command; `prepared` is for those that write too.

        Raises SandboxError where this level cannot grant what the command needs, or the
        workspace is out of reach for the user it would run as.
        """
        if not Path(command.argv[0]).is_file():
            raise SandboxError(
                f"the program {command.argv[0]} is not there",
                next_step="Install it, or take its rule out of the policy.",
                category=Category.UNAVAILABLE,
            )
        if command.workspace:
            self._check_way(workspace)
        environment = {**_ENVIRONMENT, **command.env}
        if self.level == "bubblewrap":
            argv = bubblewrap.arguments(
                command, limits, workspace, tree=self._tree, run_as=self.run_as
            )
            return Launch(argv=argv, env=environment)
        if command.writable:
            raise SandboxError(
                f"the level {self.level} cannot keep {', '.join(workspace.protected)} read-only,"
                " so no command that writes runs at it",
                next_step="Install bubblewrap (Debian: `apt install bubblewrap`).",
            )
        spec = supervised(
            command, limits, workspace, confined=self.level == "landlock", run_as=self.run_as
        ).arguments()
        if sum(len(os.fsencode(argument)) + 1 for argument in spec) > _MOST_SPEC_BYTES:
            raise SandboxError(
                f"there are too many names beside our own state in the workspace {workspace.path}"
                f" to allow them one by one, as the level {self.level} has to",
                next_step="Install bubblewrap, or set PACELINE_HOME to a directory outside of the"
                " workspace.",
            )
        return Launch(
            argv=(
                *(sys.executable, "-I", "-S", str(launcher.__file__)),
                *spec,
                *command.argv,
            ),
            env=environment,
            grace_s=_SUPERVISOR_GRACE_S,
        )

    def _check_way(self, workspace: Workspace) -> None:
        if self.run_as is None or (closed := workspace.closed_at(self.run_as, self.run_as)) is None:
            return
        raise SandboxError(
            f"commands run as user {self.run_as}, who may not enter {closed}",
            next_step=f"Open it (`chmod o+rx {closed}`), choose another hostexec.workspace,"
            " or run Paceline as the user whose project this is.",
        )


def supervised(
    command: Command, limits: Limits, workspace: Workspace, *, confined: bool, run_as: int | None
) -> launcher.Spec:
    """What the launcher of the weaker levels is told; `confined` adds landlock."""
    whole, names = workspace.readable() if command.workspace else ((), ())
    read = (
        *_SYSTEM,
        *(("/proc",) if command.view != "none" else ()),
        *(_NETWORK_FILES if command.network else ()),
        *map(str, whole),
    )
    return launcher.Spec(
        {
            "parent": os.getpid(),
            "user": -1 if run_as is None else run_as,
            "cpu": limits.cpu_s,
            "memory": limits.memory_bytes,
            "file": limits.file_bytes,
            "open_files": limits.open_files,
            "processes": limits.processes,
            "landlock": int(confined),
            "network": int(command.network),
        },
        cwd=str(workspace.path) if command.workspace else "/",
        paths={"read": list(read), "names": [*map(str, names)], "write": ["/dev/null"]},
    )


def launch_failure(ended: Ended) -> str:
    """What the sandbox itself complained of instead of starting the command; empty if it did.

    Its tools speak before any command can, and fail. A command that imitates them only has its
    failure called the sandbox's.
    """
    first = ended.stderr[:1000].decode(errors="replace").partition("\n")[0]
    return first if ended.code != 0 and first.startswith(_SPEAKERS) else ""


async def choose_sandbox(
    setting: Literal["auto", "bubblewrap", "landlock", "limits"],
    *,
    run_as: int,
    check: Callable[[Sandbox], Awaitable[str]] | None = None,
) -> Sandbox:
    """The level asked for, or with "auto" the strongest that works here, tried with a command.

    `run_as` is the user for commands where we are root. "auto" never takes "limits": that is no
    sandbox, and has to be asked for by name. `check` says why a level does not work, or nothing.
    Raises SandboxError where the level asked for does not work, or none does.
    """
    user = run_as if os.geteuid() == 0 else None
    if user == 0:
        raise SandboxError(
            "commands must not run as root", next_step="Set hostexec.run_as to another user id."
        )
    reasons: list[str] = []
    for level in LEVELS[:2] if setting == "auto" else (setting,):
        sandbox = Sandbox(level, run_as=user, warning=_warning(level, user, reasons))
        problem = await (check or _try)(sandbox)
        if not problem:
            return sandbox
        reasons.append(f"{level}: {problem}")
    raise SandboxError(
        f"no sandbox for host commands works here ({'; '.join(reasons)})",
        next_step="Install bubblewrap (Debian: `apt install bubblewrap`) and allow user namespaces,"
        ' or accept what hostexec.sandbox = "limits" means: no isolation.',
    )


def _warning(level: Level, user: int | None, stronger: list[str]) -> str:
    why = f" ({'; '.join(stronger)})" if stronger else ""
    if level == "landlock":
        tcp = "" if launcher.landlock_abi() >= launcher.NET_FROM else " TCP and"
        return (
            f"host commands run at the weaker level landlock{why}: they see the host's process"
            f" ids,{tcp} UDP and sockets in the file system stay open to them, and they can change"
            " modes, owners and times of files that are theirs; no write rules"
        )
    if level == "limits":
        who = "you" if user is None else f"user {user}"
        return (
            f"host commands run WITHOUT a sandbox, with limits only{why}: they read all that"
            f" {who} can read and reach the network"
        )
    return ""


async def _try(sandbox: Sandbox) -> str:
    if sandbox.level == "bubblewrap" and not os.access(bubblewrap.BWRAP, os.X_OK):
        return f"there is no {bubblewrap.BWRAP}"
    if sandbox.level == "landlock" and launcher.landlock_abi() == 0:
        return "this kernel does not offer it"
    program = shutil.which("true", path=_ENVIRONMENT["PATH"])
    if program is None:
        return "there is no program `true` to try it with"
    command, limits = Command(argv=(program,)), Limits()
    try:
        launch = sandbox.launch(command, limits, Workspace(Path("/usr")))
        ended = await run(launch, timeout_s=_CHECK_S, output_bytes=4096, drain_s=limits.drain_s)
    except SandboxError as exc:
        return exc.message
    if ended.code == 0:
        return ""
    return launch_failure(ended) or ended.stopped or f"a trial command ended with {ended.code}"
