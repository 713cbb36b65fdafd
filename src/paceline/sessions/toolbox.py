"""The tools of a session: prepared for the engine, and run on the one call path."""

import asyncio
import difflib
import fnmatch
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, cast, final

import msgspec

from paceline.agents.spec import AgentSpec
from paceline.call import (
    Call,
    Caller,
    EffectKind,
    Kind,
    Outcome,
    Plan,
    Priority,
    Scope,
    ScopeLevel,
    Source,
)
from paceline.clock import Clock
from paceline.engine.protocols import Preparation
from paceline.engine.schedule import conflicting
from paceline.engine.states import ExecutionContext
from paceline.errors import InvalidInputError, OverloadedError, PacelineError, UnknownAgentError
from paceline.messages import ToolDefinition, ToolUse
from paceline.path.calls import Calls
from paceline.path.job import Job
from paceline.resources import Resources, current_resources
from paceline.sessions.jobs import ToolJobs
from paceline.sessions.turns import place_of
from paceline.tools.spec import ToolSpec
from paceline.tools.text import told

__all__ = ["Changing", "Run", "Toolbox", "agent_definition", "unknown_tool"]

_NS: Final = 1_000_000_000
_MOST_OF_AN_AGENT: Final = 20_000
"""Characters of an agent's answer that a model is told."""
_MOST_NAMED: Final = 20
_NOTHING: Final[dict[str, object]] = {}
_NO_NAMES: Final[frozenset[str]] = frozenset()

Run = Callable[[Call, Job], Awaitable[Outcome]]
"""The call path."""


class Changing(Protocol):
    """Tools that come and go."""

    def latest(self) -> Sequence[ToolSpec | AgentSpec] | None:
        """All there are now; None if they are those of before."""
        ...

    async def settled(self) -> None:
        """Returns when it is known which there are, or soon after."""
        ...


class _Prepared(Preparation, frozen=True, kw_only=True):
    """With how it is treated, and what it runs."""

    kind: Kind
    plan: Plan
    job: Job


