"""The lower tiers of a stack: what they take in, give back, and pass on when they are full."""

import functools
import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, Protocol, final

import msgspec

from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import About, Entry
from paceline.cache.memory.tier import NEVER_NS, MemoryTier
from paceline.cache.snapshot import Form, Snapshot
from paceline.clock import Clock
from paceline.codec import decode
from paceline.errors import CodecError, StorageError

__all__ = [
    "DiskShelf",
    "IndexedLevel",
    "Kept",
    "Level",
    "Meant",
    "Spill",
    "payload_of",
    "remaining_ns",
    "unpacked",
]

_log = logging.getLogger("paceline")

_DISK_BYTES: Final = 256 * 1024 * 1024
_LARGEST: Final = _DISK_BYTES // 32  # what a DiskTier of that size takes
_LEFT_OVER: Final = 10_000


class Kept(msgspec.Struct, frozen=True):
    """A value on its way between tiers: held as in `Snapshot`, valid until a moment of the
    monotonic clock that no move changes."""

    form: Form
    held: Any
    expires_ns: int
    about: About


Spill = Callable[[Hashable, Kept], object]
"""Told of what had to make room."""

Meant = Callable[[Hashable, About], bool]
"""Says of a key and what is there whether it is meant."""


class Level(Protocol):
    """A tier below the hot one. The stack's lock is held whenever one of these is called."""

    in_bytes: bool
    """Whether only keys and values that can be written as bytes have a place here."""
    max_entries: int
    spill: Spill

    def __len__(self) -> int: ...

    def takes(self, kept: Kept) -> bool:
        """Whether there is a place for such a value."""
        ...

    def put(self, key: Hashable, kept: Kept) -> None:
        """Stores a value in place of what was there."""
        ...

    def get(self, key: Hashable) -> Kept | None:
        """The valid value under this key, which counts as a use of it."""
        ...

    def has(self, key: Hashable) -> bool:
        """Whether there is one, which is no use of it."""
        ...

    def delete(self, key: Hashable) -> None:
        """Removes a value. Raises StorageError if it may still be there."""
        ...

    def clear(self) -> int:
        """Removes all values; how many that were, as far as is known."""
        ...

    def invalidate(self, tag: str | None, prefix: str | None, meant: Meant | None) -> int:
        """Removes the values that meet all the conditions given, if need be others too."""
        ...

    @property
    def expirations(self) -> int:
        """Values that were removed because their time was over, as far as is known."""
        ...

    def close(self) -> None:
        """Writes what is to outlive the process."""
        ...


def payload_of(kept: Kept) -> bytes | None:
    """The bytes of a value; None if it has none."""
    return None if kept.form is Form.RAISED else Snapshot(kept.form, kept.held).payload()


def remaining_ns(expires_ns: int, now_ns: int) -> int:
    """The rest of a lifetime that ends at this moment; 0 or less when it is over."""
    return NEVER_NS if expires_ns >= NEVER_NS else expires_ns - now_ns


