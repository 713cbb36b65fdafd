"""The tools of a session: prepared for the engine, and run on the one call path."""

import difflib
import fnmatch
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, cast, final

import msgspec

from paceline.agents.spec import AgentSpec
from paceline.call import Call, Caller, Kind, Outcome, Plan, Priority, Scope
from paceline.clock import Clock
from paceline.engine.protocols import Preparation
from paceline.engine.states import ExecutionContext
from paceline.errors import InvalidInputError, PacelineError, UnknownAgentError
from paceline.messages import ToolDefinition, ToolUse
from paceline.path.calls import Calls
from paceline.path.job import Job
from paceline.sessions.jobs import ToolJobs
from paceline.sessions.turns import place_of
from paceline.tools.spec import ToolSpec
from paceline.tools.text import told

__all__ = ["Run", "Toolbox", "agent_definition", "unknown_tool"]

_NS: Final = 1_000_000_000
_MOST_OF_AN_AGENT: Final = 20_000
"""Characters of an agent's answer that a model is told."""
_MOST_NAMED: Final = 20
_NOTHING: Final[dict[str, object]] = {}

Run = Callable[[Call, Job], Awaitable[Outcome]]
"""The call path."""


class _Prepared(Preparation, frozen=True, kw_only=True):
    """With how it is treated, and what it runs."""

    kind: Kind
    plan: Plan
    job: Job


@final
class Toolbox:
    """Some tools and agents, for sessions on behalf of one caller."""

    __slots__ = (
        "_approved",
        "_caller",
        "_calls",
        "_clock",
        "_definitions",
        "_jobs",
        "_run",
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
    ) -> None:
        """`run` is the call path, `approve` are patterns of those that a person is asked about, besides
        those that say so themselves. Raises InvalidInputError where two have one name."""
        self._tools: dict[str, ToolSpec | AgentSpec] = {}
        for tool in tools:
            if self._tools.setdefault(tool.name, tool) is not tool:
                raise InvalidInputError(
                    f"two tools are called {tool.name!r}", next_step="Leave one of them out."
                )
        self._approved = frozenset(
            name for pattern in approve for name in fnmatch.filter(self._tools, pattern)
        )
        """Names of tools that a person is asked about."""
        self._definitions = tuple(
            tool.definition if isinstance(tool, ToolSpec) else agent_definition(tool)
            for tool in tools
        )
        self._run = run
        self._jobs = jobs
        self._calls = calls
        self._caller = caller
        self._clock = clock

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """All of them."""
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
                approval=tool.approval or tool.name in self._approved,
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

    async def run(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> Outcome:
        """What came of it."""
        prepared = cast("_Prepared", preparation)
        deadline_ns = (
            None if timeout_s is None else self._clock.monotonic_ns() + round(timeout_s * _NS)
        )
        place = place_of(context.turn_id)
        call = Call(
            self._calls.next_id(),
            prepared.kind,
            prepared.use.name,
            prepared.arguments,
            self._caller,
            Scope.of(self._caller, prepared.plan.scope),
            prepared.plan,
            priority,
            deadline_ns,
            place.parent_id,
            place.trace_id,
            place.tracked_id,
        )
        return await self._run(call, prepared.job)

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


def _key(name: str, given: Mapping[str, object]) -> str:
    return f"{name}({msgspec.json.encode(given, order='sorted').decode()})"


def unknown_tool(name: str, there: Mapping[str, object]) -> PacelineError:
    """The error for a name that no tool has, with the nearest there are."""
    near = difflib.get_close_matches(name, there, 3) or sorted(there)[:_MOST_NAMED]
    return UnknownAgentError(
        f"there is no tool {name!r}, but {', '.join(near) or 'none at all'}",
        next_step="Use the name of one that there is.",
    )
