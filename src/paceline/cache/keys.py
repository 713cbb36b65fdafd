"""Canonical keys: equal requests get equal bytes, different requests get different bytes.

Every value is written as a type mark and a body that says where it ends, so that no two values
have the same encoding: `1`, `1.0`, `True` and `"1"` differ, and so do `(1, 2)` and `[1, 2]`, or
`("a:b", "c")` and `("a", "b:c")`. Mappings and sets are written in the order of their encodings.
What has no canonical form is refused: a wrong hit is worse than no hit.
"""

import dataclasses
import datetime as dt
import decimal
import enum
import hashlib
import pathlib
import struct
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast, final

import msgspec

from paceline.call import Call
from paceline.errors import UnkeyableError

__all__ = ["KEY_BYTES", "CallKeys", "call_key", "canonical", "digest"]

KEY_BYTES: Final = 32
"""Length of a key: wide enough that nobody finds two requests with one key."""

_MAX_DEPTH: Final = 100
_LONG: Final = 1_000
_PERSON: Final = b"paceline key 1"  # changes with the encoding below

_Writer = Callable[[Any, int], bytes]


def call_key(call: Call, version: str, generations: bytes) -> bytes:
    """The key of a call's result: what is run, for whom it may be shared, and on which world.

    `version` is that of the code, `generations` the stamps of the resources that are read
    (see `paceline.cache.generations`). Raises UnkeyableError for arguments with no canonical
    form.
    """
    scope, tags = call.scope, call.plan.effect.tags
    texts = (call.kind, call.name, version, scope.level, scope.tenant, scope.user, scope.session)
    header = "".join(["N" if text is None else f"s{len(text)}:{text}" for text in texts])
    return _hash(
        b"%b%b%b%b"
        % (
            header.encode("utf-8", "surrogatepass"),
            _write_dict(call.arguments, _MAX_DEPTH),
            _sized(b"b", generations),
            _write(tags, _MAX_DEPTH) if tags else b"",  # two tags can have one stamp
        )
    )


@final
class CallKeys:
    """The keys of calls, remembered for those whose only argument is a text: most calls, of
    which many come again. Nothing but the same texts and bytes has the same key, so what is
    remembered is what would be computed.
    """

    def __init__(self, size: int = 4_096) -> None:
        self._size = size
        self._known: dict[tuple[object, ...], bytes] = {}

    def key(self, call: Call, version: str, world: bytes) -> bytes:
        """As `call_key`."""
        arguments = call.arguments
        query = arguments.get("query")
        if len(arguments) != 1 or type(query) is not str or len(query) > _LONG:
            return call_key(call, version, world)
        tags = call.plan.effect.tags
        quick = (call.name, query, world, version, tags, call.kind, call.scope)
        key = self._known.get(quick)
        if key is None:
            key = call_key(call, version, world)
            if len(self._known) >= self._size:
                self._known.clear()
            self._known[quick] = key
        return key


def digest(value: object) -> bytes:
    """The BLAKE2b digest of the canonical form. Raises UnkeyableError."""
    return _hash(canonical(value))


def _hash(encoding: bytes) -> bytes:
    return hashlib.blake2b(encoding, digest_size=KEY_BYTES, person=_PERSON).digest()


def canonical(value: object) -> bytes:
    """The one encoding of a value. Raises UnkeyableError for a value that has none.

    Keyed are plain data (None, bool, int, float, complex, str, bytes, bytearray, list, tuple,
    dict, set, frozenset), dates, times and time zones, Decimal, UUID, paths, enum members, and
    instances of dataclasses and msgspec Structs by class and fields.
    """
    return _write(value, _MAX_DEPTH)


def _write(value: object, depth: int) -> bytes:
    if depth == 0:
        raise UnkeyableError(f"a value nested more than {_MAX_DEPTH} deep cannot be a cache key")
    writer = _WRITERS.get(type(value))
    return writer(value, depth - 1) if writer is not None else _write_record(value, depth - 1)


def _sized(mark: bytes, body: bytes) -> bytes:
    return b"%b%d:%b" % (mark, len(body), body)


def _text(mark: str, text: str) -> bytes:
    # The length is in characters, of which UTF-8 says where each one ends.
    return f"{mark}{len(text)}:{text}".encode("utf-8", "surrogatepass")


def _sequence(mark: bytes) -> _Writer:
    def write(items: Iterable[object], depth: int) -> bytes:
        parts = [_write(item, depth) for item in items]
        return b"%b%d:%b" % (mark, len(parts), b"".join(parts))

    return write


