"""What is to be confined (`Command`), and the process to start for it (`Launch`)."""

from typing import Literal

import msgspec

__all__ = ["Command", "Launch", "View"]

View = Literal["none", "processes", "mounts"]
"""What of the host a command sees beside programs and workspace: nothing more, the list of all
processes, or the tree of all mounted file systems."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A program with its arguments, and what it is granted."""

    argv: tuple[str, ...]
    """The absolute path of the program, and its arguments."""
    env: dict[str, str] = {}
    """Added to the clean environment of every command."""
    workspace: bool = False
    writable: bool = False
    """The workspace may be changed, save its protected parts."""
    view: View = "none"
    network: bool = False


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start, complete with everything that it inherits."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str = "/"
    grace_s: float = 0.0
    """How long its supervisor gets, in seconds, to end all descendants before it is killed;
    0 where killing it ends them anyway."""