@final
class IndexedLevel:
    """At most `max_entries` values, the least recently used of which spill over.

    Which are there, until when, and in which order is known in memory. So are the values,
    unless there is a shelf: then the index has them until they are written.
    """

    def __init__(self, max_entries: int, *, clock: Clock, shelf: "DiskShelf | None" = None) -> None:
        self.max_entries = max_entries
        self.in_bytes = shelf is not None
        self.spill: Spill = lambda _key, _kept: None
        self._now_ns = clock.monotonic_ns
        self._shelf = shelf
        self._index = MemoryTier[Hashable, "Kept | _Row"](
            max_entries, clock=clock, on_evict=self._evicted
        )
        if shelf is not None:
            for key, row in shelf.rows(max_entries):
                left_ns = remaining_ns(row.expires_ns, self._now_ns())
                self._index.put(key, row, left_ns, about=row.about)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def expirations(self) -> int:
        return self._index.expirations

    def takes(self, kept: Kept) -> bool:
        return self.max_entries > 0 and (self._shelf is None or self._shelf.takes(kept))

    def put(self, key: Hashable, kept: Kept) -> None:
        left_ns = remaining_ns(kept.expires_ns, self._now_ns())
        entry = self._index.put(key, kept, left_ns, about=kept.about)
        if self._shelf is None:
            return
        if entry is None:
            self._shelf.drop(key)
        else:
            self._shelf.write(key, kept, entry)

    def get(self, key: Hashable) -> Kept | None:
        entry = self._index.get(key)
        if entry is None:
            return None
        kept = self._open(key, entry.value)
        if kept is None:
            self.delete(key)
        return kept

    def has(self, key: Hashable) -> bool:
        entry = self._index.peek(key)
        return entry is not None and self._now_ns() < entry.value.expires_ns

    def delete(self, key: Hashable) -> None:
        if self._index.find(key) is not None:
            self._index.delete(key)
            if self._shelf is not None:
                self._shelf.drop(key)

    def clear(self) -> int:
        if self._shelf is not None:
            self._shelf.clear()
        return self._index.clear()

    def invalidate(self, tag: str | None, prefix: str | None, meant: Meant | None) -> int:
        gone: list[Hashable] = []

        def goes(entry: Entry) -> bool:
            if meant is not None and not meant(entry.key, entry.value.about):
                return False
            gone.append(entry.key)
            return True

        count = self._index.invalidate(tag=tag, prefix=prefix, predicate=goes)
        if self._shelf is not None:
            for key in gone:
                self._shelf.drop(key)
        return count

    def close(self) -> None:
        if self._shelf is not None:
            self._shelf.close()

    def _open(self, key: Hashable, value: "Kept | _Row") -> Kept | None:
        """The value itself, if it is still valid and to be had."""
        if self._now_ns() >= value.expires_ns:
            return None
        if isinstance(value, Kept):
            return value
        return None if self._shelf is None else self._shelf.read(key, value)

    def _evicted(self, entry: Entry) -> None:
        kept = self._open(entry.key, entry.value)
        if self._shelf is not None:
            self._shelf.drop(entry.key)
        if kept is not None:
            self.spill(entry.key, kept)


class _Row(msgspec.Struct, frozen=True):
    """What the index knows of a value that is on disk; `mark` is the hash of its bytes, None for
    one of an earlier process."""

    expires_ns: int
    about: About
    mark: int | None


@final
class DiskShelf:
    """Values in a file that is written behind. Whatever is wrong with it, the answer is a miss."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._clock = clock
        self._disk = DiskTier(path, clock=clock, max_bytes=_DISK_BYTES, on_trouble=_tell)

    def rows(self, limit: int) -> list[tuple[Any, _Row]]:
        """What an earlier process left, the last stored last; removes what is more than that."""
        now_ns = self._clock.monotonic_ns()
        listed = list(self._disk.entries(limit + _LEFT_OVER))
        for extra in listed[limit:]:
            self._disk.delete(extra.key)
        return [
            (row.key, _Row(min(now_ns + row.remaining_ns, NEVER_NS), row.about, None))
            for row in reversed(listed[:limit])
        ]

    def takes(self, kept: Kept) -> bool:
        """Whether this value can be written, as far as is known."""
        if not self._disk.usable:
            return False
        payload = payload_of(kept)
        return payload is not None and len(payload) <= _LARGEST

    def write(self, key: Any, kept: Kept, entry: Entry) -> None:
        """Stores a value; its index entry has it until it can be read."""
        payload = payload_of(kept)
        if payload is None:
            return
        left_ns = remaining_ns(kept.expires_ns, self._clock.monotonic_ns())
        self._disk.put(key, payload, left_ns, kept.about)
        row = _Row(kept.expires_ns, kept.about, hash(payload))
        # On the writer's thread: an entry is given its other value in one step.
        self._disk.after_written(functools.partial(setattr, entry, "value", row))

    def read(self, key: Any, row: _Row) -> Kept | None:
        """The value of this row; None if it is not there, or is another one: its write may have
        been lost."""
        found = self._disk.get(key)
        if found is None or row.mark not in (None, hash(found.value)):
            return None
        return unpacked(found.value, row.expires_ns, row.about)

    def drop(self, key: Any) -> None:
        """Removes a value."""
        self._disk.delete(key)

    def clear(self) -> None:
        """Removes all values."""
        self._disk.clear()

    def close(self) -> None:
        """Waits until all is written, and closes the file."""
        self._disk.close()


def unpacked(payload: bytes, expires_ns: int, about: About) -> Kept | None:
    """The value that was stored as these bytes; None if it cannot be read."""
    try:
        snapshot = Snapshot.of_payload(payload, decode(payload))
    except CodecError as exc:
        _log.info("a stored value is not used: %s", exc)
        return None
    return Kept(snapshot.form, snapshot.held, expires_ns, about)


def _tell(error: StorageError) -> None:
    _log.warning("the warm tier: %s %s", error, error.next_step)
