"""Fingerprints of files: a result that depends on a file is not found once the file changed.

A file is told by what the file system keeps of it: which one it is, its size and mode, and the
times of its last change. The change time cannot be set, so an edit that keeps
the size and sets the modification time back still shows; a rename or a swapped link shows as
another file.

One edit does not: of the same size, within the same tick of the file system's clock as the one
before (https://git-scm.com/docs/racy-git). So a file that was changed in the last moments, or in
what the clock says is the future, is told by its content too, read anew each time. A later edit
gets a later time, and content need not be read any more.
"""

import errno
import hashlib
import os
import stat as kinds
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Final, final

from paceline.clock import Clock

__all__ = ["Fingerprints"]

_BYTES: Final = 32
_PERSON: Final = b"paceline file 1"
_SETTLE_NS: Final = 2_000_000_000  # of the file systems in use FAT has the coarsest clock
_MAX_READ: Final = 16 * 1024 * 1024
_CHUNK: Final = 1024 * 1024
_MAX_ENTRIES: Final = 1_000
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_UNTOLD: Final = ("/proc", "/sys", "/sys/fs/cgroup")
"""Where content changes and what the file system says of it does not."""


class _UntoldError(Exception):
    """What the file system says of something does not tell whether it changed."""


@final
class Fingerprints:
    """Makes fingerprints of files and directories as they are at this moment.

    What changed within `settle_ns` of the clock's wall time is told by its content, if that is
    at most `max_read_bytes`; a directory by what is in it, if that is at most `max_entries`
    things. `stat` is `os.stat` or does the same.

    Not seen are changes through a memory map between its first write and the next sync, and
    edits on another machine whose clock is behind by more than `settle_ns`.
    """

    __slots__ = ("_clock", "_max_entries", "_max_read", "_settle_ns", "_stat", "_untold")

    def __init__(
        self,
        *,
        clock: Clock,
        settle_ns: int = _SETTLE_NS,
        max_read_bytes: int = _MAX_READ,
        max_entries: int = _MAX_ENTRIES,
        stat: Callable[[str], os.stat_result] = os.stat,
    ) -> None:
        self._clock = clock
        self._settle_ns = settle_ns
        self._max_read = max_read_bytes
        self._max_entries = max_entries
        self._stat = stat
        self._untold = _devices(_UNTOLD)

    def of(self, paths: Iterable[PurePath | str]) -> bytes | None:
        """One digest for these absolute paths, in their order; None if none can vouch for them.

        Links are followed, as by those who read: a link is what it leads to. That nothing is
        there is a state like any other. A directory is its entries and what the file system
        says of each of them, one level deep: a result that depends on more names that too.

        None for what cannot be looked at, is no file or directory, is larger than the limits,
        or has content that changes without a trace, as in /proc. A result is to be kept only if
        the fingerprint before and after it was computed are the same. Raises ValueError for a
        relative path, or a text that cannot be a path.
        """
        young_ns = self._clock.wall_ns() - self._settle_ns
        parts: list[bytes] = []
        try:
            for path in paths:
                name = os.fspath(path)
                if not name.startswith("/"):
                    raise ValueError(f"not an absolute path: {name}")
                parts += (_named(name), self._state(name, young_ns, deep=True))
        except _UntoldError:
            return None
        return hashlib.blake2b(b"".join(parts), digest_size=_BYTES, person=_PERSON).digest()

    def _state(self, path: str, young_ns: int, *, deep: bool) -> bytes:
        """What is at a path, in bytes that say themselves where they end."""
        try:
            found = self._stat(path)
        except OSError as exc:
            if exc.errno in _ABSENT:
                return b"absent %d;" % (exc.errno or 0)
            raise _UntoldError from exc
        mode, size = found.st_mode, found.st_size
        modified_ns, changed_ns = found.st_mtime_ns, found.st_ctime_ns
        node = (mode, found.st_dev, found.st_ino, size, modified_ns, changed_ns)
        told = b"%d %d %d %d %d %d;" % node
        young = changed_ns > young_ns or modified_ns > young_ns
        if found.st_dev in self._untold:
            raise _UntoldError
        if kinds.S_ISREG(mode):
            # Files that are made up as they are read say they are empty.
            return told + self._content(path, found) if young or not size else told
        if not kinds.S_ISDIR(mode):
            raise _UntoldError
        if not deep and not young:
            return told
        return told + b"".join(self._entries(path, young_ns, deep=deep))

    def _entries(self, path: str, young_ns: int, *, deep: bool) -> Iterator[bytes]:
        """The names in a directory and, if it is one that was asked for, what they stand for."""
        try:
            names = os.listdir(path)  # noqa: PTH208 (as fast as it goes)
        except OSError as exc:
            raise _UntoldError from exc
        if len(names) > self._max_entries:
            raise _UntoldError
        yield b"%d entries;" % len(names)
        for name in sorted(names):
            yield _named(name)
            if deep:
                yield self._state(f"{path}/{name}", young_ns, deep=False)

    def _content(self, path: str, told: os.stat_result) -> bytes:
        """Digest of a file's content, if it is the file that was looked at, as it was."""
        if told.st_size > self._max_read:
            raise _UntoldError
        content = hashlib.blake2b(digest_size=_BYTES)
        length = 0
        try:
            # Non-blocking, as what was a file a moment ago may be a pipe now.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor has no path)
                if not os.path.samestat(os.fstat(fd), told):
                    raise _UntoldError
                while chunk := file.read(_CHUNK):
                    length += len(chunk)
                    content.update(chunk)
                    if length > told.st_size:
                        break
        except OSError as exc:
            raise _UntoldError from exc
        if length != told.st_size:
            raise _UntoldError
        return content.digest()


def _named(name: str) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    return b"%d:%b" % (len(raw), raw)


def _devices(roots: Iterable[str]) -> frozenset[int]:
    """The devices mounted at these places; not that of the root, where nothing is mounted."""
    return frozenset(_device(root) for root in roots) - {_device("/")}


def _device(path: str) -> int:
    try:
        return os.stat(path).st_dev  # noqa: PTH116 (as fast as it goes)
    except OSError:
        return -1  # there is no such place here
