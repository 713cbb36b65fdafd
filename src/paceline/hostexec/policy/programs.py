"""Programs of this host: where they are, whether they can be trusted, which run other programs."""

import re
import stat
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Program", "look", "runs_others"]

_ROOT: Final = 0
_RUNNERS: Final = (
    # shells and other interpreters of programs
    *("sh", "ash", "bash", "dash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "rbash"),
    *("python", "pypy", "perl", "ruby", "node", "nodejs", "deno", "bun", "php", "lua", "luajit"),
    *("tclsh", "wish", "expect", "guile", "java", "jshell", "R", "Rscript", "julia", "ghci"),
    *("awk", "gawk", "mawk", "nawk", "sed", "ed", "ex", "vi", "vim", "nvim", "emacs", "nano"),
    *("m4", "gdb", "sqlite3", "psql", "mysql", "jq"),
    # programs that run their arguments
    *("env", "xargs", "parallel", "find", "fd", "timeout", "nice", "ionice", "nohup", "stdbuf"),
    *("setsid", "setpriv", "setarch", "chroot", "unshare", "nsenter", "flock", "script", "watch"),
    *("time", "strace", "ltrace", "taskset", "chrt", "prlimit", "bwrap", "entr", "ld.so"),
    *("sudo", "su", "doas", "pkexec", "runuser", "busybox", "toybox", "systemd-run", "at"),
    *("crontab", "screen", "tmux", "dbus-run-session", "xvfb-run"),
    # programs that run what a file or another host tells them
    *("make", "gmake", "ninja", "cmake", "cargo", "go", "npm", "npx", "yarn", "pnpm", "pip"),
    *("uv", "pipx", "gem", "bundle", "mvn", "gradle", "ant", "docker", "podman", "kubectl"),
    *("ssh", "scp", "sftp", "rsync", "telnet", "nc", "ncat", "netcat", "socat", "curl", "wget"),
    *("tar", "zip", "unzip", "cpio", "split", "man", "less", "more", "apt", "apt-get", "dpkg"),
)
_NAMED: Final = re.compile(rf"(?:{'|'.join(map(re.escape, _RUNNERS))})[0-9.]*|ld-linux.*")


class Program(msgspec.Struct, frozen=True):
    """A file that can be run."""

    real: str
    """Where its symbolic links lead."""
    problem: str = ""
    """Why somebody else than root could put another program in its place; empty if nobody can."""


def look(path: str) -> Program | None:
    """What is at this absolute path; None if no file is."""
    given = Path(path)
    try:
        real = given.resolve(strict=True)
        if not real.is_file():
            return None
        above = {*real.parents, *(directory.resolve() for directory in given.parents)}
        problems = (_problem(place) for place in (real, *sorted(above)))
        return Program(str(real), next(filter(None, problems), ""))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as exc:  # RuntimeError: links that lead in a circle
        return Program(path, f"{path} cannot be examined: {exc}")


def _problem(path: Path) -> str:
    state = path.stat()
    if state.st_uid != _ROOT:
        return f"{path} belongs to user {state.st_uid}, not to root"
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} may be changed by others than root"
    return ""


def runs_others(name: str) -> bool:
    """Whether the program of this name runs other programs, or code, that its arguments or files
    tell it to: python3.11 as much as python."""
    return _NAMED.fullmatch(name) is not None
