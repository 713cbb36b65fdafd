"""What a host command left."""

from typing import Literal

import msgspec

__all__ = ["CommandResult", "ExitKind", "visible"]

ExitKind = Literal[
    "exited",
    "signaled",
    "timeout",
    "output_limit",
    "memory_limit",
    "cpu_limit",
    "file_limit",
    "disk_limit",
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

    @property
    def output(self) -> str:
        """What it printed, on both streams."""
        streams = (self.stdout.rstrip("\n"), self.stderr.rstrip("\n"))
        return "\n".join(text for text in streams if text)

    def for_model(self) -> str:
        """For models, which know the command: what it printed, and what is out of the ordinary."""
        said = [self.output or "(no output)"]
        if self.truncated:
            said.append("(it printed more than is here)")
        if not self.ok or self.exit_code != 0:
            said.append(f"(exit code: {'none' if self.exit_code is None else self.exit_code})")
        return "\n".join(said)

    def __str__(self) -> str:
        """For people: a line with its exit code, then its output."""
        code = "none" if self.exit_code is None else self.exit_code
        head = f"{'✅' if self.ok else '❌'} `{visible(self.command)}` (exit code: {code})"
        return f"{head}\n{self.output}" if self.output else head


def visible(text: str) -> str:
    """The text in one line, with every character that is not seen as itself written out: what
    somebody asked for must not pass for what we say."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
