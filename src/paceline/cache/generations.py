"""Generations of tags: invalidation in O(1), across processes and hosts.

A result is stored under a key that contains the stamps of the tags it was read under. A write
gives each of its tags a new stamp, and every result of before is out of reach at once, in all
processes of this state directory; nothing is searched and nothing deleted. Tags share 4096
slots by hash: a collision invalidates too much, never too little.

Several hosts share stamps through a server (`paceline.cache.redis.generations`), and a stamp
says by its value where it comes from:

* below 2**53: given out by the server, which counts upwards. A later one replaces an earlier
  one, never the other way round, so it does not matter which process hears of it first.
* beginning with two bits set: random, made by a write here. Holds until a process with a
  connection has told the server and got its stamp; so a write outlives its process.
* all else: random, made because nothing is known. The server's stamp replaces it.
"""

import contextlib
import fcntl
import functools
import logging
import mmap
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Final, final

from paceline.disk_space import storage_error
from paceline.errors import CorruptStoreError, StorageError

__all__ = ["SLOTS", "STAMP", "Generations"]

_log = logging.getLogger("paceline")

_MAGIC: Final = b"PACEGEN1"
_SHARED_END: Final = 2**53

STAMP: Final = 8
"""Bytes of a stamp."""

SLOTS: Final = 4096
_SIZE: Final = len(_MAGIC) + SLOTS * STAMP
_WRITTEN: Final = 0xC0  # the least first byte of a stamp made by a write
_AS_WRITTEN: Final = bytes(byte | _WRITTEN for byte in range(256))
_AS_UNKNOWN: Final = bytes(byte & 0x3F | 0x80 for byte in range(256))


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
        self._lock = threading.Lock()
        self._file: int | None = None  # to lock the stamps against other processes
        self._close_file: Callable[[], object] | None = None
        self._on_bump: Callable[[], None] | None = None
        self._open()

    def read(self, tags: Iterable[str]) -> bytes:
        """The stamps of these tags, in their order; empty for no tags."""
        slots = self._slots
        return b"".join([slots[place] for place in _places(tuple(tags))])

    def bump(self, tags: Iterable[str]) -> None:
        """Invalidates every result that was read under one of these tags."""
        self.check()  # a write is to reach the file that others read
        with self._locked():
            for tag in tags:
                self._write(_place(_slot(tag)), self._random_bytes(STAMP), _AS_WRITTEN)
        if self._on_bump is not None:
            self._on_bump()

    def bump_all(self) -> None:
        """Invalidates every result, whatever it was read under."""
        self.check()
        with self._locked():
            fresh = self._random_bytes(SLOTS * STAMP)
            for slot in range(SLOTS):
                random = fresh[slot * STAMP : (slot + 1) * STAMP]
                self._write(_place(slot), random, _AS_WRITTEN)
        if self._on_bump is not None:
            self._on_bump()

    def attach(self, on_bump: Callable[[], None] | None) -> None:
        """Has this called after every write of this process, on its thread; None: no more."""
        self._on_bump = on_bump

    def written(self) -> list[tuple[int, bytes]]:
        """The slots, and their stamps, that processes of this host wrote and the server was
        not told of."""
        slots = self._slots
        firsts = slots[len(_MAGIC) :: STAMP]
        if not firsts.strip(b"\0"):
            return []
        found = [slot for slot, first in enumerate(firsts) if first >= _WRITTEN]
        return [(slot, bytes(slots[(at := _place(slot)) : at + STAMP])) for slot in found]

    def unknown(self) -> bool:
        """Whether there are stamps that only the server's should replace."""
        firsts = self._slots[len(_MAGIC) :: STAMP].strip(b"\0")
        return any(first < _WRITTEN for first in firsts if first)

    def latest(self) -> int:
        """The highest stamp that a server gave out; 0 if there is none."""
        stamps = struct.unpack(f">{SLOTS}Q", self._slots[len(_MAGIC) : _SIZE])
        return max((stamp for stamp in stamps if stamp < _SHARED_END), default=0)

    def learn(self, slot: int, stamp: bytes) -> bool:
        """A stamp the server gave out; False where a write of here, which the server is to be
        told of, stands in its way."""
        at = _place(slot)
        with self._locked():
            return self._learn(at, stamp)

    def learn_all(self, stamps: bytes) -> None:
        """All stamps as the server has them at this moment."""
        if len(stamps) != SLOTS * STAMP:
            raise ValueError("these are not all stamps")
        with self._locked():
            for slot in range(SLOTS):
                self._learn(_place(slot), stamps[slot * STAMP : (slot + 1) * STAMP])

    def told(self, slot: int, written: bytes, stamp: bytes) -> None:
        """The server knows of a stamp that was `written` and gave out this one for it."""
        at = _place(slot)
        with self._locked():
            if self._slots[at : at + STAMP] == written:
                self._slots[at : at + STAMP] = stamp
            else:
                self._learn(at, stamp)

    def forget(self) -> None:
        """Gives every slot an unknown stamp, for nobody tells any more what others write. What
        was written here, and not told, stays to be told."""
        with self._locked():
            fresh = self._random_bytes(SLOTS * STAMP)
            for slot, first in enumerate(self._slots[len(_MAGIC) :: STAMP]):
                kind = _AS_WRITTEN if first >= _WRITTEN else _AS_UNKNOWN
                self._write(_place(slot), fresh[slot * STAMP : (slot + 1) * STAMP], kind)

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
        with self._lock:
            self._slots = bytearray(_fresh(self._random_bytes))
            self._map.close()
            self._map = self._opened = None
            self._let_go_of_file()

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Alone among all threads and processes; held for microseconds."""
        with self._lock:
            file = self._file
            if file is None:
                yield
                return
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _let_go_of_file(self) -> None:
        if self._close_file is not None:
            self._close_file()
        self._file = self._close_file = None

    def _write(self, at: int, random: bytes, kind: bytes) -> None:
        self._slots[at : at + STAMP] = random[:1].translate(kind) + random[1:]

    def _learn(self, at: int, stamp: bytes) -> bool:
        held = self._slots[at : at + STAMP]
        if held[0] >= _WRITTEN:
            return False
        if int.from_bytes(held, "big") >= _SHARED_END or held < stamp:
            self._slots[at : at + STAMP] = stamp
        return True

    def _open(self) -> None:
        with self._lock:
            # A map that was there before is let go, not closed: a thread may be reading it.
            self._map = self._opened = None
            self._let_go_of_file()
            trouble = self._map_file()
            self._slots = self._map or bytearray(_fresh(self._random_bytes))
        if trouble is not None:
            self._on_trouble(trouble)

    def _map_file(self) -> StorageError | None:
        if self._path is None:
            return None
        try:
            self._map, self._opened, self._file = _open(self._path, self._random_bytes)
        except StorageError as exc:
            return exc
        self._close_file = weakref.finalize(self, os.close, self._file)
        return None


@functools.lru_cache(maxsize=4_096)
def _places(tags: tuple[str, ...]) -> tuple[slice, ...]:
    """Where the stamps of these tags stand."""
    return tuple([slice(at := _place(_slot(tag)), at + STAMP) for tag in tags])


def _slot(tag: str) -> int:
    return zlib.crc32(tag.encode("utf-8", "surrogatepass")) % SLOTS


def _place(slot: int) -> int:
    return len(_MAGIC) + slot * STAMP


def _fresh(random_bytes: Callable[[int], bytes]) -> bytes:
    """A new file's content: random, so that a file that was lost invalidates what it guarded."""
    stamps = bytearray(random_bytes(SLOTS * STAMP))
    stamps[::STAMP] = stamps[::STAMP].translate(_AS_UNKNOWN)
    return _MAGIC + stamps


