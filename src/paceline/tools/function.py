"""A Python function as a tool."""

import dataclasses
import difflib
import functools
import hashlib
import inspect
import typing
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypedDict, Unpack, cast

import msgspec
from msgspec import Meta

from paceline.call import UNKNOWN, Effect, EffectKind, ScopeLevel
from paceline.errors import AgentLoadError, UsageError
from paceline.messages import ToolDefinition
from paceline.tools.docstring import described
from paceline.tools.importable import check_importable
from paceline.tools.parameters import read_parameters
from paceline.tools.spec import ToolSpec

__all__ = ["ToolOptions", "declared_tool", "function_tool"]


class ToolOptions(TypedDict, total=False):
    """What is declared of a tool, all of it optional.

    `name` is what a model calls it by, 64 ASCII letters, digits, "_" and "-" at most (the
    function's own), `description` what it is told of it (the docstring but for its sections).
    `effect` is an Effect or the word for one; `tags` are of what is read or written, and may name
    parameters in braces. Results are kept for `ttl_s` seconds (0 for not at all, None for the
    default of the cache), and shared in `scope`. One execution may take `timeout_s` seconds;
    `max_concurrency` of them run at once, each with `memory_mb` MiB. `killable` ones are really
    ended when they are cancelled. `approval` asks a person first; a `question` goes to the user.
    The model is told `max_result_chars` characters. One execution costs `cost_usd` US dollars, and
    tells somebody `outside` what is asked, who must not hear of what nobody asked for.
    Results of one `version` are not served for another; it is that of the function's file if not
    given.
    """

    name: str | None
    description: str | None
    effect: Effect | EffectKind | Literal["unknown", "pure", "read", "write"]
    tags: tuple[str, ...]
    ttl_s: float | None
    scope: ScopeLevel | Literal["global", "tenant", "user", "session"] | None
    timeout_s: float | None
    max_concurrency: int | None
    memory_mb: int | None
    killable: bool
    approval: bool
    question: bool
    max_result_chars: int
    cost_usd: float
    outside: bool
    version: str


_DECLARED: Final = "__paceline_tool__"
"""Where a function has the tool that it was declared to be."""
_LONGEST_S: Final = 1e10
_Amount: TypeAlias = Annotated[float, Meta(ge=0, le=_LONGEST_S)]
_Count: TypeAlias = Annotated[int, Meta(ge=1)]
_Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=_LONGEST_S)]


def _optional(kind: Any) -> Any:
    return kind | None


_TYPES: Final[Mapping[str, Any]] = {
    "name": _optional(_Name),
    "description": str | None,
    "effect": Effect | EffectKind,
    "tags": tuple[str, ...],
    "ttl_s": _optional(_Amount),
    "scope": ScopeLevel | None,
    "timeout_s": _optional(_Seconds),
    "max_concurrency": _optional(_Count),
    "memory_mb": _optional(_Count),
    "killable": bool,
    "approval": bool,
    "question": bool,
    "max_result_chars": _Count,
    "cost_usd": _Amount,
    "outside": bool,
    "version": str,
}
_WORDS: Final = {"effect": EffectKind, "scope": ScopeLevel}
_NARROWER: Final = {  # scopes in which everybody has the same value for a parameter
    "tenant": (ScopeLevel.TENANT, ScopeLevel.USER, ScopeLevel.SESSION),
    "user": (ScopeLevel.USER, ScopeLevel.SESSION),
    "session": (ScopeLevel.SESSION,),
}


