"""Values of arguments: when two are equal, and of which type they are."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

__all__ = ["as_float", "canonical", "canonical_object", "is_list", "is_object", "kind_of"]


def is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a value is a JSON object."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value is a JSON array."""
    return isinstance(value, list | tuple)


def kind_of(value: object) -> str:
    """The type of a value in the words of JSON schema; a whole number is a number too."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if is_list(value):
        return "array"
    return "object" if is_object(value) else "null"


def as_float(value: int) -> int | float:
    """A whole number as a float; itself where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return value


def canonical(value: object) -> str:
    """A text that is equal for two values exactly if they are equal as JSON (1 and 1.0 are)."""
    if isinstance(value, str):
        return '"' + value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if is_list(value):
        return "[" + "".join([_framed(canonical(item)) for item in value])
    if is_object(value):
        return canonical_object({key: canonical(value[key]) for key in value})
    return "?" + repr(value)


def canonical_object(parts: Mapping[str, str]) -> str:
    """The canonical text of an object, from those of its fields."""
    return "{" + "".join([_framed(key) + _framed(parts[key]) for key in sorted(parts)])


def _framed(text: str) -> str:
    """With its length before it, so that parts laid end to end stay apart."""
    return f"{len(text)}:{text}"
