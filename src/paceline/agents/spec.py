"""What there is to know of one agent."""

import enum
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast, final

import msgspec

from paceline.call import UNKNOWN, Effect, Kind, Plan, ScopeLevel
from paceline.errors import AgentError, PacelineError

__all__ = ["WANTS", "AgentSpec", "ResultHints", "TtlRule"]

TtlRule = tuple[re.Pattern[str], float]
"""Queries that the pattern matches at their start have results that stay valid so many seconds."""


class ResultHints(enum.StrEnum):
    """How results speak of their own caching."""

    MCP = "mcp"
    """As the Model Context Protocol has it: `ttlMs` and `cacheScope`."""


WANTS: Final = frozenset({"call", "session", "tenant", "user"})
"""Parameters of `run` that are filled from the call: itself, and on whose behalf it is made."""


@final
@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True, eq=False)
class AgentSpec:
    """One version of one agent: how to run it, and what it declares about itself.

    `version` changes with the agent's code. `accepts` are the names of the context keywords
    that `run` takes, None for any; `wants` those that it takes by name and that the call, not
    the caller's context, gives a value (see `WANTS`). `ttl_s` None is the default of the cache. `source` is where
    it came from: "builtin", "module", "decorator" or "fleet"; `path` is its file, if it has one.
    `warnings` say what is not as it should be, though it can be used.
    """

    name: str
    run: Callable[..., object]
    description: str = ""
    version: str = ""
    is_async: bool = False
    accepts: frozenset[str] | None = frozenset()
    wants: frozenset[str] = frozenset()
    effect: Effect = UNKNOWN
    cacheable: bool = False
    ttl_s: float | None = None
    ttl_rules: tuple[TtlRule, ...] = ()
    scope: ScopeLevel | None = None
    timeout_s: float | None = None
    max_concurrency: int | None = None
    capabilities: tuple[str, ...] = ()
    examples: Mapping[str, str] = field(default_factory=dict[str, str])
    """Queries that it understands, and what they are for."""
    stale_s: float | None = None
    stale_if_error_s: float | None = None
    cost_usd: float = 0.0
    outside: bool = False
    """Whether running it may tell somebody outside what is asked."""
    result_hints: ResultHints | None = None
    tools: Mapping[str, Callable[..., object]] = field(default_factory=dict[str, Any])
    result_type: Any = None
    planner: Callable[[str, Mapping[str, object]], object] | None = None
    kind: Kind = Kind.AGENT
    source: str = "builtin"
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    _every: Plan | None = field(default=None, init=False)
    """The plan of all its calls, where it does not depend on the call."""

    def plan(self, query: str, context: Mapping[str, object]) -> Plan:
        """How the call of this agent with these arguments is to be treated.

        An agent with a planner of its own decides per call, but for what it declares in
        TIMEOUT and CACHEABLE = False. Raises the planner's PacelineError as it is, and
        AgentError for whatever else it raises or returns.
        """
        if self._every is not None:
            return self._every
        return self._plan(query, context)

    def __post_init__(self) -> None:
        if self.planner is None and not self.ttl_rules:
            object.__setattr__(self, "_every", self._plan("", {}))

    def _plan(self, query: str, context: Mapping[str, object]) -> Plan:
        if self.planner is not None:
            plan = self._planned(self.planner, query, context)
        else:
            plan = Plan(self.effect, self._ttl_s(query), self.scope)
        return msgspec.structs.replace(
            plan,
            ttl_s=plan.ttl_s if self.cacheable else 0.0,
            scope=plan.scope or self.scope,
            timeout_s=self.timeout_s if plan.timeout_s is None else plan.timeout_s,
            stale_s=self.stale_s if plan.stale_s is None else plan.stale_s,
            stale_if_error_s=self.stale_if_error_s
            if plan.stale_if_error_s is None
            else plan.stale_if_error_s,
            cost_usd=plan.cost_usd or self.cost_usd,
            outside=plan.outside or self.outside,
        )

    def _planned(
        self,
        planner: Callable[[str, Mapping[str, object]], object],
        query: str,
        context: Mapping[str, object],
    ) -> Plan:
        try:
            plan = planner(query, context)
        except PacelineError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # the boundary of the agent's code; it runs synchronously
            raise AgentError(f"{self.name} failed to plan: {type(exc).__name__}: {exc}") from exc
        if not isinstance(plan, Plan):
            raise AgentError(
                f"plan of {self.name} returned a value of type {type(plan).__name__}",
                next_step="Return a paceline Plan.",
            )
        if problem := _problem(plan):
            raise AgentError(f"plan of {self.name}: {problem}", next_step="Correct the plan.")
        return plan

    def _ttl_s(self, query: str) -> float | None:
        """By the first rule that matches the query, else the agent's own."""
        text = query.strip()
        for pattern, ttl_s in self.ttl_rules:
            if pattern.match(text):
                return ttl_s
        return self.ttl_s


def _problem(plan: Plan) -> str:
    """What cannot be in a plan; empty if nothing. Agents are not held to types."""
    if not all(type(tag) is str for tag in plan.effect.tags):
        return "tags are texts"
    for name in ("ttl_s", "stale_s", "stale_if_error_s", "cost_usd"):
        value: object = getattr(plan, name)
        if value is not None and not (_is_number(value) and cast("float", value) >= 0):
            return f"{name} is a number, 0 or more"
    if not all(type(path) is str and path.startswith("/") for path in plan.files):
        return "files are absolute paths"
    if plan.timeout_s is not None and not (_is_number(plan.timeout_s) and plan.timeout_s > 0):
        return "timeout_s is a number of seconds, more than 0"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
