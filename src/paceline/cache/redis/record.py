"""A result as it lies in Redis: who it belongs to and how long it lives stand beside it.

::

    form (1 byte) | size of the key (4) | size of what it is (4) | stored (8) | expires (8)
    | key | what it is | payload | checksum of all before it (4)

Nothing of what is read is believed: another form, a checksum that does not fit, another key than
the one asked for, or a moment that makes no sense is an answer of its own, never an exception.
"""

import struct
import zlib
from enum import Enum
from typing import Any, Final, NamedTuple, final

import msgspec

from paceline.cache.entry import PLAIN, About

__all__ = ["Found", "Kept", "Unusable", "pack", "peek", "unpack"]

_FORM: Final = 2
_HEAD: Final = struct.Struct(">BIIqq")
_KEY_AT: Final = _HEAD.size
_SUM: Final = 4
_WHOLE: Final = 0x2144DF1C
"""The CRC-32 of whatever ends with its own CRC-32, the lowest byte first."""
_SKEW_NS: Final = 60_000_000_000
"""How far the clocks of two hosts may be apart."""


@final
class Found(msgspec.Struct, frozen=True, gc=False):
    """A stored value, how long it is still valid in nanoseconds, and what it is."""

    value: bytes
    remaining_ns: int
    about: About


class Kept(NamedTuple):
    """A stored value in a list, without the value; `size` is its bytes in the server."""

    key: bytes
    about: About
    remaining_ns: int
    size: int


class Unusable(Enum):
    """Why there is no value though there were bytes."""

    DAMAGED = "damaged"  # or of another version, or never one of ours
    FOREIGN = "foreign"  # whole, and of another key or scope
    EXPIRED = "expired"


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(About).decode


def pack(key: bytes, payload: bytes, ttl_ns: int, about: About, now_ns: int) -> bytes:
    """The bytes to store at this moment of the wall clock."""
    told = b"" if about is PLAIN else _encode(about)
    head = _HEAD.pack(_FORM, len(key), len(told), now_ns, now_ns + ttl_ns)
    start = b"".join((head, key, told))
    checksum = zlib.crc32(payload, zlib.crc32(start))
    return b"".join((start, payload, checksum.to_bytes(_SUM, "little")))


def unpack(data: Any, key: bytes, now_ns: int, since_ns: int = 0) -> Found | Unusable:
    """What was stored under this key, with the rest of its life at this moment; what was stored
    before `since_ns` counts as expired."""
    try:
        form, key_size, about_size, stored_ns, expires_ns = _HEAD.unpack_from(data)
        if form != _FORM or zlib.crc32(data) != _WHOLE:
            return Unusable.DAMAGED
        about_at = _KEY_AT + key_size
        value_at = about_at + about_size
        about = _decode(data[about_at:value_at]) if about_size else PLAIN
    except (struct.error, TypeError, msgspec.DecodeError, UnicodeDecodeError):
        return Unusable.DAMAGED
    if key_size != len(key) or not data.startswith(key, _KEY_AT):
        return Unusable.FOREIGN
    remaining_ns = _remaining_ns(stored_ns, expires_ns, now_ns)
    if remaining_ns <= 0 or stored_ns < since_ns:
        return Unusable.EXPIRED
    return Found(data[value_at:-_SUM], remaining_ns, about)


def peek(data: bytes, size: int, now_ns: int) -> Kept | None:
    """What its first bytes say about a value of this size; None if they say nothing of sense."""
    try:
        form, key_size, about_size, stored_ns, expires_ns = _HEAD.unpack_from(data)
        about_at = _KEY_AT + key_size
        about = _decode(data[about_at : about_at + about_size]) if about_size else PLAIN
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError):
        return None
    if form != _FORM:
        return None
    remaining_ns = _remaining_ns(stored_ns, expires_ns, now_ns)
    return Kept(data[_KEY_AT:about_at], about, remaining_ns, size)


def _remaining_ns(stored_ns: int, expires_ns: int, now_ns: int) -> int:
    """0 or less when it is over. Clocks that disagree, or one that was set back, cannot make it
    longer than it was meant to be."""
    if stored_ns <= now_ns:
        return expires_ns - now_ns
    return expires_ns - stored_ns if stored_ns <= now_ns + _SKEW_NS else 0
