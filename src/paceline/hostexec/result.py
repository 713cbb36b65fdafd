"""What a host command left."""

from typing import Literal

import msgspec

__all__ = ["CommandResult", "ExitKind"]

ExitKind = Literal[
    "exited",
    "signaled",
    "timeout",
    "output_limit",
    "memory_limit",
    "cpu_limit",
    "file_limit",
    "cancelled",
]


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one command that was run."""

    id: str
    command: str
    """As it was asked for, quoted for a shell."""
    rule: str
    exit_kind: ExitKind
    exit_code: int | None
    """128 + n where signal n ended it; None where we stopped it."""
    ok: bool
    """The rule counts this as success."""
    stdout: str
    stderr: str
    truncated: bool
    """It printed more than is here."""
    lossy: bool
    """What it printed is not valid UTF-8; U+FFFD stands for what could not be read."""
    duration_ms: float
    sandbox: str
    """The isolation level it ran at."""
