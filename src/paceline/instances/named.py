"""Arguments by name and values of any declared type, on their way between two processes. Pure."""

import datetime as dt
import decimal
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from paceline.codec import encode
from paceline.errors import CodecError

__all__ = ["lowered", "types_of"]

_KEPT: Final = (bytes, dt.datetime, dt.date, dt.time, decimal.Decimal, uuid.UUID)
"""What the codec has a form for, beside what JSON has."""


def lowered(value: object) -> object:
    """The value as plain data, which its type makes the value of again.

    What is plain data stays as it is. Raises CodecError for what is no data.
    """
    try:
        encode(value)
    except CodecError:
        try:
            return msgspec.to_builtins(value, builtin_types=_KEPT)
        except Exception as exc:  # reading fields runs the value's own code
            raise CodecError(
                f"a value of type {type(value).__qualname__} cannot be sent: {exc}"
            ) from exc
    return value


def types_of(function: Callable[..., object]) -> Mapping[str, Any]:
    """The types of the function's parameters, as far as they say what data is to be made into."""
    try:
        plain = function if hasattr(function, "__annotations__") else type(function).__call__
        hints = typing.get_type_hints(plain, include_extras=True)
    except Exception:  # noqa: BLE001 (annotations are code of the function, and agents need none)
        return {}
    # A default of None need not be in the annotation.
    return {name: hint | None for name, hint in hints.items() if _of_data(hint)}


def _of_data(hint: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(hint | None)
    except Exception:  # noqa: BLE001 (as above; what it is called with is what it gets then)
        return False
    return True
