"""Keys of function calls: every way to write one call has one key.

Arguments are bound to the function's parameters first, so `f(1)`, `f(x=1)` and a default of 1
are one call. Plain arguments are their own key; only others are digested.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Hashable, Mapping
from types import FunctionType
from typing import Any, Final, cast, final

from paceline.cache.keys import digest
from paceline.errors import InvalidInputError, UnkeyableError

if sys.version_info >= (3, 14):
    import annotationlib

__all__ = ["FunctionKeys"]

# Of these, equal values of one type are the same value; not so 0.0 and -0.0.
_PLAIN: Final = frozenset({type(None), bool, int, str, bytes})
_BARE: Final = frozenset({int, str})
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@final
class FunctionKeys:
    """Makes the keys of one function's calls, for a table that holds no other function's.

    Integers and texts, which never equal one another, are keys as they are: alone, or in a tuple
    if there are several. `bool`, `bytes` and None need their types beside them. All else is
    digested, together with the function's name and `version`. `ignore` names parameters that do
    not matter; `key` makes a value to key the call by out of its arguments.

    The `self` or `cls` of a method is left out: it says which table.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *,
        version: str = "",
        ignore: Collection[str] = (),
        key: Callable[..., object] | None = None,
    ) -> None:
        self._signature = _signature(function)
        parameters = list(self._signature.parameters.values())
        name = getattr(function, "__qualname__", type(function).__qualname__)
        unknown = set(ignore) - {parameter.name for parameter in parameters}
        if unknown:
            raise InvalidInputError(
                f"{name} has no parameter {', '.join(sorted(unknown))} to ignore"
            )
        self.name = f"{function.__module__}.{name}"
        self.is_method = (
            key is None and _is_method(function, parameters) and parameters[0].name not in ignore
        )
        self.first = parameters[0].name if parameters else ""
        names = tuple([parameter.name for parameter in parameters])
        fixed = all(parameter.kind in _POSITIONAL for parameter in parameters)
        plain = type(function) is FunctionType and not ignore and key is None
        self.fixed = names if fixed and plain else None
        """The parameters' names, if the arguments alone, in their order, are the key."""
        self._count = len(parameters)
        self._is_single = self.fixed is not None and self._count == 1 and not self.is_method
        self._defaults: tuple[Any, ...] = getattr(function, "__defaults__", None) or ()
        self._version = version
        self._ignore = frozenset(ignore)
        self._key = key

    def __repr__(self) -> str:
        return f"FunctionKeys({self.name})"

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *scope: object) -> Hashable:
        """The key of a call with these arguments, for those of one `scope` if one is given.

        Raises UnkeyableError for an argument that has no canonical form, TypeError for arguments
        the function does not take.
        """
        if self._is_single and len(args) == 1 and type(args[0]) in _BARE and not (kwargs or scope):
            return cast("Hashable", args[0])  # what follows comes to the same
        missing = self._count - len(args)
        if self.fixed is None or kwargs or missing < 0 or missing > len(self._defaults):
            args = self._bind(args, kwargs)
        elif missing:
            args += self._defaults[-missing:]
        if self.is_method:
            args = args[1:]
        values = (*scope, *args) if scope else args
        types = tuple(map(type, values))
        if _BARE.issuperset(types):
            return values[0] if len(values) == 1 else values
        if _PLAIN.issuperset(types):
            return (values, types)
        try:
            return digest((self.name, self._version, values))
        except UnkeyableError as exc:
            raise UnkeyableError(f"a call of {self.name} has no cache key: {exc}") from exc

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        if self._key is not None:
            return (self._key(*args, **kwargs),)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        return tuple([arguments[name] for name in arguments if name not in self._ignore])


def _signature(function: Callable[..., object]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # Annotations are not evaluated: they may name what only type checkers import.
        return inspect.signature(function, annotation_format=annotationlib.Format.STRING)
    return inspect.signature(function)


def _is_method(function: Callable[..., object], parameters: list[inspect.Parameter]) -> bool:
    """Whether the function stands in a class body and takes the instance or the class first."""
    place = getattr(function, "__qualname__", "").rpartition(".")[0]
    in_class = bool(place) and not place.endswith("<locals>")
    return in_class and bool(parameters) and parameters[0].name in ("self", "cls")
