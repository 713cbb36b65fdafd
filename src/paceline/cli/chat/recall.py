"""What was typed before, to be had again: kept in a private file, without secrets, and bounded."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import msgspec

from paceline.disk_space import storage_error

__all__ = ["Recall"]

_MOST: Final = 1_000
"""Messages that are kept."""
_SLACK: Final = 2
"""The file may hold so many times more before it is made shorter."""
_LONGEST: Final = 16_384
"""Characters of a message that is kept: what is longer was pasted from somewhere."""
_MOST_BYTES: Final = 16 * 1024 * 1024
_PRIVATE: Final = 0o600


@final
class Recall:
    """Messages, oldest first, one JSON string a line in a file that only its owner may read.

    Several processes may add to it at once.
    """

    def __init__(self, path: Path, redact: Callable[[str], str]) -> None:
        """`redact` takes secrets out of what is written."""
        self._path = path
        self._redact = redact

    def read(self) -> list[str]:
        """What is kept, at most 1,000 messages. Lines that are none are left out. Raises StorageError."""
        with self._opened(os.O_CREAT) as file:
            found = _messages(_content(file))
            if len(found) > _SLACK * _MOST or os.fstat(file).st_size > _MOST_BYTES:
                kept = b"".join(map(_line, found[-_MOST:]))
                os.ftruncate(file, 0)
                _write(file, kept)
        return found[-_MOST:]

    def add(self, text: str) -> None:
        """Keeps this message, but for its secrets. One that is very long is not kept.
        Raises StorageError, and then nothing of it is kept."""
        if len(text) > _LONGEST:
            return
        with self._opened(os.O_CREAT) as file:
            _write(file, _line(self._redact(text)))

    @contextmanager
    def _opened(self, flags: int) -> Generator[int]:
        """The file, to read and to add to, for this process alone."""
        flags |= os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, flags, _PRIVATE)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise OSError(errno.EINVAL, "it is no file")
                fcntl.flock(file, fcntl.LOCK_EX)
                os.fchmod(file, _PRIVATE)
                yield file
            finally:
                os.close(file)  # and unlocks
        except OSError as exc:
            raise storage_error(
                f"what is typed is not kept: {self._path}: {exc.strerror}",
                exc,
                self._path.parent,
                next_step="See who may write there; --no-keep keeps nothing.",
            ) from exc


def _content(file: int) -> bytes:
    """The last of it that is bounded."""
    size = os.fstat(file).st_size
    return os.pread(file, _MOST_BYTES, max(0, size - _MOST_BYTES))


def _messages(content: bytes) -> list[str]:
    found: list[str] = []
    for line in content.splitlines():
        try:
            found.append(msgspec.json.decode(line, type=str))
        except (msgspec.DecodeError, UnicodeError):  # torn, or somebody else's
            continue
    return found


def _line(text: str) -> bytes:
    return msgspec.json.encode(text.encode(errors="replace").decode()) + b"\n"


def _write(file: int, data: bytes) -> None:
    """All of it or nothing. After a line that has no end, one of its own is begun."""
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        data = b"\n" + data
    if os.write(file, data) != len(data):
        os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
