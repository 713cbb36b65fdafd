"""Values to bytes and back: equal, of the same type, or refused."""

import dataclasses
import datetime as dt
import decimal
import math
import uuid
import zoneinfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.codec import IMMUTABLE, decode, encode
from paceline.errors import CodecError

HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes().map(lambda at: at.replace(fold=0))
    | st.datetimes(timezones=st.just(dt.UTC)).map(lambda at: at.replace(fold=0))
    | st.dates()
    | st.times().map(lambda at: at.replace(fold=0))
    | st.decimals(allow_nan=False)
    | st.uuids()
)
VALUES = st.recursive(
    HASHABLE | st.frozensets(HASHABLE, max_size=3) | st.sets(HASHABLE, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=15,
)


def typed(value: object) -> object:
    """The value with the type of every part, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return dict, [(typed(key), typed(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(typed(item)) for item in value)
    if isinstance(value, (list, tuple)):
        return type(value), [typed(item) for item in value]
    return type(value), repr(value)


@given(VALUES)
def test_values_come_back_as_they_were(value: object) -> None:
    """A plain value comes back equal and of the same type in every part."""
    assert typed(decode(encode(value))) == typed(value)


@given(VALUES, VALUES)
def test_different_values_have_different_bytes(one: object, other: object) -> None:
    """Bytes are equal only for values that are."""
    if encode(one) == encode(other):
        assert typed(one) == typed(other)


def test_the_law_tells_a_plain_encoder() -> None:
    """MessagePack alone would lose tuples, sets, large numbers and keys that are no text."""
    lost = 0
    for value in ((1,), {1}, dt.date(2024, 1, 1), uuid.UUID(int=1), decimal.Decimal(1)):
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
        lost += typed(again) != typed(value)
        assert typed(decode(encode(value))) == typed(value)
    assert lost == 5


def test_not_a_number_comes_back() -> None:
    """NaN and the infinities survive."""
    again = decode(encode([math.nan, math.inf, -math.inf]))
    assert str(again) == "[nan, inf, -inf]"


@given(st.binary(max_size=60))
def test_foreign_bytes_are_an_error_of_ours(data: bytes) -> None:
    """Bytes that nobody encoded give a value or a CodecError, and no other exception."""
    for candidate in (data, b"\x01" + data):
        try:
            value = decode(candidate)
        except CodecError:
            continue
        assert candidate[:1] == b"\x01"
        assert typed(decode(encode(value))) == typed(value)


@given(VALUES, st.data())
def test_cut_bytes_are_refused(value: object, draw: st.DataObject) -> None:
    """Bytes cut short anywhere are refused, never read as something smaller."""
    data = encode(value)
    cut = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(CodecError):
        decode(data[:cut])


@pytest.mark.parametrize("data", [b"", b"\x00\xc0", b"\x02\xc0", b"\x80\x04K\x01."])
def test_other_versions_are_refused(data: bytes) -> None:
    """Bytes of another version, or a pickle, are refused and not guessed at."""
    with pytest.raises(CodecError):
        decode(data)


class Text(str):
    """A subclass would come back as its base."""

    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...] = ()


class Reading(msgspec.Struct):
    at: dt.datetime
    value: float


@pytest.mark.parametrize(
    "value",
    [
        Text("a"),
        object(),
        Point(1),
        [Point(1)],
        {1: {2: object()}},
        "\ud800",
        ["\ud800"],
        {"\ud800": 1},
        range(3),
        bytearray(b"x"),
        dt.timedelta(1),
        dt.datetime(2025, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        [dt.time(12, tzinfo=zoneinfo.ZoneInfo("UTC"))],
        dt.datetime(2025, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
        dt.datetime(2025, 1, 1, fold=1),  # noqa: DTZ001 (without a zone, to be refused)
        dt.time(12, fold=1),
    ],
)
def test_what_would_not_come_back_is_refused(value: object) -> None:
    """A value without a faithful form is refused instead of being stored as something else."""
    with pytest.raises(CodecError):
        encode(value)


class Zone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        raise ZeroDivisionError

    dst = tzname = utcoffset  # type: ignore[assignment]


@dataclasses.dataclass
class Unwilling:
    x: int

    def __post_init__(self) -> None:
        raise KeyError("not again")


class Node(msgspec.Struct):
    next: "Node | None" = None


def test_what_a_values_own_code_raises_is_an_error_of_ours() -> None:
    """Whatever a value's own code raises when it is written or read becomes a CodecError."""
    chain = Node()
    for _ in range(50_000):
        chain = Node(chain)
    zoned = Reading(dt.datetime(2025, 1, 1, tzinfo=Zone()), 1)
    for value, type_ in ((zoned, Reading), (zoned.at, None), (chain, Node)):
        with pytest.raises(CodecError):
            encode(value, type_)
    with pytest.raises(CodecError, match="not again"):
        decode(encode(Point(1), Point), Unwilling)


def test_declared_types_come_back() -> None:
    """Dataclasses and Structs are read back through the type that was declared."""
    point, reading = Point(1, (2, 3)), Reading(dt.datetime(2024, 1, 1, tzinfo=dt.UTC), 0.5)
    assert decode(encode(point, Point), Point) == point
    assert decode(encode([point], list[Point]), list[Point]) == [point]
    assert decode(encode(reading, Reading), Reading) == reading
    with pytest.raises(CodecError):
        decode(encode(reading, Reading), Point)


def test_depth_is_bounded() -> None:
    """Data nested too deep is refused both ways, not a crash."""
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    cyclic: list[object] = []
    cyclic.append(cyclic)
    for value in (deep, cyclic):
        with pytest.raises(CodecError):
            encode(value)
    with pytest.raises(CodecError):
        decode(b"\x01" + b"\x91" * 100_000 + b"\xc0")


def test_immutable_types_are_immutable() -> None:
    """Every type that is handed out without a copy can be hashed, so its values cannot change."""
    assert all(kind.__hash__ is not None for kind in IMMUTABLE)
    assert not IMMUTABLE & {list, dict, set, bytearray, tuple}
