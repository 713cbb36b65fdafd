"""Values as a cache keeps them: what one caller does to its value no other caller sees.

Immutable values are shared. All others are kept encoded and decoded afresh for each caller,
which for JSON-like values takes a tenth to a third of the time of a deep copy and is needed for
the lower tiers anyway. What has no encoding is kept as a private copy.
"""

import copy
import enum
from typing import Any, Self, cast, final

import msgspec

from paceline.cache.keys import canonical
from paceline.codec import IMMUTABLE, decode, encode
from paceline.errors import CodecError

__all__ = ["Form", "Snapshot"]


class Form(enum.Enum):
    """How a snapshot holds its value."""

    SHARED = enum.auto()
    ENCODED = enum.auto()
    COPIED = enum.auto()


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
        if _shareable(value):
            return cls(Form.SHARED, value)
        try:
            return cls(Form.ENCODED, _encoded(value, type_))
        except CodecError:
            return cls(Form.COPIED, _copied(value))

    @classmethod
    def of_payload(cls, payload: bytes, value: object) -> Self:
        """The snapshot of a value that was just decoded from its stored bytes."""
        return cls(Form.SHARED, value) if _shareable(value) else cls(Form.ENCODED, payload)

    def thaw(self, type_: Any = None) -> Any:
        """The value, the caller's own. Raises CodecError if it is not of that type any more."""
        if self.form is Form.SHARED:
            return self.held
        if self.form is Form.ENCODED:
            return decode(self.held, type_)
        return _copied(self.held)

    def payload(self, type_: Any = None) -> bytes | None:
        """The bytes to store in a lower tier; None if the value has none."""
        if self.form is Form.ENCODED:
            return bytes(self.held)
        if self.form is Form.COPIED:
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
        raise CodecError(f"a {type(value).__qualname__} would not come back as it is")
    return data


def _canonical(value: object) -> bytes:
    try:
        return canonical(value)
    except Exception as exc:  # it has none, or reading it runs code that may raise anything
        raise CodecError(f"a {type(value).__qualname__} may not come back as it is") from exc


def _shareable(value: object) -> bool:
    if type(value) in IMMUTABLE:
        return True
    return type(value) is tuple and IMMUTABLE.issuperset(map(type, cast("tuple[object]", value)))


def _copied(value: object) -> object:
    try:
        return copy.deepcopy(value)
    except Exception as exc:  # copying runs the value's own code, which may raise anything
        raise CodecError(f"a {type(value).__qualname__} can be neither stored nor copied") from exc
