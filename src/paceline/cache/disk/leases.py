"""One computation for all processes of a machine: who computes a result holds its lease.

A lease is a lock on one byte of a file, in the sense of open file descriptions: the kernel frees
it when its holder ends, however that happens, and two holders in one process keep each other
out. There is a byte for each of 2^20 hashes, so that two keys with one hash wait for each other
without need, as long as `wait` has patience. The file itself stays empty.
"""

import asyncio
import errno
import fcntl
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, final

from paceline.clock import Clock
from paceline.disk_space import storage_error
from paceline.errors import StorageError

__all__ = ["FileLeases", "Lease"]

T = TypeVar("T")

_SLOTS: Final = 1 << 20
_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.05
_GROWTH: Final = 1.5
_BUSY: Final = (errno.EAGAIN, errno.EACCES)
_lock = struct.Struct("@hhqqi4x").pack
"""`struct flock` of Linux with 64 bits: type, whence, start, length, and a process, which is 0."""


@final
class Lease:
    """The right to compute, until `release`. Releasing again does nothing; so does releasing in
    a process that was forked off meanwhile."""

    __slots__ = ("_leases", "_slot")

    def __init__(self, leases: "FileLeases | None", slot: int) -> None:
        """Made by `FileLeases`; without one it holds nothing."""
        self._leases = leases
        self._slot = slot

    def release(self) -> None:
        """Lets others compute; call it once the result can be read. From any thread."""
        leases, self._leases = self._leases, None
        if leases is not None:
            leases._release(self._slot, self)  # noqa: SLF001 (two halves of one thing)  # pyright: ignore[reportPrivateUsage]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


@final
class FileLeases:
    """The leases of the file at `path`, which is made if it is not there.

    Where the file system has no such locks, or the file cannot be made, everybody computes:
    `acquire` gives leases that hold nothing, and `on_trouble` is told once. After a fork the
    child opens the file for itself when it first acquires; what its parent held then stays held
    until both have ended or the parent released it, which is what patience is for. Somebody who
    deletes the file costs a second computation, no more.
    """

    def __init__(
        self, path: Path, *, on_trouble: Callable[[StorageError], None], rng: random.Random
    ) -> None:
        self.path = path
        self._on_trouble = on_trouble
        self._rng = rng
        self._table = threading.Lock()
        # The kernel would give us a second time what we have.
        self._held: dict[int, Lease] = {}
        self._pid = os.getpid()
        self._file: int | None = None
        self._works = True
        self._open()

    def acquire(self, key: bytes) -> Lease | None:
        """The lease of this key, or None when somebody else, perhaps in this process, holds it."""
        if os.getpid() != self._pid:
            self._reopen()
        slot = zlib.crc32(key) % _SLOTS
        with self._table:
            if self._file is None:
                return Lease(None, slot)
            if slot in self._held:
                return None
            try:
                self._set(fcntl.F_WRLCK, slot)
            except OSError as exc:
                if exc.errno in _BUSY:
                    return None
                trouble = exc
            else:
                lease = self._held[slot] = Lease(self, slot)
                return lease
        self._fail(trouble)
        return Lease(None, slot)

    async def wait(
        self, key: bytes, found: Callable[[], T | None], *, patience_s: float, clock: Clock
    ) -> T | Lease | None:
        """The result of another process, the lease if there is none, or None.

        Asks `found` for the result and tries to get the lease, in turn, with pauses that grow
        from 1 to 50 ms, for `patience_s` seconds. None says that somebody still has the lease
        and no result by then, perhaps hung: compute without. With the lease, `found` has been
        asked again: a result that was stored before the lease got free is not missed.
        """
        turns = self._turns(key, found, round(patience_s * 1e9), clock)
        while True:
            try:
                pause_s = next(turns)
            except StopIteration as end:
                outcome: T | Lease | None = end.value
                return outcome
            await asyncio.sleep(pause_s)

    def close(self) -> None:
        """Gives back all leases; what is acquired from now on holds nothing."""
        with self._table:
            self._works = False
            self._close()

    def _turns(
        self, key: bytes, found: Callable[[], T | None], patience_ns: int, clock: Clock
    ) -> Generator[float, None, T | Lease | None]:
        """Yields how long to pause, in seconds, before the next turn."""
        end_ns = clock.monotonic_ns() + patience_ns
        pause_s = _FIRST_PAUSE_S
        while True:
            if (result := found()) is not None:
                return result
            if (lease := self.acquire(key)) is not None:
                return _checked(lease, found)
            left_s = (end_ns - clock.monotonic_ns()) / 1e9
            if left_s <= 0:
                return None
            yield min(left_s, pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE_S)

    def _set(self, kind: int, slot: int) -> None:
        if self._file is not None:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(kind, os.SEEK_SET, slot, 1, 0))

    def _release(self, slot: int, lease: Lease) -> None:
        if os.getpid() != self._pid:
            return  # the lock is the parent's too, who may still be at it
        with self._table:
            if self._held.get(slot) is lease:
                del self._held[slot]
                self._set(fcntl.F_UNLCK, slot)

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            self._fail(exc)

    def _close(self) -> None:
        self._held.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _reopen(self) -> None:
        """In a child: a file description of its own. What is closed here stays the parent's."""
        self._table = threading.Lock()  # another thread of the parent's may have held it
        self._close()
        self._pid = os.getpid()
        if self._works:
            self._open()

    def _fail(self, exc: OSError) -> None:
        with self._table:
            told, self._works = not self._works, False
            self._close()
        if not told:
            trouble = storage_error(
                f"{self.path}: {exc.strerror or exc}; processes cannot wait for each other",
                exc,
                self.path.parent,
                next_step="A result may be computed once in every process; use a local disk.",
            )
            trouble.__cause__ = exc
            self._on_trouble(trouble)


def _checked(lease: Lease, found: Callable[[], T | None]) -> T | Lease:
    """The lease, unless the result was stored just before it got free."""
    try:
        result = found()
    except BaseException:
        lease.release()
        raise
    if result is None:
        return lease
    lease.release()
    return result
