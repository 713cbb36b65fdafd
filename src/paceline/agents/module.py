"""The agent protocol: from a module, object or function to the AgentSpec that it means.

An agent is anything with `run(query, **context)`, sync or async; or else with a `tool`, or a
list of `tools`, whose first is what is run (each with `run`, `invoke`, or callable itself). It
may declare DESCRIPTION, EFFECT ("pure", "read", "write" or an Effect), CACHEABLE, CACHE_TTL
(seconds), STALE_WHILE_REVALIDATE and STALE_IF_ERROR (seconds), TTL_RULES, SCOPE, RESULT_HINTS,
TIMEOUT (seconds), MAX_CONCURRENCY, CAPABILITIES, EXAMPLES, COST_USD and VERSION, and decide per call with
`plan(query, **context)`.

What declares neither CACHEABLE nor EFFECT has unknown effects, and its results are not cached.
"""

import dataclasses
import difflib
import inspect
import re
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import msgspec

from paceline.agents.declared import ATTRIBUTES, Declared
from paceline.agents.digest import code_digest
from paceline.agents.spec import WANTS, AgentSpec
from paceline.call import UNKNOWN, Effect, ScopeLevel
from paceline.errors import AgentLoadError, UsageError

__all__ = ["check_name", "function_spec", "read_spec"]

Entry = Callable[..., object]

_ELSEWHERE: Final = {
    "CACHE_KEY": "plan",
    "CACHE_SCOPE": "SCOPE",
    "IDEMPOTENT": "EFFECT",
    "READ_ONLY": "EFFECT",
}
"""Names that other systems use, and what says the same here."""

_ALIKE: Final = 0.85
_NARROWER: Final = {  # scopes in which everybody has the same value for a parameter
    "tenant": (ScopeLevel.TENANT, ScopeLevel.USER, ScopeLevel.SESSION),
    "user": (ScopeLevel.USER, ScopeLevel.SESSION),
    "session": (ScopeLevel.SESSION,),
}


def read_spec(
    name: str,
    obj: object,
    *,
    source: str = "builtin",
    legacy_default_cacheable: bool = False,
    path: Path | None = None,
    digest: str | None = None,
    warnings: Sequence[str] = (),
) -> AgentSpec:
    """The agent that a module or instance is.

    `digest` stands for its code in the version; without one it is that of the file the
    object's class or module was written in. An instance with attributes of its own has results
    of its own too, which only VERSION lets others find. Raises AgentLoadError naming what is wrong.
    """
    where = str(path) if path is not None else f"agent {name}"
    check_name(name, where)
    if isinstance(obj, type):
        raise AgentLoadError(
            f"{where} is the class {obj.__qualname__}", next_step="Pass an instance of it."
        )
    declared = Declared(where, lambda attribute: getattr(obj, attribute, None))
    tools = _tools(where, declared)
    run = _entry(where, declared, tools)
    spec = _spec(name, where, declared, run, legacy=legacy_default_cacheable)
    return dataclasses.replace(
        spec,
        description=spec.description or _first_line(obj),
        version=_version(declared, (digest or code_digest(obj)) + _state(obj, declared)),
        tools=tools,
        planner=_planner(where, declared),
        # Who plans by itself is asked for every call.
        cacheable=spec.cacheable
        or (declared.get("plan") is not None and declared.flag("CACHEABLE") is not False),
        source=source,
        path=path,
        warnings=(*warnings, *spec.warnings, *_misspelt(obj)),
    )


def function_spec(
    fn: Entry, *, name: str | None = None, description: str | None = None, **options: object
) -> AgentSpec:
    """The agent that a function is; `options` are what a module declares, in small letters.

    The name is the function's own, the description the first line of its docstring, unless
    given. Values that a closure captures are not part of the version: give `version` where
    they matter. Raises UsageError for an unknown option, AgentLoadError for a wrong value.
    """
    known = [attribute.lower() for attribute in ATTRIBUTES]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"agents have no option {option!r}",
                next_step=f"{hint}There are: {', '.join(known)}.",
            )
    called = name or str(getattr(fn, "__name__", type(fn).__name__))
    where = f"agent {called}"
    check_name(called, where)
    if not callable(fn) or isinstance(fn, type):
        raise AgentLoadError(f"{where} is no function", next_step="Decorate a function.")
    declared = Declared(where, lambda attribute: options.get(attribute.lower()), str.lower)
    spec = _spec(called, where, declared, fn, legacy=False)
    return dataclasses.replace(
        spec,
        description=description or spec.description or _first_line(fn),
        version=_version(declared, code_digest(fn)),
        source="decorator",
    )


