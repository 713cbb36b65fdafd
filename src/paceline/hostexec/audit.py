"""The audit log of host commands: one JSON object a line, each bound to the line before it.

`prev` in every line is the SHA-256 of the line before, so that a line changed, removed or put in
later shows (`first_break`); cutting off the end does not. Secrets are masked before anything is
written, and all control characters escaped. Several processes may write the same file.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from paceline.clock import Clock
from paceline.errors import AuditError
from paceline.redaction import Redactor

__all__ = ["AuditLog", "first_break"]

_ORIGIN: Final = "0" * 64
_CHUNK: Final = 64 * 1024


@final
class AuditLog:
    """Appends to one file, which only its owner can read."""

    __slots__ = ("_clock", "_redactor", "path")

    def __init__(self, path: Path, *, clock: Clock, redactor: Redactor | None = None) -> None:
        """Nothing is opened before the first line."""
        self.path = path
        self._clock = clock
        self._redactor = redactor or Redactor()

    def write(self, phase: str, fields: Mapping[str, object]) -> None:
        """Appends a line and hands it to the kernel before returning.

        `phase` is denied, intent or result. Raises AuditError when it cannot be written in full;
        then no part of it is in the file.
        """
        at = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC)
        line: dict[str, object] = {"ts": at.isoformat(timespec="milliseconds"), "phase": phase}
        line |= {name: self._redactor.data(value) for name, value in fields.items()}
        try:
            self._append(line)
        except OSError as exc:
            raise AuditError(
                f"the audit log {self.path} cannot be written: {exc.strerror}"
            ) from exc

    def mask(self, argv: Sequence[str]) -> list[str]:
        """The tokens of a command without its secrets, as many as it has."""
        return self._redactor.words(argv)

    def _append(self, fields: dict[str, object]) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.fchmod(file, 0o600)
            size = os.fstat(file).st_size
            last, torn = _last_line(file, size)
            line = {**fields, "prev": hashlib.sha256(last).hexdigest() if last else _ORIGIN}
            data = (b"\n" if torn else b"") + _encode(line) + b"\n"
            if os.write(file, data) != len(data):
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)  # and unlocks


def first_break(path: Path) -> int | None:
    """The number of the first line, from 1, that does not follow from the one before; None where
    the whole log holds. Raises AuditError if it cannot be read."""
    previous = b""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = raw.rstrip(b"\n")
                expected = hashlib.sha256(previous).hexdigest() if previous else _ORIGIN
                if not _follows(line, expected):
                    return number
                previous = line
    except OSError as exc:
        raise AuditError(f"the audit log {path} cannot be read: {exc.strerror}") from exc
    return None


def _follows(line: bytes, expected: str) -> bool:
    try:
        fields: object = json.loads(line)
    except ValueError:
        return False
    return isinstance(fields, dict) and ("prev", expected) in fields.items()


def _encode(line: Mapping[str, object]) -> bytes:
    # ASCII only: json escapes every control and format character but DEL
    text = json.dumps(line, ensure_ascii=True, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f").encode("ascii")


def _last_line(file: int, size: int) -> tuple[bytes, bool]:
    """The last line, without its end, and whether that end is missing."""
    tail, start = b"", size
    while start > 0 and b"\n" not in tail.rstrip(b"\n"):
        start = max(0, start - _CHUNK)
        tail = os.pread(file, size - start, start)
    return tail.rstrip(b"\n").rpartition(b"\n")[2], bool(tail) and not tail.endswith(b"\n")
