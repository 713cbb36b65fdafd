"""Values as a cache keeps them: what one caller does to its value no other caller sees.

Immutable values are shared. All others are kept encoded and decoded afresh for each caller,
which for JSON-like values takes a tenth to a third of the time of a deep copy and is needed for
the lower tiers anyway. What has no encoding is kept as a private copy.
"""

import copy
import enum
from types import MappingProxyType
from typing import Any, Self, cast, final

import msgspec

from paceline.cache.keys import canonical
from paceline.codec import IMMUTABLE, decode, encode
from paceline.errors import CodecError

__all__ = ["Form", "Snapshot", "again", "freeze", "hold", "hold_copy", "thaw"]


class Form(enum.Enum):
    """How a value is held: as it is, as bytes, as a private copy; or it is an error to raise."""

    SHARED = enum.auto()
    ENCODED = enum.auto()
    COPIED = enum.auto()
    RAISED = enum.auto()


# Asking an enum for a member takes longer than looking a result up.
_SHARED, _ENCODED, _COPIED = Form.SHARED, Form.ENCODED, Form.COPIED


def hold(value: object, type_: Any = None) -> tuple[Form, Any]:
    """What to keep of a value so that nobody can change it: its form and what is held.

    `type_` is as for `paceline.codec.encode`. Raises CodecError for a value that can neither be
    encoded nor copied, such as a generator.
    """
    if _shareable(value):
        return _SHARED, value
    try:
        return _ENCODED, _encoded(value, type_)
    except CodecError:
        return _COPIED, _copied(value)


def hold_copy(value: object) -> tuple[Form, Any]:
    """As `hold`, but by copying whatever can be changed."""
    return (_SHARED, value) if _shareable(value) else (_COPIED, _copied(value))


def freeze(value: object) -> tuple[Form, Any]:
    """As `hold`, but what JSON is made of turns into its unchangeable like, which all may share.

    A list becomes a tuple, a dict a read-only mapping, a set a frozenset, a bytearray bytes.
    """
    try:
        return _SHARED, _frozen(value)
    except _UnfreezableError:
        return hold(value)


def thaw(form: Form, held: Any, type_: Any = None) -> Any:
    """The value that was held, the caller's own; an error that was held is raised.

    Raises CodecError if the value is not of that type any more.
    """
    if form is _SHARED:
        return held
    if form is _ENCODED:
        return decode(held, type_)
    if form is _COPIED:
        return _copied(held)
    raise again(held)


@final
class Snapshot(msgspec.Struct, frozen=True):
    """A value at the moment it was stored."""

    form: Form
    held: Any

    @classmethod
    def take(cls, value: object, type_: Any = None) -> Self:
        """A snapshot of a value; `type_` as for `paceline.codec.encode`.

        Raises CodecError for a value that can neither be encoded nor copied, such as a generator.
        """
        return cls(*hold(value, type_))

    @classmethod
    def of_payload(cls, payload: bytes, value: object) -> Self:
        """The snapshot of a value that was just decoded from its stored bytes."""
        return cls(_SHARED, value) if _shareable(value) else cls(_ENCODED, payload)

    def thaw(self, type_: Any = None) -> Any:
        """The value, the caller's own. Raises CodecError if it is not of that type any more."""
        return thaw(self.form, self.held, type_)

    def payload(self, type_: Any = None) -> bytes | None:
        """The bytes to store in a lower tier; None if the value has none."""
        if self.form is _ENCODED:
            return bytes(self.held)
        if self.form is _COPIED:
            return None
        try:
            return _encoded(self.held, type_)
        except CodecError:
            return None


def _encoded(value: object, type_: Any) -> bytes:
    """The bytes of a value. Raises CodecError unless they decode to the same one."""
    data = encode(value, type_)
    # A declared type says less than the value where a field may be anything, and `==` says less
    # than its canonical form: 1 == 1.0, and a class may compare what it likes.
    if type_ is not None and _canonical(decode(data, type_)) != _canonical(value):
        raise CodecError(f"a value of type {type(value).__qualname__} would not come back as it is")
    return data


def _canonical(value: object) -> bytes:
    try:
        return canonical(value)
    except Exception as exc:  # it has none, or reading it runs code that may raise anything
        raise CodecError(
            f"a value of type {type(value).__qualname__} may not come back as it is"
        ) from exc


def _shareable(value: object) -> bool:
    if type(value) in IMMUTABLE:
        return True
    return type(value) is tuple and IMMUTABLE.issuperset(map(type, cast("tuple[object]", value)))


def _copied(value: object) -> object:
    try:
        return copy.deepcopy(value)
    except Exception as exc:  # copying runs the value's own code, which may raise anything
        raise CodecError(
            f"a value of type {type(value).__qualname__} can be neither stored nor copied"
        ) from exc


class _UnfreezableError(Exception):
    """There is a value inside that has no unchangeable like."""


def _frozen(value: object, depth: int = 100) -> object:
    if _shareable(value):
        return value
    kind = type(value)
    if not depth:
        raise _UnfreezableError
    if kind is dict or kind is MappingProxyType:
        items = cast("dict[Any, object]", value).items()
        return MappingProxyType({key: _frozen(item, depth - 1) for key, item in items})
    if kind is list or kind is tuple:
        return tuple([_frozen(item, depth - 1) for item in cast("list[object]", value)])
    if kind is set or kind is frozenset:
        return frozenset(_frozen(item, depth - 1) for item in cast("set[object]", value))
    if kind is bytearray:
        return bytes(cast("bytearray", value))
    raise _UnfreezableError


def again(error: Exception) -> Exception:
    """An error to raise once more: a copy, so that tracebacks do not pile up on what is kept."""
    try:
        again = copy.copy(error)
    except Exception:  # noqa: BLE001 (copying runs the class's own code, which may raise anything)
        again = error
    if type(again) is not type(error):
        again = error
    return again.with_traceback(None)