def function_tool(fn: Callable[..., object], **options: Unpack[ToolOptions]) -> ToolSpec:
    """The tool that a function is: any that takes its arguments by name, sync or async.

    What a model is told of its parameters are their annotations (plain data, Literal, enums,
    dataclasses, TypedDicts, msgspec Structs, and Annotated with `msgspec.Meta` or a text) and its
    docstring (Google, numpy or Sphinx style). Parameters called `session`, `tenant` and `user` are
    filled by the call, and so is `cancelled: threading.Event`; models do not see them.

    Without options it is the tool that the function was declared to be, if it was, and so is a
    wrapper of it (`functools.wraps`).

    Raises UsageError for an unknown option; AgentLoadError for a wrong value, and for what cannot
    be a tool: a generator, a class, parameters that cannot be given by name or have no form in JSON.
    """
    declared = None if options else getattr(fn, _DECLARED, None)
    if isinstance(declared, ToolSpec):
        return declared if declared.run == fn else _wrapping(declared, fn)
    called = options.get("name") or str(getattr(fn, "__name__", type(fn).__name__))
    where = f"tool {called}"
    given = _checked(where, options)
    _check_function(where, fn, called)
    doc = described(fn)
    parameters = read_parameters(where, fn, doc)
    effect = _effect(where, given)
    if given.get("killable") or given.get("memory_mb") is not None:
        check_importable(where, fn)
        if "cancelled" in parameters.wants:
            raise AgentLoadError(
                f"{where} is killed, and has a parameter `cancelled`",
                next_step="Leave the parameter out: the process ends without being told.",
            )
    given = {name: value for name, value in given.items() if name not in _OWN}
    return ToolSpec(
        definition=ToolDefinition(
            called, options.get("description") or doc.text, parameters.schema
        ),
        run=fn,
        check=parameters.check,
        effect=effect,
        is_async=_is_async(fn),
        scope=_scope(where, parameters.wants, effect, given),
        version=str(given.pop("version", "")) or _version(fn),
        result_type=_result_type(fn),
        wants=parameters.wants,
        **{name: value for name, value in given.items() if name != "scope"},
    )


def declared_tool(fn: Callable[..., object], **options: Unpack[ToolOptions]) -> ToolSpec:
    """The tool that a function is with these options, from now on also where only the function is
    given; the latest declaration counts.

    Raises what `function_tool` raises; AgentLoadError too for options of what has no place to note
    them, such as a function that is not written in Python.
    """
    spec = function_tool(fn, **options)
    try:
        setattr(getattr(fn, "__func__", fn), _DECLARED, spec)
    except (AttributeError, TypeError) as exc:
        if options:
            raise AgentLoadError(
                f"tool {spec.name} cannot carry its options",
                next_step="Wrap it in a function of your own.",
            ) from exc
    return spec


def _wrapping(declared: ToolSpec, fn: Callable[..., object]) -> ToolSpec:
    """The same tool, run by what is wrapped around its function."""
    return dataclasses.replace(declared, run=fn, is_async=_is_async(fn), version=_version(fn))


def _is_async(fn: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004
    )


_OWN: Final = frozenset({"name", "description", "effect", "tags"})