def _unordered(mark: bytes) -> _Writer:
    def write(items: Iterable[object], depth: int) -> bytes:
        parts = sorted([_write(item, depth) for item in items])
        return b"%b%d:%b" % (mark, len(parts), b"".join(parts))

    return write


def _write_dict(mapping: Mapping[Any, object], depth: int) -> bytes:
    # Encodings of keys are distinct and none is the beginning of another, so sorting the joined
    # pairs sorts by key.
    parts = sorted([_write(key, depth) + _write(item, depth) for key, item in mapping.items()])
    return b"d%d:%b" % (len(parts), b"".join(parts))


def _write_datetime(value: dt.datetime, _: int) -> bytes:
    body = value.replace(tzinfo=None).isoformat()
    return _text("D", f"{body} {value.fold} {_zone(value.tzinfo)}")


def _write_time(value: dt.time, _: int) -> bytes:
    body = value.replace(tzinfo=None).isoformat()
    return _text("h", f"{body} {value.fold} {_zone(value.tzinfo)}")


def _zone(zone: dt.tzinfo | None) -> str:
    """A time zone by what it is, not by its offset of the day."""
    if zone is None:
        return "naive"
    if type(zone) is dt.timezone:
        offset = zone.utcoffset(None)
        return f"fixed {offset.days} {offset.seconds} {offset.microseconds} {zone.tzname(None)}"
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        return f"zone {zone.key}"
    raise _refusal(zone)


def _write_timedelta(value: dt.timedelta, _: int) -> bytes:
    return b"P%d,%d,%d;" % (value.days, value.seconds, value.microseconds)


def _write_path(value: pathlib.PurePath, _: int) -> bytes:
    return _text("p", f"{type(value).__name__}:{value}")


def _write_record(value: object, depth: int) -> bytes:
    """An enum member, a dataclass or a Struct: its class by name, then what it holds."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        # A combination of flags has no name of its own.
        inside = value.value if isinstance(value, enum.Flag) else value.name
        return b"e" + _class_name(kind, value) + _write(inside, depth)
    if isinstance(value, msgspec.Struct):
        return b"r" + _fields(value, value.__struct_fields__, depth)
    if "__dataclass_fields__" in vars(kind):
        return b"r" + _fields(
            value, tuple(f.name for f in dataclasses.fields(cast("Any", value))), depth
        )
    raise _refusal(value)


def _fields(value: object, names: tuple[str, ...], depth: int) -> bytes:
    if not set(getattr(value, "__dict__", ())).issubset(names):
        raise UnkeyableError(
            f"a value of type {type(value).__qualname__} has attributes beside its fields,"
            " so it cannot be a cache key"
        )
    try:
        held = {name: getattr(value, name) for name in names}
    except (
        Exception
    ) as exc:  # reading a field may run the value's own code, which may raise anything
        raise UnkeyableError(
            f"a value of type {type(value).__qualname__} lacks a field: {exc}"
        ) from exc
    return _class_name(type(value), value) + _write_dict(held, depth)


def _class_name(kind: type, value: object) -> bytes:
    if "<locals>" in kind.__qualname__:
        # Two classes made by one function have one name.
        raise _refusal(value)
    return _text("c", f"{kind.__module__}:{kind.__qualname__}")


def _refusal(value: object) -> UnkeyableError:
    return UnkeyableError(f"a value of type {type(value).__qualname__} has no canonical form")


_WRITERS: Final[dict[type, _Writer]] = {
    type(None): lambda _value, _depth: b"N",
    bool: lambda value, _depth: b"T" if value else b"F",
    int: lambda value, _depth: b"i%x;" % value,
    float: lambda value, _depth: b"f" + struct.pack(">d", value),
    complex: lambda value, _depth: b"j" + struct.pack(">dd", value.real, value.imag),
    str: lambda value, _depth: _text("s", value),
    bytes: lambda value, _depth: _sized(b"b", value),
    bytearray: lambda value, _depth: _sized(b"B", bytes(value)),
    list: _sequence(b"l"),
    tuple: _sequence(b"t"),
    set: _unordered(b"S"),
    frozenset: _unordered(b"Z"),
    dict: _write_dict,
    dt.datetime: _write_datetime,
    dt.date: lambda value, _depth: _text("a", value.isoformat()),
    dt.time: _write_time,
    dt.timedelta: _write_timedelta,
    decimal.Decimal: lambda value, _depth: _text("m", str(value)),
    uuid.UUID: lambda value, _depth: b"u" + value.bytes,
    pathlib.PosixPath: _write_path,
    pathlib.PurePosixPath: _write_path,
    pathlib.PureWindowsPath: _write_path,
}