def _open(
    path: Path, random_bytes: Callable[[int], bytes]
) -> tuple[mmap.mmap, os.stat_result, int]:
    """The file: mapped, which one it is, and its descriptor, which is the caller's to close."""
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
            with contextlib.suppress(BlockingIOError):  # there are locks here, and another has it
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_UN)
            return mmap.mmap(file.fileno(), _SIZE), found, os.dup(file.fileno())
    except OSError as exc:
        step = f"Make {path.parent} writable, or set PACELINE_HOME to a directory that is."
        raise storage_error(
            f"{path}: {exc.strerror or exc}", exc, path.parent, next_step=step
        ) from exc
    except ValueError as exc:  # it is empty, or its length changes
        raise CorruptStoreError(
            f"{path}: {exc}", next_step=f"Remove {path}; a new one is made. It holds no results."
        ) from exc


def _clear_drafts(path: Path) -> None:
    """Removes what processes left that were killed while they made the file."""
    for draft in path.parent.glob(f"{path.name}.*.*"):
        pid = draft.name.removeprefix(f"{path.name}.").partition(".")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            draft.unlink(missing_ok=True)


def _create(path: Path, content: bytes) -> None:
    """Makes the file complete or not at all; a file that another process made first stays."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{content[-4:].hex()}")
    _clear_drafts(path)
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
