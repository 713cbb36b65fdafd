"""The weaker levels: a small program that starts one command and outlives all it starts.

Run as `python -I -S launcher.py NAME=VALUE... -- EXE [ARG...]` (see `Spec`); it imports nothing
of ours. The command gets a dropped user, resource limits, no new privileges, and with
`landlock` in the spec a list of what it may open. The launcher adopts orphans of the command,
so that no daemon or double fork gets away: when the command ends, at SIGTERM, or when its own
parent dies, it kills every descendant before it exits. It exits with the command's code, or
128 + the signal that ended it; its own failures print `paceline-launcher: ...` and exit 126.

Landlock as in landlock(7); system call numbers are the same on all architectures.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing, json and pathlib take longer to import than all else here to run
    from typing import Final, NoReturn

__all__ = ["FAILED", "NAME", "NET_FROM", "Spec", "landlock_abi", "main"]

NAME: Final = "paceline-launcher: "
FAILED: Final = 126


class Spec:
    """How to run a command, and its form as arguments: `name=value` for each, then `--`.

    Sizes in bytes, `cpu` in seconds. `parent` is the process that starts the launcher: when it
    is gone, so is everything. `user` is who to become, -1 to stay. `processes` is more than the
    user has already. With `landlock`, only what `read` (and execute), `names` (list) and `write`
    (and read) name can be opened, all beneath directories included, and TCP only with `network`.
    """

    def __init__(
        self, numbers: dict[str, int], cwd: str = "/", paths: dict[str, list[str]] | None = None
    ) -> None:
        self.numbers = numbers
        self.cwd = cwd
        self.paths = paths or {}

    def arguments(self) -> list[str]:
        """As the launcher reads it."""
        return [
            *(f"{name}={number}" for name, number in self.numbers.items()),
            f"cwd={self.cwd}",
            *(f"{name}={path}" for name, paths in self.paths.items() for path in paths),
            "--",
        ]

    @classmethod
    def parse(cls, arguments: list[str]) -> tuple[Spec, list[str]]:
        """The spec and the command after it. Raises ValueError for what is no spec."""
        end = arguments.index("--")
        spec = cls({})
        for argument in arguments[:end]:
            name, _, value = argument.partition("=")
            if name in NUMBERS:
                spec.numbers[name] = int(value)
            elif name in PATHS:
                spec.paths.setdefault(name, []).append(value)
            elif name == "cwd":
                spec.cwd = value
            else:
                raise ValueError(f"unknown argument {name}")
        if spec.numbers.keys() != NUMBERS:
            raise ValueError("numbers are missing")
        return spec, arguments[end + 1 :]


NUMBERS: Final = {
    *("parent", "user", "cpu", "memory", "file", "open_files", "processes"),
    *("landlock", "network"),
}
PATHS: Final = {"read", "names", "write"}

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_ON_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
# Number of file system rights, by version of the interface: 2 added links between directories,
# 3 truncation, 5 device control.
_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_RIGHTS: Final = 16
NET_FROM: Final = 4
"""The version of landlock that closes TCP."""
_SCOPES_FROM: Final = 6
_BIND_AND_CONNECT: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11

_END_WITHIN_S: Final = 2.0
_ROUND_S: Final = 0.01


class _CannotStartError(Exception):
    """Something that must hold for the command to be started does not."""


def landlock_abi() -> int:
    """The version of the kernel's landlock interface; 0 where there is none."""
    version: int = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, 1)
    return max(0, version)


def main(arguments: list[str]) -> int:
    """Runs the command; the exit code of the launcher."""
    spec, argv = Spec.parse(arguments)
    libc = ctypes.CDLL(None, use_errno=True)
    watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    _prctl(libc, _PR_SET_CHILD_SUBREAPER, 1)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != spec.numbers["parent"]:
        return FAILED
    launcher = os.getpid()
    child = os.fork()
    if child == 0:
        _become_command(libc, spec, argv, launcher)
    code = _wait(child, watched)
    _end_descendants(launcher)
    return code