def _checked(where: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The options as their types have them."""
    checked: dict[str, Any] = {}
    for option, value in options.items():
        if option not in _TYPES:
            near = difflib.get_close_matches(option, _TYPES, 1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"tools have no option {option!r}",
                next_step=f"{hint}There are: {', '.join(_TYPES)}.",
            )
        try:
            checked[option] = msgspec.convert(value, _TYPES[option])
        except msgspec.ValidationError as exc:
            raise AgentLoadError(
                f"{where}: {option} is {value!r}: {exc}",
                next_step=f"{_meant(option, value)} Or leave out {option}.",
            ) from exc
    return checked


def _meant(option: str, value: object) -> str:
    """What may have been meant by a value that cannot be."""
    words: list[str] = [*_WORDS.get(option, ())]
    if not words:
        return "Correct it."
    near = difflib.get_close_matches(str(value), words, 1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return f"{meant}There are: {', '.join(words)}."


def _check_function(where: str, fn: Callable[..., object], called: str) -> None:
    """Raises AgentLoadError for what is no function that can be called for a result."""
    if not callable(fn) or isinstance(fn, type):
        raise AgentLoadError(f"{where} is no function", next_step="Pass a function.")
    try:
        msgspec.convert(called, _Name)
    except msgspec.ValidationError as exc:
        raise AgentLoadError(
            f"{called!r} cannot be the name of a tool",
            next_step="Pass name= with up to 64 ASCII letters, digits, '_' and '-'.",
        ) from exc
    for code in (fn, getattr(fn, "__call__", None)):  # noqa: B004
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise AgentLoadError(
                f"{where} is a generator", next_step="Return the whole result instead."
            )


def _effect(where: str, given: Mapping[str, Any]) -> Effect:
    declared: Effect | EffectKind = given.get("effect", UNKNOWN)
    effect = declared if isinstance(declared, Effect) else Effect(declared)
    tags = (*effect.tags, *given.get("tags", ()))
    if tags and effect.kind in (EffectKind.PURE, EffectKind.UNKNOWN):
        raise AgentLoadError(
            f"{where} has tags, but its effect is {effect.kind.value!r}",
            next_step='Tags name what is read or written: declare effect="read" or "write".',
        )
    if given.get("ttl_s", 0.0) != 0 and not effect.repeatable:
        raise AgentLoadError(
            f"{where} has ttl_s, but its effect is {effect.kind.value!r}",
            next_step='Only results of "pure" and "read" tools are kept: correct one of them.',
        )
    return msgspec.structs.replace(effect, tags=tags)


def _scope(
    where: str, wants: frozenset[str], effect: Effect, given: Mapping[str, Any]
) -> ScopeLevel | None:
    """Results that may depend on who asks must not reach others."""
    scope: ScopeLevel | None = given.get("scope")
    if scope is None:
        return ScopeLevel.SESSION if "session" in wants else None
    for name, narrow in _NARROWER.items():
        if name in wants and scope not in narrow and effect.repeatable:
            raise AgentLoadError(
                f"{where} takes `{name}`, but its results are shared in scope {scope.value!r}",
                next_step=f"Declare scope={narrow[0].value!r}, or leave the parameter out.",
            )
    return scope


def _result_type(fn: Callable[..., object]) -> Any:
    """The dataclass or Struct that is returned by declaration, or None."""
    try:
        function = fn if hasattr(fn, "__annotations__") else getattr(fn, "__call__", None)  # noqa: B004
        hint: Any = typing.get_type_hints(function).get("return")
        if isinstance(hint, type) and (
            hasattr(hint, "__dataclass_fields__") or issubclass(hint, msgspec.Struct)
        ):
            msgspec.msgpack.Decoder(hint)
            return hint
    except Exception:  # noqa: BLE001 (annotations are code of the tool, and this one is optional)
        return None
    return None


def _version(fn: Callable[..., object]) -> str:
    """Of the file the function is written in, or of its code where there is none. What is bound to
    an object or by a partial has results of its own. What a closure captures is not in it."""
    state = ""
    while isinstance(fn, functools.partial):
        state = f"#{uuid.uuid4().hex}"
        fn = fn.func
    holder: object = getattr(fn, "__self__", None) or fn
    if not isinstance(holder, (FunctionType, ModuleType, type)) and getattr(
        holder, "__dict__", None
    ):
        state = f"#{uuid.uuid4().hex}"
    plain: Any = inspect.unwrap(fn)
    if not hasattr(plain, "__code__"):
        plain = cast("Any", type(plain))
    digest = hashlib.sha256(str(getattr(plain, "__qualname__", "")).encode())
    try:
        file = inspect.getsourcefile(plain)
        digest.update(Path(file or "").read_bytes())
    except (OSError, TypeError):
        _add_code(digest.update, getattr(plain, "__code__", None))
    return digest.hexdigest()[:16] + state


def _add_code(add: Callable[[bytes], object], code: object) -> None:
    if isinstance(code, CodeType):
        add(code.co_code)
        add(repr((code.co_names, code.co_varnames)).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                _add_code(add, constant)
            else:
                add(repr(constant).encode())
