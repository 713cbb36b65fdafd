"""What a row of the warm tier holds, and whether it can be believed.

Beside its key and payload a row has a head: a checksum, when it was stored, when it ends, and
what it is. Name, cost and end stand in columns, too, for searching; what counts is the head.

The checksum is a CRC-32 over key, head and payload. It is there for damage, not against somebody
who can write the file (who could make any checksum without a key): nothing read is ever
executed, and a CRC finds every burst of up to 32 bits and all but one of 2^32 other changes. A
row that turns up under another key, or with the head of another, differs in what is summed, so
it is found like any damage.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, Literal, final
from zlib import crc32

import msgspec

from paceline.cache.entry import PLAIN, About

__all__ = [
    "CLEAR",
    "DELETE",
    "GET",
    "GET_MANY",
    "HOLDS",
    "HOTTEST",
    "LIST",
    "MANY",
    "PUT",
    "SIZES",
    "TABLES",
    "TOUCH",
    "VERSION",
    "DamagedRowError",
    "Found",
    "Listed",
    "Order",
    "Row",
    "Wanted",
    "about_of",
    "end_ns",
    "listed",
    "pack",
    "unpack",
]

Order = Literal["stored", "expiry", "size", "cost"]
Wanted = Callable[[bytes, About], bool]
Row = Any
"""Of types that the STRICT table guarantees."""

VERSION: Final = 2
"""Of the tables, and of what a row holds; a file of another version is replaced."""
TABLES: Final = (
    # Small columns first: they are read without the pages that a long payload runs over to.
    # `id` is the order of storing; `used` is 1 from a hit until the eviction passes by.
    """CREATE TABLE results (
         id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL DEFAULT 0,
         until_ns INTEGER NOT NULL, cost_ns INTEGER NOT NULL, name TEXT NOT NULL,
         head BLOB NOT NULL, payload BLOB NOT NULL
       ) STRICT""",
    "CREATE INDEX results_by_end ON results (until_ns)",
)
MANY: Final = 64
# Of constants only, here and below; values are bound.
GET: Final = "SELECT payload, head, used FROM results WHERE key = ?"
GET_MANY: Final = (
    f"SELECT key, payload, head, used FROM results WHERE key IN ({', '.join('?' * MANY)})"  # noqa: S608
)
HOTTEST: Final = """SELECT id, key, payload, head FROM results
WHERE used = ? AND id < ? ORDER BY id DESC LIMIT ?"""
_LIST: Final = """SELECT key, head, length(payload), used FROM results
WHERE until_ns > ? ORDER BY """
LIST: Final[dict[Order, str]] = {
    "stored": _LIST + "substr(head, 5, 8) DESC, id DESC LIMIT ?",
    "expiry": _LIST + "until_ns LIMIT ?",
    "size": _LIST + "length(payload) DESC LIMIT ?",
    "cost": _LIST + "cost_ns DESC LIMIT ?",
}
HOLDS: Final = "SELECT 1 FROM results WHERE key = ?"
TOUCH: Final = "UPDATE results SET used = 1 WHERE key = ? AND used = 0"
DELETE: Final = "DELETE FROM results WHERE key = ?"
CLEAR: Final = "DELETE FROM results"
SIZES: Final = """SELECT (SELECT count(*) FROM results),
(page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""
# Storing again keeps the row's place and saves it from the next eviction. What is there already,
# to a millisecond of its end (which is computed from two clocks), is not written again.
PUT: Final = """
INSERT INTO results (key, until_ns, cost_ns, name, head, payload) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET used = 1, until_ns = excluded.until_ns,
  cost_ns = excluded.cost_ns, name = excluded.name, head = excluded.head,
  payload = excluded.payload
WHERE abs(until_ns - excluded.until_ns) > 1000000
  OR substr(head, 5, 8) > substr(excluded.head, 5, 8)
  OR payload <> excluded.payload OR substr(head, 21) <> substr(excluded.head, 21)"""

_LAST_NS: Final = 2**63 - 1
# Of one width and big-endian, so that they are in order as text: SQL compares heads by it.
_times = struct.Struct(">QQ")
_start = struct.Struct(">IQQ")
_about_at: Final = _start.size
_read_start = _start.unpack_from
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(About).decode


class DamagedRowError(Exception):
    """A row is not as it was written."""


@final
class Found(msgspec.Struct, gc=False, eq=False):
    """A stored value, how long it is still kept, in nanoseconds, and what it is."""

    value: bytes
    remaining_ns: int
    _about: About | bytes = PLAIN
    """Read when it is asked for."""

    @property
    def about(self) -> About:
        """What it is; of another version of Paceline's, what can be understood of it."""
        if isinstance(self._about, bytes):
            self._about = _read_about(self._about)
        return self._about

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Found) and _parts(self) == _parts(other)

    def __hash__(self) -> int:
        return hash(_parts(self))

    def __repr__(self) -> str:
        return f"Found{_parts(self)}"


class Listed(msgspec.Struct, frozen=True):
    """A stored value in a list; `used` says that it was hit since the eviction last came by."""

    key: bytes
    about: About
    size_bytes: int
    stored_ns: int
    remaining_ns: int
    used: bool


def end_ns(now_ns: int, ttl_ns: float) -> int:
    """The moment at which a lifetime ends that begins now."""
    return int(min(now_ns + ttl_ns, _LAST_NS))


def pack(
    key: bytes, payload: bytes, about: About, stored_ns: int, until_ns: int
) -> tuple[object, ...]:
    """The parameters of PUT."""
    kept = b"" if about is PLAIN else _encode(about)
    summed = _times.pack(stored_ns, until_ns) + kept
    digest = crc32(payload, crc32(key + summed))
    head = digest.to_bytes(4, "big") + summed
    return key, until_ns, min(about.cost_ns, _LAST_NS), about.name, head, payload


def unpack(key: bytes, payload: bytes, head: bytes, now_ns: int) -> Found | None:
    """What a row holds; None if it is not its time. Raises DamagedRowError."""
    try:
        digest, stored_ns, until_ns = _read_start(head)
    except struct.error as exc:
        raise DamagedRowError from exc
    if digest != crc32(payload, crc32(key + head[4:])):
        raise DamagedRowError
    # The first comparison keeps a clock that was set back from prolonging lives.
    if not stored_ns <= now_ns < until_ns:
        return None
    return Found(payload, until_ns - now_ns, head[_about_at:] or PLAIN)


def _read_about(kept: bytes) -> About:
    """What a value is; nothing known of it if that is of another version."""
    try:
        return _decode(kept)
    except msgspec.DecodeError:
        return PLAIN


def about_of(head: bytes) -> About:
    """What a value is, by the head of its row."""
    return _read_about(head[_about_at:]) if len(head) > _about_at else PLAIN


def listed(row: Row, now_ns: int) -> Listed | None:
    """A row of LIST; None for a damaged one, which is counted when it is asked for."""
    key, head, size, used = row
    try:
        _, stored_ns, until_ns = _read_start(head)
    except struct.error:
        return None
    return Listed(key, about_of(head), size, stored_ns, until_ns - now_ns, bool(used))


def _parts(found: Found) -> tuple[bytes, int, About]:
    return found.value, found.remaining_ns, found.about
