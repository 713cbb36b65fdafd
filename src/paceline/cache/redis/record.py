"""A result as it lies in Redis: who it belongs to and how long it lives stand beside it.

::

    form (1 byte) | checksum of all that follows (4) | length of the header (4) | header | payload

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

_FORM: Final = 1
_START: Final = struct.Struct(">BII")
_SUMMED_AT: Final = 5
_HEADER_AT: Final = _START.size
_SKEW_NS: Final = 60_000_000_000
"""How far the clocks of two hosts may be apart."""


class Found(NamedTuple):
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


@final
class _Header(msgspec.Struct, frozen=True, array_like=True, gc=False):
    key: bytes
    stored_ns: int  # of the wall clock
    expires_ns: int
    about: About | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Header).decode


def pack(key: bytes, payload: bytes, ttl_ns: int, about: About, now_ns: int) -> bytes:
    """The bytes to store at this moment of the wall clock."""
    header = _encode(_Header(key, now_ns, now_ns + ttl_ns, None if about is PLAIN else about))
    body = b"".join((len(header).to_bytes(4, "big"), header, payload))
    return b"".join((_START.pack(_FORM, zlib.crc32(body), 0)[:_SUMMED_AT], body))


def unpack(data: Any, key: bytes, now_ns: int, since_ns: int = 0) -> Found | Unusable:
    """What was stored under this key, with the rest of its life at this moment; what was stored
    before `since_ns` counts as expired."""
    try:
        form, checksum, length = _START.unpack_from(data)
        view, end = memoryview(data), _HEADER_AT + length
        if form != _FORM or checksum != zlib.crc32(view[_SUMMED_AT:]):
            return Unusable.DAMAGED
        header = _decode(view[_HEADER_AT:end])
    except (struct.error, TypeError, msgspec.DecodeError, UnicodeDecodeError):
        return Unusable.DAMAGED
    if header.key != key:
        return Unusable.FOREIGN
    remaining_ns = _remaining_ns(header, now_ns)
    if remaining_ns <= 0 or header.stored_ns < since_ns:
        return Unusable.EXPIRED
    return Found(data[end:], remaining_ns, header.about or PLAIN)


def peek(data: bytes, size: int, now_ns: int) -> Kept | None:
    """What its first bytes say about a value of this size; None if they say nothing of sense."""
    try:
        form, _, length = _START.unpack_from(data)
        header = _decode(memoryview(data)[_HEADER_AT : _HEADER_AT + length])
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError):
        return None
    if form != _FORM:
        return None
    return Kept(header.key, header.about or PLAIN, _remaining_ns(header, now_ns), size)


def _remaining_ns(header: _Header, now_ns: int) -> int:
    """0 or less when it is over. Clocks that disagree, or one that was set back, cannot make it
    longer than it was meant to be."""
    if header.stored_ns > now_ns + _SKEW_NS:
        return 0
    return min(header.expires_ns - now_ns, header.expires_ns - header.stored_ns)
