"""What the end of a process means: which limit it met, or what it said itself. Pure."""

import re
import signal
from collections.abc import Collection
from typing import Final

import msgspec

from paceline.errors import Category, CommandFailedError
from paceline.hostexec.result import CommandResult, ExitKind
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.process import Ended

__all__ = ["Ending", "ending", "failure"]

_SIGNALED: Final = 128
_OUT_OF_MEMORY: Final = re.compile(
    rb"MemoryError|[Cc]annot allocate memory|[Mm]emory exhausted|[Oo]ut of memory|bad_alloc"
)
_SAID: Final = 200
_ADVICE: Final[dict[ExitKind, str]] = {
    "timeout": "Ask for less at once, or raise hostexec.timeout_s (slow_timeout_s for find, grep).",
    "output_limit": "Ask for less (head, tail, -n, -m), or raise hostexec.output_bytes.",
    "memory_limit": "Ask for less at once, or raise hostexec.memory_bytes.",
    "cpu_limit": "Ask for less at once: this limit is fixed.",
    "disk_limit": "Write less at once: this limit is fixed. What was written is still there.",
    "file_limit": "Write less into one file: this limit is fixed.",
}
"""What to do about a limit; for all else the command knows best."""


class Ending(msgspec.Struct, frozen=True):
    """How a command ended, in the words of its result."""

    kind: ExitKind
    code: int | None
    ok: bool


def ending(ended: Ended, success: Collection[int]) -> Ending:
    """Judges an end.

    Through a sandbox the end by signal n arrives as exit code 128 + n, by the shells'
    convention, and is read as that. A process cannot be seen to meet its memory limit: it is
    refused memory and fails in its own way, so its last words decide.
    """
    code = ended.code if ended.code >= 0 else _SIGNALED - ended.code
    if ended.stopped:
        return Ending(ended.stopped, None, ok=False)
    if code in success:
        return Ending("exited", code, ok=True)
    if _OUT_OF_MEMORY.search(ended.stderr):
        return Ending("memory_limit", code, ok=False)
    if code == _SIGNALED + signal.SIGXCPU:
        return Ending("cpu_limit", code, ok=False)
    if code == _SIGNALED + signal.SIGXFSZ:
        return Ending("file_limit", code, ok=False)
    by_signal = _signal_name(code) is not None
    return Ending("signaled" if by_signal else "exited", code, ok=False)


def failure(result: CommandResult, limits: Limits, limit_s: float) -> CommandFailedError:
    """The error for a result that is none; `limit_s` is the time limit it had."""
    said = result.stderr.strip().rpartition("\n")[2].strip()
    said = "".join(char if char.isprintable() else " " for char in said)[:_SAID]
    category = {"timeout": Category.TIMEOUT, "exited": Category.EXECUTION}.get(
        result.exit_kind,
        Category.EXECUTION if result.exit_kind == "signaled" else Category.EXHAUSTED,
    )
    return CommandFailedError(
        f"`{result.command}` {_what_happened(result, limits, limit_s)}",
        result=result,
        next_step=_ADVICE.get(result.exit_kind) or (f"It said: {said}" if said else None),
        category=category,
    )


def _what_happened(result: CommandResult, limits: Limits, limit_s: float) -> str:
    told = {
        "timeout": f"timed out after {round(limit_s, 2):g}s",
        "output_limit": f"printed more than {limits.output_bytes} bytes and was stopped",
        "memory_limit": f"needed more than its {limits.memory_bytes} bytes of memory",
        "cpu_limit": f"used up its {limits.cpu_s}s of processor time",
        "disk_limit": f"filled more than {limits.disk_bytes} bytes of the disk and was stopped",
        "file_limit": f"wrote a file of more than {limits.file_bytes} bytes",
        "signaled": f"was ended by {_signal_name(result.exit_code or 0)}",
    }
    return told.get(result.exit_kind, f"ended with exit code {result.exit_code}")


def _signal_name(code: int) -> str | None:
    try:
        return signal.Signals(code - _SIGNALED).name
    except ValueError:
        return None
