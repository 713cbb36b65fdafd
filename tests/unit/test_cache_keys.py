"""Keys: equal requests get equal keys, different requests different ones."""

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import gc
import hashlib
import json
import math
import subprocess
import sys
import uuid
import zoneinfo
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache import keys
from paceline.cache.entry import Ledger, Table
from paceline.cache.function.keys import FunctionKeys
from paceline.cache.function.tables import Instances
from paceline.cache.keys import KEY_BYTES, CallKeys, call_key, canonical, digest
from paceline.call import Call, Caller, Effect, Kind, Plan, Scope, ScopeLevel
from paceline.errors import InvalidInputError, UnkeyableError


class Colour(enum.Enum):
    RED = 1
    ROUGE = 1  # noqa: PIE796 (an alias is the same member)
    BLUE = 2


class Other(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    ONE = "1"


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


@dataclasses.dataclass
class Place:
    x: object
    y: object = 0


class Named(str):
    __slots__ = ()


class Subpoint(Point):
    """A dataclass's subclass, which is none itself."""


class Pair(msgspec.Struct):
    x: object
    y: object = 0


def _call(name: str = "f", **changes: Any) -> Call:
    base: dict[str, Any] = {
        "id": "1", "kind": Kind.TOOL, "name": name, "arguments": {"x": 1}, "caller": Caller(),
        "scope": Scope(ScopeLevel.GLOBAL), "plan": Plan(Effect.pure()),
    }  # fmt: skip
    return Call(**{**base, **changes})


_PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.dates() | st.times() | st.timedeltas() | st.datetimes() | st.decimals(allow_nan=False) | st.uuids()
    | st.sampled_from([*Colour, *Other, *Number, *Word, PurePosixPath("a"), PureWindowsPath("a")])
)  # fmt: skip
# Not recursive: what hypothesis would show of that is too long for it.
_HASHABLES = _PLAIN | st.tuples(_PLAIN, _PLAIN) | st.frozensets(_PLAIN, max_size=2)
_ANYTHING = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(_HASHABLES, inner, max_size=3)
        | st.sets(_HASHABLES, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@st.composite  # short to show, where a strategy shows all it is made of
def _values(draw: st.DrawFn) -> Any:
    return draw(_ANYTHING)


def _same(left: Any, right: Any) -> bool:
    """Whether two values are the same value, types included: what a key has to tell."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (float, decimal.Decimal)):
        return repr(left) == repr(right)  # which shows -0.0, NaN and the zeros of 1.00
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, (set, frozenset, dict)):
        return _same_bag(_items(left), _items(right))
    if isinstance(left, (Point, Pair)):
        return _same(left.x, right.x) and _same(left.y, right.y)
    return bool(left == right) and getattr(left, "fold", 0) == getattr(right, "fold", 0)


def _items(bag: Any) -> list[Any]:
    return list(bag.items() if isinstance(bag, dict) else bag)


def _same_bag(left: list[Any], right: list[Any]) -> bool:
    rest = list(right)
    for item in left:
        twin = next((i for i, other in enumerate(rest) if _same(item, other)), None)
        if twin is None:
            return False
        del rest[twin]
    return not rest


@given(_values(), _values())
def test_different_values_have_different_encodings(left: Any, right: Any) -> None:
    """Two values have one encoding exactly if they are the same value of the same type. (S0-31)"""
    assert (canonical(left) == canonical(right)) == _same(left, right)


@given(st.lists(_values(), max_size=4), st.lists(_values(), max_size=4))
def test_no_encoding_begins_another(left: list[Any], right: list[Any]) -> None:
    """Encodings that follow one another can be told apart again. (S1-06)"""
    joined = [b"".join(map(canonical, items)) for items in (left, right)]
    assert (joined[0] == joined[1]) == _same(left, right)


@given(st.dictionaries(_HASHABLES, _PLAIN, max_size=6), st.randoms())
def test_the_order_of_a_mapping_does_not_matter(mapping: dict[Any, Any], rng: Any) -> None:
    """Mappings with equal items have one encoding, whatever the order of their keys. (S0-31)"""
    items = list(mapping.items())
    rng.shuffle(items)
    assert canonical(dict(items)) == canonical(mapping)


_NEW_YEAR = dt.datetime.fromisoformat("2020-01-01T00:00:00")
_LOOKALIKES: list[Any] = [
    1, 1.0, True, "1", b"1", Number.ONE, Word.ONE, decimal.Decimal(1), decimal.Decimal("1.0"), 1j,
    0, 0.0, -0.0, False, "", b"", None, [], (), {}, set(), frozenset(), bytearray(), "None", math.nan,
    [1, 2], (1, 2), {1, 2}, frozenset({1, 2}), {1: 2}, {"1": 2}, [[1], 2], [[1, 2]], [1, [2]],
    dt.date(2020, 1, 1), _NEW_YEAR, "2020-01-01", dt.time(0), dt.timedelta(0),
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "Z")), _NEW_YEAR.replace(fold=1),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), dt.time(0, tzinfo=dt.UTC),
    uuid.UUID(int=1), str(uuid.UUID(int=1)), PurePosixPath("a"), PureWindowsPath("a"), Path("a"), "a",
    Colour.RED, Colour.BLUE, Other.RED, Flags.A, Flags.A | Flags.B, Flags(0), "RED",
    Point(1), Place(1), Pair(1), {"x": 1, "y": 0}, Point(1, "0"), Point(Point(1)),
    "\ud800", "a:b", ("a:b", "c"), ("a", "b:c"), 2**64, -(2**64), float(2**64),
]  # fmt: skip


def _tells_apart(encode: Any) -> bool:
    encodings = {encode(value) for value in _LOOKALIKES}
    return len(encodings) == len(_LOOKALIKES)


def test_lookalikes_are_told_apart() -> None:
    """1, 1.0, True and "1", lists and tuples, dates and their text and other values that look
    or compare alike have keys of their own. (S0-31, S1-06, D76)"""
    assert _tells_apart(canonical)
    assert _tells_apart(digest)
    assert canonical(Colour.RED) == canonical(Colour.ROUGE)


_NAMES = st.none() | st.text(alphabet="a|b:/%", max_size=3) | st.sampled_from(["é", "e\u0301"])


@given(st.tuples(_NAMES, _NAMES, _NAMES), st.tuples(_NAMES, _NAMES, _NAMES))
def test_scopes_that_differ_have_keys_of_their_own(left: Any, right: Any) -> None:
    """Tenant, user and session are kept apart whatever separators their names hold, whether they
    are empty or missing, and by their very characters. (D74, X-04)"""
    made = [
        call_key(_call(scope=Scope(ScopeLevel.SESSION, *names)), "1", b"")
        for names in (left, right)
    ]
    assert (made[0] == made[1]) == (left == right)


@given(st.text(max_size=20), st.text(max_size=20))
def test_only_the_same_text_has_the_same_key(left: str, right: str) -> None:
    """Texts that mean nearly the same have keys of their own: nothing is found by likeness. (D77,
    D76)"""
    remembering = CallKeys()
    made = [
        remembering.key(_call(arguments={"query": text}), "1", b"")
        for text in (left, right, f"transfer to {left}", f"transfer to {right}")
    ]
    assert (made[0] == made[1]) == (made[2] == made[3]) == (left == right)


def test_remembered_keys_are_those_that_are_made() -> None:
    """A key that is remembered is the one that would be made, for every part of a call, and what
    is remembered stays bounded. (S1-06, X-09)"""
    remembering = CallKeys(size=8)
    for change in [*_CHANGES, *_CHANGES]:
        call = _call(**{"arguments": {"query": "q"}, **change})
        for version, world in (("1", b""), ("2", b""), ("1", b"12345678")):
            assert remembering.key(call, version, world) == call_key(call, version, world)
            assert len(remembering._known) <= 8


def test_encodings_that_guess_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of lookalikes fails for JSON with text as a way out, for encodings without types
    and for encodings without lengths."""
    assert not _tells_apart(lambda value: json.dumps(value, default=str, skipkeys=True))
    assert not _tells_apart(str)
    for kind, bug in [
        (tuple, keys._WRITERS[list]),
        (float, lambda value, _: b"i%x;" % int(value) if value == 1 else b"f%r" % value),
        (bool, lambda value, _: b"i%x;" % value),
        (dt.date, lambda value, _: keys._text("s", value.isoformat())),
    ]:
        with monkeypatch.context() as patch:
            patch.setitem(keys._WRITERS, kind, bug)
            assert not _tells_apart(canonical)


@pytest.mark.parametrize(
    "value",
    [
        object(), lambda: None, Named("a"), Subpoint(1), iter([]), Exception("x"), int, memoryview(b""),
        type("Local", (), {})(), {"deep": [object()]}, Point(object()), dt.datetime(1, 1, 1, tzinfo=type("T", (dt.tzinfo,), {})()),
    ],
)  # fmt: skip
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    """Values without a canonical form raise UnkeyableError; nothing is guessed from their text
    or address. (S0-31)"""
    with pytest.raises(UnkeyableError):
        digest(value)


def test_attributes_beside_the_fields_are_refused() -> None:
    """A dataclass that carries more than its fields, or less, has no key."""
    point = Point(1)
    point.z = 1  # type: ignore[attr-defined]
    with pytest.raises(UnkeyableError, match="beside its fields"):
        canonical(point)
    bare = Point(1)
    del bare.x
    with pytest.raises(UnkeyableError, match="lacks a field"):
        canonical(bare)


def test_classes_that_share_a_name_are_refused() -> None:
    """Instances of a class made inside a function have no key: the next one has its name."""

    @dataclasses.dataclass
    class Inner:
        x: int

    with pytest.raises(UnkeyableError):
        canonical(Inner(1))


def test_a_value_inside_itself_is_refused() -> None:
    """A list that contains itself is refused instead of followed for ever."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnkeyableError, match="deep"):
        canonical(endless)


_CHANGES: list[dict[str, Any]] = [
    {},
    {"name": "g"},
    {"kind": Kind.AGENT},
    {"arguments": {}},
    {"arguments": {"x": "1"}},
    {"arguments": {"x": 1, "y": None}},
    {"scope": Scope(ScopeLevel.TENANT, "a")},
    {"scope": Scope(ScopeLevel.USER, None, "a")},
    {"scope": Scope(ScopeLevel.USER, "a", "a")},
    {"scope": Scope(ScopeLevel.SESSION, None, None, "a")},
    {"scope": Scope(ScopeLevel.SESSION, None, "a", None)},
    {"scope": Scope(ScopeLevel.SESSION)},
    {"scope": Scope(ScopeLevel.SESSION, None, "None", None)},
    {"plan": Plan(Effect.read("a"))},
    {"plan": Plan(Effect.read("b"))},
]


def test_every_part_of_a_call_is_in_its_key() -> None:
    """Name, kind, arguments, scope, version, tags and generations each change the key. (S1-06,
    S1-10, S1-54, X-04, X-09)"""
    made = {call_key(_call(**change), "1", b"") for change in _CHANGES}
    made |= {call_key(_call(), "2", b""), call_key(_call(), "1", b"12345678")}
    # Two tags can have one stamp.
    tagged = [_call(plan=Plan(Effect.read(*tags))) for tags in (("a",), ("b",), ("a", "b"))]
    made |= {call_key(call, "1", b"12345678") for call in tagged}
    assert len(made) == len(_CHANGES) + 5
    assert {len(key) for key in made} == {KEY_BYTES}


def test_annotations_are_not_needed() -> None:
    """A function whose annotations name what only type checkers import has keys like any other."""
    lines = ["def f(x: OnlyForCheckers, y: AlsoMissing = 1): ...", ""]
    if sys.version_info < (3, 14):  # where annotations are evaluated only if they are asked for
        lines.insert(0, "from __future__ import annotations")
    module: dict[str, Any] = {"__name__": "m"}
    exec(compile("\n".join(lines), "m", "exec", dont_inherit=True), module)  # noqa: S102 (our own text)
    keys_of = FunctionKeys(module["f"])
    assert keys_of.key((1,), {}) == keys_of.key((), {"x": 1, "y": 1})


@dataclasses.dataclass
class Lazy:
    x: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise ZeroDivisionError
        return object.__getattribute__(self, name)


def test_a_field_that_cannot_be_read_has_no_key() -> None:
    """A value whose fields raise when they are read is refused like others without a form."""
    with pytest.raises(UnkeyableError):
        canonical([Lazy()])


def test_what_is_not_part_of_the_request_is_not_in_the_key() -> None:
    """Calls that differ in id, trace, deadline or in a caller outside the scope share a key."""
    other = _call(id="2", trace_id="t", deadline_ns=5, caller=Caller("u", "s"))
    assert call_key(_call(), "1", b"") == call_key(other, "1", b"")


def test_keys_are_the_same_in_every_process() -> None:
    """A key does not depend on the process that makes it. (S1-51)"""
    value = "{'b': frozenset({'x', 'y', 'z'}), 'a': (1, 2.5, None)}"
    code = f"from paceline.cache.keys import digest; print(digest({value}).hex())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {digest({"a": (1, 2.5, None), "b": frozenset("xyz")}).hex()}


def test_the_digest_is_blake2b_of_the_encoding() -> None:
    """A key is the 32-byte BLAKE2b digest of the encoding, for this purpose. (S1-06)"""
    expected = hashlib.blake2b(canonical([1]), digest_size=32, person=b"paceline key 1").digest()
    assert digest([1]) == expected


def _f(x: Any, y: Any = 0, *rest: Any, flag: Any = None, **more: Any) -> None: ...


def _g(x: Any, y: Any = 0) -> None: ...


@pytest.mark.parametrize("function", [_f, _g])
def test_all_ways_to_write_a_call_have_one_key(function: Any) -> None:
    """f(1), f(x=1), f(1, 0) and f(y=0, x=1) are one call. (S0-31)"""
    key = FunctionKeys(function).key
    assert len({key((1,), {}), key((), {"x": 1}), key((1, 0), {}), key((), {"y": 0, "x": 1})}) == 1


def test_different_calls_of_a_function_have_different_keys() -> None:
    """Arguments that differ in type, place or name make another call. (S0-31)"""
    key = FunctionKeys(_f).key
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((1,), {}), (("1",), {}), ((1.0,), {}), ((True,), {}), ((0, 1), {}), ((1, 2, 3), {}),
        ((1, 2, (3,)), {}), ((1, 2), {"flag": 3}), ((1, 2), {"other": 3}), ((0.0,), {}), ((-0.0,), {}),
        (([1],), {}), (((1,),), {}),
    ]  # fmt: skip
    assert len({key(*call) for call in calls}) == len(calls)


class _Thing:
    def method(self, x: Any = 1) -> None: ...


class _Slotted:
    __slots__ = ()

    def method(self) -> None: ...


def test_a_method_has_a_table_for_each_instance() -> None:
    """A method's key leaves the instance out, which has a table of its own, never that of one that
    was at its address before; the table goes with it. (S0-31, S0-32)"""
    keys_of = FunctionKeys(_Thing.method)
    abandoned: list[Table] = []
    tables = Instances(lambda: Table("method", Ledger()), abandoned.append)
    one, two = _Thing(), _Thing()
    assert keys_of.key((one,), {}) == keys_of.key((one, 1), {}) == keys_of.key((one,), {"x": 1})
    assert keys_of.key((), {"self": one, "x": 1}) == keys_of.key((two, 1), {})
    assert tables.table(one) is tables.table(one) is not tables.table(two)
    seen = [tables.table(_Thing()) for _ in range(50)]
    gc.collect(0)
    assert len({id(table) for table in seen}) == 50
    assert abandoned == seen
    assert len(tables) == len(tables.kept) == 2


def test_instances_that_cannot_be_told_apart_are_refused() -> None:
    """An instance that cannot be followed to its end has no table; a method without an instance
    is a call that Python would refuse. (S0-31)"""
    with pytest.raises(UnkeyableError, match="address"):
        Instances(lambda: Table("m", Ledger()), list[Table]().append).table(_Slotted())
    with pytest.raises(TypeError, match="self"):
        FunctionKeys(_Thing.method).key((), {})


def test_keys_may_ignore_parameters_or_be_made() -> None:
    """What is ignored makes no difference, a key of one's own replaces the arguments, and a scope
    comes first; a parameter there is not cannot be ignored. (S0-31)"""
    ignoring = FunctionKeys(_g, ignore=("y",))
    assert ignoring.key((1, 2), {}) == ignoring.key((1,), {"y": 3}) != ignoring.key((2, 2), {})
    made = FunctionKeys(_f, key=lambda x, **_: str(x).lower())
    assert made.key(("A",), {}) == made.key(("a",), {"flag": 1}) != made.key(("b",), {})
    scoped = FunctionKeys(_g)
    assert len({scoped.key((1,), {}, who) for who in ("a", "b", 1, None, b"a", True, (1,))}) == 7
    assert scoped.key((1,), {}, "a") != scoped.key(("a",), {}, 1)
    unshared = FunctionKeys(_Thing.method, ignore=("self",))
    assert unshared.key((_Thing(), 1), {}) == unshared.key((_Thing(), 1), {})
    with pytest.raises(InvalidInputError, match="no parameter z"):
        FunctionKeys(_g, ignore=("z",))


def test_an_argument_without_a_key_names_the_function() -> None:
    """The error for an argument that has no key says which function was called."""
    with pytest.raises(UnkeyableError, match="_f has no cache key"):
        FunctionKeys(_f).key((asyncio.Lock(),), {})
