"""Keys of function calls: every way to write one call has one key.

Arguments are bound to the function's parameters first, so `f(1)`, `f(x=1)` and a default of 1
are one call. Plain arguments are their own key; only others are digested.
"""

import inspect
import itertools
import sys
import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, final

from paceline.cache.keys import digest
from paceline.errors import InvalidInputError, UnkeyableError

if sys.version_info >= (3, 14):
    import annotationlib

__all__ = ["FunctionKeys"]

# Of these, equal values of one type are the same value; not so 0.0 and -0.0.
_PLAIN: Final = frozenset({type(None), bool, int, str, bytes})
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@final
class FunctionKeys:
    """Makes the keys of one function's calls.

    A key holds the function's module, qualified name and `version`, and this object: functions
    of one name never share results. A method's `self` or `cls` counts as the very instance, by
    identity, for as long as it lives.
    """

    def __init__(self, function: Callable[..., object], *, version: str = "") -> None:
        self._signature = _signature(function)
        parameters = list(self._signature.parameters.values())
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._version = version
        self._is_method = _is_method(function, parameters)
        self._arity = len(parameters) - self._is_method
        self._simple = all(parameter.kind in _POSITIONAL for parameter in parameters)
        self._instances = _Instances()

    def __repr__(self) -> str:
        return f"FunctionKeys({self._name})"

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """The key of a call with these arguments.

        Raises UnkeyableError for an argument that has no canonical form, TypeError for arguments
        the function does not take.
        """
        instance = 0
        if self._is_method:
            if not args:
                raise InvalidInputError(f"{self._name} is a method: call it on an instance")
            instance, args = self._instances.number(args[0]), args[1:]
        values = args
        if kwargs or not self._simple or len(args) != self._arity:
            values = self._bind(args, kwargs)
        types = tuple(map(type, values))
        if _PLAIN.issuperset(types):
            return (self, instance, values, types)
        try:
            return (self, instance, digest((self._name, self._version, values)))
        except UnkeyableError as exc:
            raise UnkeyableError(f"a call of {self._name} has no cache key: {exc}") from exc

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        lead = (None,) if self._is_method else ()
        bound = self._signature.bind(*lead, *args, **kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments.values())[len(lead) :]


def _signature(function: Callable[..., object]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # Annotations are not evaluated: they may name what only type checkers import.
        return inspect.signature(function, annotation_format=annotationlib.Format.STRING)
    return inspect.signature(function)


def _is_method(function: Callable[..., object], parameters: list[inspect.Parameter]) -> bool:
    """Whether the function stands in a class body and takes the instance or the class first."""
    place = function.__qualname__.rpartition(".")[0]
    in_class = bool(place) and not place.endswith("<locals>")
    return in_class and bool(parameters) and parameters[0].name in ("self", "cls")


@final
class _Instances:
    """Numbers for objects, never given twice; an `id` is, once its object is gone."""

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[weakref.ref[object], int]] = {}
        self._next = itertools.count(1)

    def number(self, instance: object) -> int:
        known = self._numbers.get(id(instance))
        if known is not None and known[0]() is instance:
            return known[1]
        place = id(instance)
        number = next(self._next)

        def forget(gone: "weakref.ref[object]") -> None:
            if (entry := self._numbers.get(place)) is not None and entry[0] is gone:
                del self._numbers[place]

        try:
            self._numbers[place] = (weakref.ref(instance, forget), number)
        except TypeError as exc:
            raise UnkeyableError(
                f"a {type(instance).__qualname__} cannot be told from later ones at its address",
                next_step='Add "__weakref__" to its __slots__.',
            ) from exc
        return number
