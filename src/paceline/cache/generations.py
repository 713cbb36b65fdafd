"""Generations of tags: invalidation in O(1), across processes.

A result is stored under a key that contains the stamps of the tags it was read under. A write
gives each of its tags a new random stamp, and every result of before is out of reach at once,
in all processes of this state directory; nothing is searched and nothing deleted. Tags share
4096 slots by hash: a collision invalidates too much, never too little.
"""

import contextlib
import logging
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, final

from paceline.errors import CorruptStoreError, StorageError

__all__ = ["Generations"]

_log = logging.getLogger("paceline")

_MAGIC: Final = b"PACEGEN1"
_STAMP: Final = 8  # bytes
_SLOTS: Final = 4096
_SIZE: Final = len(_MAGIC) + _SLOTS * _STAMP


@final
class Generations:
    """The stamps of all tags, shared through a small file.

    With path None, or with a file that cannot be used (`on_trouble` is told once), stamps are of
    this process alone: its own writes invalidate, and results under tags are not shared
    with other processes. A crash of the process loses nothing; a power cut may lose the stamps
    of the last seconds. `random_bytes(n)` makes stamps. Used by one thread at a time.
    """

    # The file is read and written with calls, not mapped: a map whose file is cut short by
    # somebody else ends the process with a signal.

    def __init__(
        self,
        path: Path | None,
        *,
        on_trouble: Callable[[StorageError], None],
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._path = path
        self._on_trouble = on_trouble
        self._random_bytes = random_bytes
        self._file: int | None = None
        self._opened: os.stat_result | None = None
        self._own = bytearray(_fresh(random_bytes))
        if path is not None:
            self._open(path)

    def read(self, tags: Iterable[str]) -> bytes:
        """The stamps of these tags, in their order; empty for no tags."""
        offsets = [_offset(tag) for tag in tags]
        if self._file is not None:
            stamps = b"".join([os.pread(self._file, _STAMP, at) for at in offsets])
            if len(stamps) == _STAMP * len(offsets):
                return stamps
            self._fail(_damaged(self._path))
        return b"".join([bytes(self._own[at : at + _STAMP]) for at in offsets])

    def bump(self, tags: Iterable[str]) -> None:
        """Invalidates every result that was read under one of these tags."""
        self.check()  # a write is to reach the file that others read
        for tag in tags:
            at, stamp = _offset(tag), self._random_bytes(_STAMP)
            self._own[at : at + _STAMP] = stamp
            if self._file is None:
                continue
            try:
                os.pwrite(self._file, stamp, at)
            except OSError as exc:
                self._fail(_unusable(self._path, exc))

    def check(self) -> None:
        """Opens the file anew, or makes a new one, if it was removed or replaced since it was
        opened: others write to that one. To be called now and then; costs a look at the path.
        """
        if self._path is None or self._opened is None:
            return
        with contextlib.suppress(OSError):  # it is gone
            if os.path.samestat(self._path.stat(), self._opened):
                return
        self._release()
        self._open(self._path)

    def close(self) -> None:
        """Closes the file. What is read afterwards matches nothing of before."""
        self._release()

    def _open(self, path: Path) -> None:
        try:
            self._file, self._opened = _open(path, self._random_bytes)
        except StorageError as exc:
            self._on_trouble(exc)

    def _fail(self, error: StorageError) -> None:
        self._release()
        self._on_trouble(error)

    def _release(self) -> None:
        file, self._file, self._opened = self._file, None, None
        self._own = bytearray(_fresh(self._random_bytes))
        if file is not None:
            os.close(file)


def _offset(tag: str) -> int:
    return len(_MAGIC) + zlib.crc32(tag.encode("utf-8", "surrogatepass")) % _SLOTS * _STAMP


def _fresh(random_bytes: Callable[[int], bytes]) -> bytes:
    """A new file's content: random, so that a file that was lost invalidates what it guarded."""
    return _MAGIC + random_bytes(_SLOTS * _STAMP)


def _open(path: Path, random_bytes: Callable[[int], bytes]) -> tuple[int, os.stat_result]:
    """The file, and which one it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create(path, _fresh(random_bytes))
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise _unusable(path, exc) from exc
    found = os.fstat(file)
    whole = stat.S_ISREG(found.st_mode) and found.st_size == _SIZE
    if whole and os.pread(file, len(_MAGIC), 0) == _MAGIC:
        return file, found
    os.close(file)
    raise _damaged(path)


def _damaged(path: Path | None) -> StorageError:
    return CorruptStoreError(
        f"{path} is damaged or not ours",
        next_step=f"Remove {path}; a new one is made. It holds no results.",
    )


def _unusable(path: Path | None, exc: OSError) -> StorageError:
    return StorageError(
        f"{path}: {exc.strerror}",
        next_step=f"Make its directory writable, remove what stands at {path} if it is no file of"
        " ours, or set PACELINE_HOME to a directory of your own.",
    )


def _create(path: Path, content: bytes) -> None:
    """Makes the file complete or not at all; a file that another process made first stays."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{content[-4:].hex()}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        _log.debug("%s was made by another process", path)
    finally:
        draft.unlink(missing_ok=True)
