"""The parameters of a function: the JSON schema a model sees, and the check of what it writes."""

import copy
import difflib
import enum
import functools
import inspect
import math
import reprlib
import threading
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Optional, cast, final, get_args, get_origin

import msgspec

from paceline.errors import AgentLoadError, InvalidInputError
from paceline.tools.docstring import Described

__all__ = ["Parameters", "read_parameters"]

_OF_CALLER: Final = frozenset({"session", "tenant", "user"})
_SHARED: Final = (type(None), bool, int, float, str, bytes, enum.Enum)
"""Types whose values can be handed to several calls without a copy."""
_MOST_PROBLEMS: Final = 10
_NOTHING: Final = object()

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 60


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One that the model gives a value. `type` is what values are made of."""

    name: str
    type: Any
    default: object = _NOTHING
    described: str = ""

    @property
    def required(self) -> bool:
        return self.default is _NOTHING

    @property
    def data(self) -> bool:
        """Whether its default is data, so that a call is the same whether it names it or not."""
        return _as_json(self.default) is not _NOTHING

    @property
    def field(self) -> tuple[str, Any] | tuple[str, Any, Any]:
        """It as a field of a Struct."""
        if self.required:
            return self.name, self.type
        if not self.data:
            return self.name, self.type, msgspec.UNSET
        if isinstance(self.default, _SHARED):
            return self.name, self.type, self.default
        made = functools.partial(copy.deepcopy, self.default)
        return self.name, self.type, msgspec.field(default_factory=made)


@final
class Parameters:
    """What a function takes by name. `schema` is a JSON schema of type object, complete in itself;
    `wants` are the parameters that the call fills, which are not in it."""

    __slots__ = ("_left", "_parameters", "_record", "_where", "schema", "wants")

    def __init__(
        self, where: str, parameters: Collection[_Parameter], wants: frozenset[str]
    ) -> None:
        """`read_parameters` makes them."""
        self._where = where
        self._parameters = {parameter.name: parameter for parameter in parameters}
        self._record = _record(where, parameters)
        # Defaults that are no data are left to the function: a copy may be something else.
        self._left = tuple(p.name for p in parameters if p.default is not _NOTHING and not p.data)
        self.schema = _schema(self._record, parameters)
        self.wants = wants

    def check(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """The arguments as the function takes them, with the defaults that it declares.

        Models write "5" for 5, and a list or an object as JSON in a text: where a value is not of
        the type that is declared, and can be read as it in one way alone, it is taken for that.
        Raises InvalidInputError that names each wrong argument, and says what was expected.
        """
        try:
            record = msgspec.convert(arguments, self._record)
        # Types of the tool may check themselves, by code that raises anything.
        except Exception:  # noqa: BLE001
            record = self._record(**self._leniently(arguments))
        checked = msgspec.structs.asdict(record)
        for name in self._left:
            if checked[name] is msgspec.UNSET:
                del checked[name]
        return checked

    def _leniently(self, arguments: Mapping[str, object]) -> dict[str, object]:
        problems = [self._unknown(name) for name in arguments if name not in self._parameters]
        checked: dict[str, object] = {}
        for name, parameter in self._parameters.items():
            if name not in arguments:
                if parameter.required:
                    problems.append(f"{name} is missing")
                continue
            try:
                checked[name] = _converted(arguments[name], parameter.type)
            except Exception as exc:  # noqa: BLE001 (as in `check`)
                problems.append(_problem(name, arguments[name], exc))
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            told = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
            raise InvalidInputError(
                f"the arguments of {self._where} are wrong: {'; '.join(told)}",
                next_step=self._advice(),
            )
        return checked

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._parameters, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        return f"{_shown.repr(name)} is no parameter{meant}"

    def _advice(self) -> str:
        if not self._parameters:
            return "It takes no arguments."
        names = [
            f"{name} (required)" if parameter.required else name
            for name, parameter in self._parameters.items()
        ]
        return f"Its parameters are: {', '.join(names)}."


def read_parameters(where: str, fn: Callable[..., object], described: Described) -> Parameters:
    """The parameters of a function. `where` is how messages speak of it.

    `session`, `tenant` and `user` are filled by the call, and `cancelled` if it is annotated as
    `threading.Event`, or not at all; a model sees none of them, nor what `functools.partial` has
    bound. A parameter without annotation takes anything; one whose default is None takes None.

    Raises AgentLoadError for what cannot be called with arguments by name, and for annotations
    that cannot be read or have no form in JSON.
    """
    parameters: list[_Parameter] = []
    wants: set[str] = set()
    bound, plain = _plain_function(fn)
    hints = _hints(where, plain)
    for parameter in _signature(where, fn):
        name, hint = parameter.name, hints.get(parameter.name, Any)
        if name in bound:
            continue
        if name in _OF_CALLER or (name == "cancelled" and hint in (Any, threading.Event)):
            wants.add(name)
            continue
        text = next(
            (x for x in _extras(hint) if isinstance(x, str)), described.parameters.get(name)
        )
        if parameter.default is parameter.empty:
            parameters.append(_Parameter(name, hint, described=text or ""))
        else:
            kind = Optional[hint] if parameter.default is None else hint  # noqa: UP045 (at run time)
            parameters.append(_Parameter(name, kind, parameter.default, text or ""))
    return Parameters(where, parameters, frozenset(wants))


def _plain_function(fn: Callable[..., object]) -> tuple[frozenset[str], Callable[..., object]]:
    """The names that partials have bound, and the function that has the annotations."""
    bound: set[str] = set()
    while isinstance(fn, functools.partial):
        bound.update(fn.keywords)
        fn = cast("Callable[..., object]", fn.func)
    if isinstance(fn, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        return frozenset(bound), fn
    return frozenset(bound), type(fn).__call__


def _signature(where: str, fn: Callable[..., object]) -> Iterator[inspect.Parameter]:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError, NameError) as exc:
        raise AgentLoadError(
            f"{where}: its parameters cannot be read: {exc}",
            next_step="Wrap it in a function of yours that has annotations.",
        ) from exc
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise AgentLoadError(
                f"{where} takes any arguments (`{parameter}`)",
                next_step="Name each parameter: a model is told which there are.",
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise AgentLoadError(
                f"{where} takes `{parameter.name}` by position only",
                next_step="Let it be given by name: leave out the `/`.",
            )
        yield parameter


def _hints(where: str, fn: Callable[..., object]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception as exc:  # annotations are code of the tool
        raise AgentLoadError(
            f"{where}: an annotation cannot be read: {exc}",
            next_step="Import the name at run time too, and define types at the top of the module.",
        ) from exc


def _extras(hint: Any) -> tuple[object, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _record(where: str, parameters: Collection[_Parameter]) -> type[msgspec.Struct]:
    """A Struct with these fields."""
    fields = [parameter.field for parameter in parameters]
    try:
        record = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        msgspec.json.schema(record)
    except Exception as exc:  # of whatever types there are
        wrong, reason = next(_schemaless(parameters), ("", exc))
        raise AgentLoadError(
            f"{where}: the type of `{wrong}` has no form in JSON: {reason}",
            next_step="Use plain data, enums, dataclasses, TypedDicts or msgspec Structs.",
        ) from exc
    return record


def _schemaless(parameters: Collection[_Parameter]) -> Iterator[tuple[str, Exception]]:
    for parameter in parameters:
        try:
            msgspec.json.schema(parameter.type)
        except Exception as exc:  # noqa: BLE001 (of whatever types there are)
            yield parameter.name, exc


def _schema(record: type[msgspec.Struct], parameters: Collection[_Parameter]) -> dict[str, object]:
    (top,), types_of_it = msgspec.json.schema_components((record,), ref_template="#/$defs/{name}")
    schema = cast("dict[str, Any]", types_of_it.pop(top["$ref"].rpartition("/")[2]))
    del schema["title"]
    for parameter in parameters:
        of_it = schema["properties"][parameter.name]
        if parameter.described:
            of_it.setdefault("description", parameter.described)
        if not parameter.required and (default := _as_json(parameter.default)) is not _NOTHING:
            of_it["default"] = default
    return {**schema, "$defs": types_of_it} if types_of_it else schema


def _as_json(value: object) -> object:
    """The value as JSON has it, or nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return _NOTHING
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except Exception:  # noqa: BLE001 (defaults are of any type, with code of their own)
        return _NOTHING


def _converted(value: object, kind: Any) -> object:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        found = _read(value, kind)
        if found is _NOTHING:
            raise
        return found


def _read(value: object, kind: Any) -> object:
    """What a value that is not of its type can be read as, or nothing."""
    try:
        found = msgspec.convert(value, kind, strict=False)
        if _finite(found):
            return found
    except msgspec.ValidationError:
        pass
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return _NOTHING
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.MsgspecError:
        return _NOTHING


def _finite(value: object) -> bool:
    """Whether no number in it is what JSON has no number for: "nan" was a text then."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_finite, cast("Collection[object]", value)))
    if isinstance(value, dict):
        return all(map(_finite, cast("dict[object, object]", value).values()))
    return not isinstance(value, float) or math.isfinite(value)


def _problem(name: str, value: object, exc: Exception) -> str:
    what, _, path = str(exc).partition(" - at `$")
    if not isinstance(exc, msgspec.ValidationError):
        what = f"{type(exc).__name__}: {exc}"
    return f"{name}{path.rstrip('`')}: {what}; it is {_shown.repr(value)}"
