"""Generations of tags: invalidation in O(1), across processes.

A result is stored under a key that contains the stamps of the tags it was read under. A write
gives each of its tags a new random stamp, and every result of before is out of reach at once,
in all processes of this state directory; nothing is searched and nothing deleted. Tags share
4096 slots by hash: a collision invalidates too much, never too little.
"""

import contextlib
import functools
import logging
import mmap
import os
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
    """The stamps of all tags, shared through a small memory-mapped file.

    With path None, or with a file that cannot be used (`on_trouble` is told once), stamps are of
    this process alone: its own writes invalidate, and results under tags are not shared
    with other processes. A crash of the process loses nothing; a power cut may lose the stamps
    of the last seconds. `random_bytes(n)` makes stamps.

    As with SQLite's own shared memory, whoever cuts the file short under a running process ends
    it when it looks there before `check` does: the price of a look-up without a system call.
    """

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
        self._map: mmap.mmap | None = None
        self._opened: os.stat_result | None = None
        self._slots: mmap.mmap | bytearray
        self._open()

    def read(self, tags: Iterable[str]) -> bytes:
        """The stamps of these tags, in their order; empty for no tags."""
        slots = self._slots
        return b"".join([slots[(at := _offset(tag)) : at + _STAMP] for tag in tags])

    def bump(self, tags: Iterable[str]) -> None:
        """Invalidates every result that was read under one of these tags."""
        self.check()  # a write is to reach the file that others read
        for tag in tags:
            at = _offset(tag)
            self._slots[at : at + _STAMP] = self._random_bytes(_STAMP)

    def check(self) -> None:
        """Opens the file anew, or makes a new one, if it was removed, replaced or cut short since
        it was opened: others write to that one. To be called now and then; costs a look at the
        path.
        """
        if self._path is None or self._opened is None:
            return
        with contextlib.suppress(OSError):  # it is gone
            found = self._path.stat()
            if os.path.samestat(found, self._opened) and found.st_size == _SIZE:
                return
        self._open()

    def close(self) -> None:
        """Closes the file. What is read afterwards matches nothing of before."""
        if self._map is None:
            return
        self._slots = bytearray(_fresh(self._random_bytes))
        self._map.close()
        self._map = self._opened = None

    def _open(self) -> None:
        # A map that was there before is let go, not closed: a thread may be reading it.
        self._map = self._opened = None
        if self._path is not None:
            try:
                self._map, self._opened = _open(self._path, self._random_bytes)
            except StorageError as exc:
                self._on_trouble(exc)
        self._slots = self._map or bytearray(_fresh(self._random_bytes))


@functools.lru_cache(maxsize=8_192)
def _offset(tag: str) -> int:
    return len(_MAGIC) + zlib.crc32(tag.encode("utf-8", "surrogatepass")) % _SLOTS * _STAMP


def _fresh(random_bytes: Callable[[int], bytes]) -> bytes:
    """A new file's content: random, so that a file that was lost invalidates what it guarded."""
    return _MAGIC + random_bytes(_SLOTS * _STAMP)


def _open(path: Path, random_bytes: Callable[[int], bytes]) -> tuple[mmap.mmap, os.stat_result]:
    """The file, mapped, and which one it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create(path, _fresh(random_bytes))
        if not path.is_file():  # opening a pipe would wait for its other end
            raise CorruptStoreError(
                f"{path} is not a file", next_step=f"Remove {path}; a new one is made."
            )
        with path.open("r+b") as file:
            found = os.fstat(file.fileno())
            if found.st_size != _SIZE or file.read(len(_MAGIC)) != _MAGIC:
                raise CorruptStoreError(
                    f"{path} is damaged or not ours",
                    next_step=f"Remove {path}; a new one is made. It holds no results.",
                )
            return mmap.mmap(file.fileno(), _SIZE), found
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise StorageError(
            f"{path}: {reason}",
            next_step=f"Make {path.parent} writable, or set PACELINE_HOME to a directory that is.",
        ) from exc


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