@final
class Toolbox:
    """Some tools and agents, for sessions on behalf of one caller."""

    __slots__ = (
        "_approve",
        "_approved",
        "_caller",
        "_calls",
        "_changing",
        "_clock",
        "_definitions",
        "_jobs",
        "_public",
        "_run",
        "_scope",
        "_stuck",
        "_tools",
    )

    def __init__(
        self,
        tools: Sequence[ToolSpec | AgentSpec],
        *,
        run: Run,
        jobs: ToolJobs,
        calls: Calls,
        caller: Caller,
        clock: Clock,
        approve: Sequence[str] = (),
        changing: Changing | None = None,
    ) -> None:
        """`run` is the call path, `approve` are patterns of those that a person is asked about, besides
        those that say so themselves. `changing` says when there are others than `tools`. Raises
        InvalidInputError where two have one name."""
        self._approve = approve
        self._changing = changing
        self._take(tools)
        self._run = run
        self._jobs = jobs
        self._calls = calls
        self._caller = caller
        self._scope = Scope.of(caller, None)
        self._clock = clock
        self._stuck: tuple[tuple[_Prepared, Resources], ...] = ()
        """Writes that were given up, of which threads may still be at work."""

    def _take(self, tools: Sequence[ToolSpec | AgentSpec]) -> None:
        self._tools: dict[str, ToolSpec | AgentSpec] = {}
        for tool in tools:
            if self._tools.setdefault(tool.name, tool) is not tool:
                raise InvalidInputError(
                    f"two tools are called {tool.name!r}", next_step="Leave one of them out."
                )
        approved = [
            name for pattern in self._approve for name in fnmatch.filter(self._tools, pattern)
        ]
        self._approved = frozenset(approved) if approved else _NO_NAMES
        """Names of tools that a person is asked about."""
        public = [name for name, tool in self._tools.items() if tool.scope is ScopeLevel.GLOBAL]
        self._public = frozenset(public) if public else _NO_NAMES
        self._definitions = tuple(
            tool.definition if isinstance(tool, ToolSpec) else agent_definition(tool)
            for tool in tools
        )

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """All of them, as they are now."""
        tools = None if self._changing is None else self._changing.latest()
        if tools is not None:
            self._take(tools)
        return self._definitions

    def prepare(self, use: ToolUse) -> Preparation:
        """The use, checked. Raises UnknownAgentError and InvalidInputError."""
        tool = self._tools.get(use.name)
        if tool is None:
            raise unknown_tool(use.name, self._tools)
        given = _decoded(use)
        key = _key(use.name, given)
        if isinstance(tool, ToolSpec):
            arguments = tool.check(given)
            plan = tool.plan(arguments)
            return _Prepared(
                use=use,
                arguments=arguments,
                key=key,
                effect=plan.effect,
                timeout_s=tool.timeout_s,
                approval=tool.approval or use.name in self._approved,
                question=_question(arguments) if tool.question else None,
                kind=Kind.TOOL,
                plan=plan,
                job=self._jobs.of_tool(tool),
                cost_usd=plan.cost_usd,
            )
        query = _query(tool.name, given)
        plan = tool.plan(query, _NOTHING)
        return _Prepared(
            use=use,
            arguments={"query": query},
            key=key,
            effect=plan.effect,
            timeout_s=plan.timeout_s,
            approval=tool.name in self._approved,
            kind=tool.kind,
            plan=plan,
            job=self._jobs.of_agent(tool),
            cost_usd=plan.cost_usd,
        )

    def ahead(self, use: ToolUse) -> Preparation | None:
        """The use, checked, if it may be run before the model asks for it: it changes nothing, its
        result is kept, and no person is asked. None else, and for what the tool would not take."""
        try:
            prepared = self.prepare(use)
        except PacelineError:
            return None
        harmless = prepared.effect.repeatable and cast("_Prepared", prepared).plan.cacheable
        if not harmless or prepared.approval or prepared.question is not None:
            return None
        stuck = self._stuck and self._in_the_way(cast("_Prepared", prepared)) is not None
        return None if stuck else prepared

    def effects(self) -> dict[str, EffectKind]:
        """What they declare to do to the world, by name."""
        return {name: tool.effect.kind for name, tool in self._tools.items()}

    def public(self) -> frozenset[str]:
        """The names of those whose results are the same for everybody, by what they declare."""
        return self._public

    @property
    def reads(self) -> bool:
        """Whether any of them changes nothing, or decides that by call."""
        return any(
            tool.effect.repeatable or (isinstance(tool, AgentSpec) and tool.planner is not None)
            for tool in self._tools.values()
        )

    def run(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> Awaitable[Outcome]:
        """What comes of it. What would meet a write that was given up, and is known to be still at
        work, is refused until that is over."""
        prepared = cast("_Prepared", preparation)
        if self._stuck and (stuck := self._in_the_way(prepared)) is not None:
            return _refused(prepared.use.name, stuck)
        call, job = self._call(prepared, context, priority, timeout_s)
        work = self._run(call, job)
        # A coroutine of its own is memory while the tool runs: only where somebody has to look on.
        threaded = not job.heeds and not call.plan.effect.repeatable
        return self._seen(work, prepared) if threaded or self._changing is not None else work

    def call(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> tuple[Call, Job]:
        """What is run for it."""
        return self._call(cast("_Prepared", preparation), context, priority, timeout_s)

    def _call(
        self,
        prepared: _Prepared,
        context: ExecutionContext,
        priority: Priority,
        timeout_s: float | None,
    ) -> tuple[Call, Job]:
        plan = prepared.plan
        deadline_ns = (
            None if timeout_s is None else self._clock.monotonic_ns() + round(timeout_s * _NS)
        )
        parent_id, trace_id, tracked_id, _ = place_of(context.turn_id)
        call = Call(
            self._calls.next_id(),
            prepared.kind,
            prepared.use.name,
            prepared.arguments,
            self._caller,
            self._scope if plan.scope is None else Scope.of(self._caller, plan.scope),
            plan,
            priority,
            deadline_ns,
            parent_id,
            trace_id,
            tracked_id,
        )
        return call, prepared.job

    async def _seen(self, work: Awaitable[Outcome], prepared: _Prepared) -> Outcome:
        """What comes of it; then what goes on all the same is noted, and what tools there are."""
        try:
            outcome = await work
        except asyncio.CancelledError:
            self._given_up(prepared)
            raise
        if outcome.error is not None:
            self._given_up(prepared)
        if self._changing is not None:
            await self._changing.settled()
        return outcome

    def _given_up(self, prepared: _Prepared) -> None:
        """It ended without a result, and may go on all the same."""
        resources = current_resources.get()
        if resources is not None and not prepared.effect.repeatable:
            self._stuck += ((prepared, resources),)

    def _in_the_way(self, prepared: _Prepared) -> _Prepared | None:
        """The write that is still at work on what this one touches, if any is."""
        self._stuck = tuple(one for one in self._stuck if one[1].left_behind)
        for earlier, _ in self._stuck:
            if conflicting(earlier.effect, prepared.effect):
                return earlier
        return None

    def text(self, outcome: Outcome) -> str:
        """The value as the model is told it."""
        tool = self._tools.get(outcome.name)
        most = tool.max_result_chars if isinstance(tool, ToolSpec) else _MOST_OF_AN_AGENT
        return told(outcome.value, most)


def agent_definition(spec: AgentSpec) -> ToolDefinition:
    """An agent as a model sees it: something that is asked in words."""
    query: dict[str, object] = {
        "type": "string",
        "description": "What to do, in the words this agent understands.",
    }
    if spec.examples:  # any other text is as good
        known = [{"const": text, "description": what} for text, what in spec.examples.items()]
        query["anyOf"] = [*known, {"type": "string"}]
    return ToolDefinition(
        spec.name,
        spec.description or f"The agent {spec.name}.",
        {
            "type": "object",
            "properties": {"query": query},
            "required": ["query"],
            "additionalProperties": False,
        },
    )


def _decoded(use: ToolUse) -> dict[str, object]:
    """The arguments as an object. A tool without arguments may get none."""
    if not use.arguments.strip():
        return {}
    try:
        found = msgspec.json.decode(use.arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError) as exc:
        raise InvalidInputError(
            f"the arguments of {use.name} are not valid JSON: {exc}",
            next_step="Give one JSON object with the arguments by name.",
        ) from exc
    if not isinstance(found, dict):
        raise InvalidInputError(
            f"the arguments of {use.name} are not a JSON object",
            next_step="Give one JSON object with the arguments by name.",
        )
    return cast("dict[str, object]", found)


def _query(name: str, given: Mapping[str, object]) -> str:
    query = given.get("query")
    if set(given) - {"query"} or not isinstance(query, str) or not query.strip():
        raise InvalidInputError(
            f"{name} takes one argument, `query`, a text",
            next_step='Give {"query": "what to do"}.',
        )
    return query


def _question(arguments: Mapping[str, object]) -> str:
    return str(next(iter(arguments.values()), ""))


async def _refused(name: str, earlier: _Prepared) -> Outcome:
    return Outcome("", name, Source.EXECUTED, error=_at_work(earlier))


def _at_work(earlier: _Prepared) -> OverloadedError:
    return OverloadedError(
        f"{earlier.use.name} was given up, and is still at work on the same; nobody knows when it is"
        " over: do something else, or ask again later",
        next_step="Have it end by itself, or declare it killable.",
    )


def _key(name: str, given: Mapping[str, object]) -> str:
    return f"{name}({msgspec.json.encode(given, order='sorted').decode()})"


def unknown_tool(name: str, there: Mapping[str, object]) -> PacelineError:
    """The error for a name that no tool has, with the nearest there are."""
    near = difflib.get_close_matches(name, there, 3) or sorted(there)[:_MOST_NAMED]
    return UnknownAgentError(
        f"there is no tool {name!r}, but {', '.join(near) or 'none at all'}",
        next_step="Use the name of one that there is.",
    )