def check_name(name: str, where: str) -> None:
    """Raises AgentLoadError for what cannot be the name of an agent."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,99}", name, re.ASCII):
        raise AgentLoadError(
            f"{where}: {name!r} cannot be the name of an agent",
            next_step="Use up to 100 ASCII letters, digits, '_' and '-'; start with no sign.",
        )


def _spec(name: str, where: str, declared: Declared, run: Entry, *, legacy: bool) -> AgentSpec:
    """What modules and functions have in common."""
    accepts, wants = _parameters(where, run)
    effect, cacheable = _cacheability(where, declared, legacy=legacy)
    ttl_s = declared.seconds("CACHE_TTL", zero=True)
    ttl_rules = declared.ttl_rules()
    scope = declared.scope()
    result_type, warnings = _result_type(run)
    if cacheable:
        warnings += _oversharing(wants, scope)
    elif (ttl_s or ttl_rules) and not (effect.repeatable or callable(declared.get("plan"))):
        warnings.append("how long to cache is declared, but not EFFECT: nothing is cached")
    return AgentSpec(
        name=name,
        run=run,
        description=declared.text("DESCRIPTION") or "",
        is_async=inspect.iscoroutinefunction(run)
        or inspect.iscoroutinefunction(getattr(run, "__call__", None)),  # noqa: B004
        accepts=accepts,
        wants=wants,
        effect=effect,
        cacheable=cacheable,
        ttl_s=ttl_s,
        ttl_rules=ttl_rules,
        # Results that may depend on the session must not leave it.
        scope=ScopeLevel.SESSION if scope is None and "session" in wants else scope,
        timeout_s=declared.seconds("TIMEOUT", zero=False),
        max_concurrency=declared.count("MAX_CONCURRENCY"),
        capabilities=declared.words("CAPABILITIES"),
        examples=declared.examples(),
        stale_s=declared.seconds("STALE_WHILE_REVALIDATE", zero=True),
        stale_if_error_s=declared.seconds("STALE_IF_ERROR", zero=True),
        cost_usd=declared.price("COST_USD"),
        outside=declared.flag("OUTSIDE") or False,
        result_hints=declared.result_hints(),
        result_type=result_type,
        warnings=tuple(warnings),
    )


def _cacheability(where: str, declared: Declared, *, legacy: bool) -> tuple[Effect, bool]:
    """The effect, and whether results may be cached."""
    effect = declared.effect()
    cacheable = declared.flag("CACHEABLE")
    if cacheable and effect is not None and not effect.repeatable:
        raise AgentLoadError(
            f"{where}: CACHEABLE is True, but EFFECT is {effect.kind.value!r}",
            next_step='Only results of "pure" and "read" agents can be cached: correct one of them.',
        )
    if effect is None:
        effect = Effect.read() if cacheable or (cacheable is None and legacy) else UNKNOWN
    return effect, effect.repeatable and cacheable is not False


def _tools(where: str, declared: Declared) -> dict[str, Entry]:
    """The callables of `tool` and `tools`, by name."""
    given = declared.get("tools")
    one = declared.get("tool")
    if given is not None and not isinstance(given, (list, tuple, Mapping)):
        raise declared.wrong("tools", given, "a list of tools", "[search, fetch]")
    if isinstance(given, Mapping):
        pairs = list(cast("Mapping[str, object]", given).items())
    else:
        pairs = [(_tool_name(t), t) for t in cast("Sequence[object]", given or ())]
    if one is not None and not any(one is tool for _, tool in pairs):
        pairs.insert(0, (_tool_name(one), one))
    tools: dict[str, Entry] = {}
    for name, tool in pairs:
        if name in tools:
            raise AgentLoadError(f"{where}: two tools are called {name!r}")
        tools[name] = _runnable(where, f"tool {name!r}", tool)
    return tools


def _tool_name(tool: object) -> str:
    named = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    return named if isinstance(named, str) else type(tool).__name__


def _runnable(where: str, what: str, tool: object) -> Entry:
    """How a tool is called: its `run`, else its `invoke`, else itself."""
    candidates: list[object] = [getattr(tool, "run", None), getattr(tool, "invoke", None), tool]
    for candidate in candidates:
        if callable(candidate):
            return candidate
    raise AgentLoadError(
        f"{where}: {what} cannot be called: it is of type {type(tool).__name__}",
        next_step="Give it a method run(query), or make it a function.",
    )


def _entry(where: str, declared: Declared, tools: Mapping[str, Entry]) -> Entry:
    run = declared.get("run")
    if run is not None and not callable(run):
        raise declared.wrong("run", run, "a function", "a function `def run(query)`")
    entry: Entry | None = run or next(iter(tools.values()), None)
    if entry is None:
        raise AgentLoadError(
            f"{where} has nothing to run",
            next_step="Define `def run(query)` or `async def run(query)` in it.",
        )
    return entry


def _parameters(where: str, run: Entry) -> tuple[frozenset[str] | None, frozenset[str]]:
    """The names of the context keywords (None for any), and those that the call fills."""
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        raise AgentLoadError(
            f"{where}: what it runs is a generator", next_step="Return the whole result instead."
        )
    try:
        parameters = list(inspect.signature(run).parameters.values())
    except (TypeError, ValueError):
        return frozenset(), frozenset()  # written in C: it is given the query alone
    except NameError as exc:  # an annotation that only type checkers can read (from 3.14 on)
        raise AgentLoadError(
            f"{where}: an annotation cannot be read: {exc}",
            next_step="Import the name at run time too, or put the annotation in quotes.",
        ) from exc
    first = parameters[0] if parameters else None
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise AgentLoadError(
            f"{where}: what it runs takes no query",
            next_step="Let its first parameter be the query: `def run(query)`.",
        )
    named = frozenset(
        p.name for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return None if takes_any else named - WANTS, named & WANTS


def _planner(
    where: str, declared: Declared
) -> Callable[[str, Mapping[str, object]], object] | None:
    plan = declared.get("plan")
    if plan is None:
        return None
    if not callable(plan):
        raise declared.wrong("plan", plan, "a function", "a function `def plan(query)`")
    accepts, _ = _parameters(f"{where}: plan", plan)
    chosen: Entry = plan

    def planner(query: str, context: Mapping[str, object]) -> object:
        if accepts is None:
            return chosen(query, **context)
        return chosen(query, **{k: v for k, v in context.items() if k in accepts})

    return planner


def _result_type(run: Entry) -> tuple[Any, list[str]]:
    """The dataclass or Struct that is returned by declaration, or None and why it is of no use."""
    try:
        function = run if hasattr(run, "__annotations__") else getattr(run, "__call__", None)  # noqa: B004
        if "return" not in getattr(function, "__annotations__", {}):
            return None, []
        hint: Any = typing.get_type_hints(function)["return"]
        if not isinstance(hint, type):
            return None, []
        if not (dataclasses.is_dataclass(hint) or issubclass(hint, msgspec.Struct)):
            return None, []
        # Also resolves the type's own annotations while its module is sure to be there.
        msgspec.msgpack.Decoder(hint)
    except Exception as exc:  # noqa: BLE001 (annotations are code of the agent, and optional)
        return None, [f"the declared result type cannot be used ({type(exc).__name__}: {exc})"]
    return hint, []


def _oversharing(wants: frozenset[str], scope: ScopeLevel | None) -> list[str]:
    """Warnings for results that depend on more than those share who get them."""
    return [
        f"run takes `{name}`, but its results are shared in SCOPE {scope.value!r}"
        for name, narrow in _NARROWER.items()
        if name in wants and scope is not None and scope not in narrow
    ]


def _misspelt(obj: object) -> Iterator[str]:
    """Warnings for declarations that would silently do nothing."""
    names = dict.fromkeys(vars(obj) if hasattr(obj, "__dict__") else ())
    if not isinstance(obj, ModuleType):
        names.update(dict.fromkeys(vars(type(obj))))
    for name in names:
        if not name.isupper() or name in ATTRIBUTES:
            continue
        near = difflib.get_close_matches(name, ATTRIBUTES, 1, _ALIKE)
        meant = _ELSEWHERE.get(name) or (near[0] if near else None)
        if meant is not None:
            yield f"{name} says nothing here; what is meant may be {meant}"


def _state(obj: object, declared: Declared) -> str:
    """Keeps results of two instances of one class apart: they may be set up differently."""
    stateless = isinstance(obj, ModuleType) or not getattr(obj, "__dict__", None)
    return "" if stateless or declared.get("VERSION") is not None else f"#{uuid.uuid4().hex}"


def _version(declared: Declared, digest: str) -> str:
    value = declared.get("VERSION")
    if value is not None and type(value) not in (str, int):
        raise declared.wrong("VERSION", value, "a text or whole number", '"1.0"')
    return digest if value is None else f"{value}+{digest}"


def _first_line(obj: object) -> str:
    """Of the docstring that it has of its own."""
    text = inspect.getdoc(obj) or ""
    return text.strip().partition("\n")[0]
