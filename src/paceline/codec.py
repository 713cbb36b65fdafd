"""Values to bytes and back: typed, versioned, plain MessagePack, and nothing that can run.

A value comes back equal and of the same type, or `encode` refuses it. JSON-like values, bytes,
tuples, sets, dates, decimals and UUIDs need no declaration; dataclasses and msgspec Structs are
read back through the type their producer declares.
"""

import datetime as dt
import decimal
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from paceline.errors import CodecError

__all__ = ["IMMUTABLE", "decode", "encode"]

VERSION: Final = 1
"""First byte of every encoded value; bytes of another version are refused, not guessed."""

IMMUTABLE: Final = frozenset(
    {type(None), bool, int, float, str, bytes, dt.date, dt.datetime, decimal.Decimal, uuid.UUID}
)
"""Types whose values can be handed to several callers without a copy."""

_MAX_DEPTH: Final = 100
_INT64: Final = range(-(2**63), 2**64)
_PREFIX: Final = bytes([VERSION])

_encode = msgspec.msgpack.Encoder().encode
_Ext = msgspec.msgpack.Ext


def encode(value: object, type_: Any = None) -> bytes:
    """Bytes of a value, readable by `decode` with the same `type_`.

    `type_` is a dataclass or Struct type the value is an instance of, or None for plain data.
    Raises CodecError for a value that would not come back as it is.
    """
    try:
        if type_ is not None:
            return _PREFIX + _encode(value)
        return _PREFIX + _encode(_lower(value, _MAX_DEPTH))
    except Exception as exc:  # reading fields runs the value's own code, which may raise anything
        raise CodecError(
            f"a value of type {type(value).__qualname__} cannot be stored: {exc}"
        ) from exc


def decode(data: bytes, type_: Any = None) -> object:
    """The value that was encoded. Raises CodecError for damaged or foreign bytes."""
    if data[:1] != _PREFIX:
        raise CodecError("stored value is of another version of Paceline, or not one of ours")
    try:
        if type_ is not None:
            return msgspec.msgpack.decode(memoryview(data)[1:], type=type_)
        return msgspec.msgpack.decode(memoryview(data)[1:], ext_hook=_raise, strict=True)
    except Exception as exc:  # so does making a value of a declared type
        raise CodecError(f"stored value cannot be read: {exc}") from exc


def _lower(value: object, depth: int) -> object:
    """The value with every part that MessagePack does not keep apart marked as an extension."""
    if depth == 0:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    kind = type(value)
    if kind is int:
        return value if value in _INT64 else _Ext(_BIG_INT, str(value).encode())
    if kind in (str, bytes, bool, float, type(None)):
        return value
    if kind is list:
        return [_lower(item, depth - 1) for item in value]  # type: ignore[attr-defined]
    if kind is dict:
        return _lower_dict(value, depth)  # type: ignore[arg-type]
    tag = _TAGS.get(kind)
    if tag is None:
        raise TypeError("it is not plain data, and its producer declares no return type")
    if kind in (tuple, set, frozenset):
        items = [_lower(item, depth - 1) for item in value]  # type: ignore[attr-defined]
        return _Ext(tag, _encode(items))
    text = _moment(value) if isinstance(value, (dt.date, dt.time)) else str(value)
    return _Ext(tag, text.encode())


def _moment(value: dt.date | dt.time) -> str:
    """A date or time as text, which holds no rules or name of a time zone, and no `fold`."""
    zone = getattr(value, "tzinfo", None)
    if zone is not None and zone is not dt.UTC and not _is_offset(zone):
        raise TypeError("its time zone would come back as an offset")
    if getattr(value, "fold", 0):
        raise TypeError("it would come back as the first of two equal times")
    return value.isoformat()


def _is_offset(zone: dt.tzinfo) -> bool:
    """Whether a time zone is an offset and no more: it has neither rules nor a name."""
    return type(zone) is dt.timezone and repr(zone) == repr(dt.timezone(zone.utcoffset(None)))


def _lower_dict(value: dict[object, object], depth: int) -> object:
    """Text keys stay a map; any other key makes it a list of pairs, so that 1 stays apart from "1"."""
    if all(type(key) is str for key in value):
        return {key: _lower(item, depth - 1) for key, item in value.items()}
    pairs = [[_lower(key, depth - 1), _lower(item, depth - 1)] for key, item in value.items()]
    return _Ext(_PAIRS, _encode(pairs))


_TUPLE, _SET, _FROZENSET, _PAIRS, _BIG_INT, _DATETIME, _DATE, _TIME, _DECIMAL, _UUID = range(1, 11)
_TAGS: Final[dict[type, int]] = {
    tuple: _TUPLE,
    set: _SET,
    frozenset: _FROZENSET,
    dt.datetime: _DATETIME,
    dt.date: _DATE,
    dt.time: _TIME,
    decimal.Decimal: _DECIMAL,
    uuid.UUID: _UUID,
}


def _items(data: bytes | memoryview) -> list[Any]:
    return msgspec.msgpack.decode(data, type=list[Any], ext_hook=_raise)


def _text(data: memoryview) -> str:
    return bytes(data).decode()


_READERS: Final[dict[int, Callable[[memoryview], object]]] = {
    _TUPLE: lambda data: tuple(_items(data)),
    _SET: lambda data: set(_items(data)),
    _FROZENSET: lambda data: frozenset(_items(data)),
    _PAIRS: lambda data: {key: item for key, item in _items(data)},  # noqa: C416 (checks the pair)
    _BIG_INT: lambda data: int(_text(data)),
    _DATETIME: lambda data: dt.datetime.fromisoformat(_text(data)),
    _DATE: lambda data: dt.date.fromisoformat(_text(data)),
    _TIME: lambda data: dt.time.fromisoformat(_text(data)),
    _DECIMAL: lambda data: decimal.Decimal(_text(data)),
    _UUID: lambda data: uuid.UUID(_text(data)),
}


def _raise(code: int, data: memoryview) -> object:
    """The extension of this code, raised back into its Python type."""
    reader = _READERS.get(code)
    if reader is None:
        raise ValueError(f"unknown extension {code}")
    return reader(data)