def _become_command(libc: ctypes.CDLL, spec: Spec, argv: list[str], launcher: int) -> NoReturn:
    try:
        ruleset = _ruleset(libc, spec) if spec.numbers["landlock"] else None
        _limit(spec)
        if (user := spec.numbers["user"]) >= 0:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)  # setresuid has cleared it
        if os.getppid() != launcher:
            os._exit(FAILED)
        os.chdir(spec.cwd)
        _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
        if ruleset is not None:
            _check(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock")
            os.close(ruleset)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores these
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execv(argv[0], argv)  # noqa: S606 (this is the purpose)
    except (OSError, ValueError, _CannotStartError) as exc:
        os.write(2, f"{NAME}{exc}\n".encode(errors="replace"))
    finally:
        os._exit(FAILED)


def _limit(spec: Spec) -> None:
    at_most = spec.numbers
    user = os.getuid() if at_most["user"] < 0 else at_most["user"]
    processes = _tasks_of(user) + at_most["processes"]
    for which, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, at_most["cpu"], at_most["cpu"] + 1),
        (resource.RLIMIT_AS, at_most["memory"], at_most["memory"]),
        (resource.RLIMIT_FSIZE, at_most["file"], at_most["file"]),
        (resource.RLIMIT_NOFILE, at_most["open_files"], at_most["open_files"]),
        (resource.RLIMIT_NPROC, processes, processes),
    ):
        allowed = resource.getrlimit(which)[1]
        bound = hard if allowed == resource.RLIM_INFINITY else min(hard, allowed)
        resource.setrlimit(which, (min(soft, bound), bound))


def _tasks_of(user: int) -> int:
    """Threads of this user on the host: the kernel counts them all against one limit."""
    count = 0
    for pid in _pids():
        try:
            lines = _content(f"/proc/{pid}/status").splitlines()
        except OSError:
            continue  # it has ended meanwhile
        fields = dict(line.split(b":", 1) for line in lines if b":" in line)
        if int(fields[b"Uid"].split()[0]) == user:
            count += int(fields[b"Threads"])
    return count


def _ruleset(libc: ctypes.CDLL, spec: Spec) -> int:
    abi = landlock_abi()
    if abi < 1:
        raise _CannotStartError("this kernel has no landlock")
    handled = (1 << _RIGHTS.get(abi, _ALL_RIGHTS)) - 1
    fields = [handled]
    if abi >= NET_FROM:
        fields.append(0 if spec.numbers["network"] else _BIND_AND_CONNECT)
    if abi >= _SCOPES_FROM:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    ruleset = _check(
        libc.syscall(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0), "landlock"
    )
    read = _EXECUTE | _READ_FILE | _READ_DIR
    write = _READ_FILE | _WRITE_FILE | _TRUNCATE | _READ_DIR
    for name, rights in (("read", read), ("names", _READ_DIR), ("write", write)):
        for path in spec.paths.get(name, ()):
            _allow(libc, ruleset, path, rights & handled)
    return ruleset


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be allowed
    try:
        if not stat.S_ISDIR(os.fstat(file).st_mode):
            rights &= _ON_FILES
        # struct landlock_path_beneath_attr is packed: 8 bytes of rights, 4 of descriptor
        rule = rights.to_bytes(8, sys.byteorder) + file.to_bytes(4, sys.byteorder)
        _check(libc.syscall(_ADD_RULE, ruleset, 1, rule, 0), f"landlock: {path}")
    finally:
        os.close(file)


def _wait(child: int, watched: set[signal.Signals]) -> int:
    """Until the command ends or we are told to stop; orphans are reaped on the way."""
    while True:
        if (told := signal.sigwait(watched)) != signal.SIGCHLD:
            return 128 + told
        while (ended := _reap()) is not None:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                return code if code >= 0 else 128 - code


def _end_descendants(launcher: int) -> None:
    # All are stopped first, so that none forks while another is killed; what a fork bomb can
    # have is bounded, so this comes to an end.
    give_up = time.monotonic() + _END_WITHIN_S
    stopped: set[int] = set()
    while time.monotonic() < give_up and not _all_reaped():
        found = _descendants(launcher)
        new = found - stopped
        _signal_each(new or found, signal.SIGSTOP if new else signal.SIGKILL)
        stopped |= new
        if not new:
            signal.sigtimedwait({signal.SIGCHLD}, _ROUND_S)


def _signal_each(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it has ended meanwhile


def _reap() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _all_reaped() -> bool:
    while _reap() is not None:
        pass
    try:
        # WNOWAIT: only whether there is a child at all
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _descendants(ancestor: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        try:
            after_name = _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(int(after_name[1]), []).append(pid)
    found: set[int] = set()
    todo = [ancestor]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


def _content(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    _check(libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _check(returned: int, what: str) -> int:
    if returned < 0:
        raise _CannotStartError(f"{what}: {os.strerror(ctypes.get_errno())}")
    return returned


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
