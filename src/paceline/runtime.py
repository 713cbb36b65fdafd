"""The runtime: wires the parts together, and owns their life."""

import asyncio
import contextlib
import logging
import os
import random
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, TypedDict, TypeVar, Unpack, final

from paceline.agents.module import function_spec
from paceline.agents.registry import AgentRegistry, Changes
from paceline.call import (
    Call,
    Caller,
    Effect,
    Outcome,
    Priority,
    ScopeLevel,
    current_call,
)
from paceline.clock import Clock, SystemClock
from paceline.errors import InvalidInputError, RuntimeClosedError, UsageError
from paceline.home import Home
from paceline.metrics.collector import MetricsCollector
from paceline.parts import Parts, Wanted
from paceline.path import Execution, Job
from paceline.path.calls import check_request, deadline_ns
from paceline.path.paying import Paying
from paceline.results import Results, WarmCall
from paceline.served_models import with_served_models
from paceline.settings import Settings

if TYPE_CHECKING:
    from paceline.balance.balancer import LoadBalancer
    from paceline.balance.instance import AgentInstance
    from paceline.models.model import Model
    from paceline.sessions.models import Sampling
    from paceline.sessions.opening import OpeningSession
    from paceline.sessions.sessions import SessionOptions, Sessions
    from paceline.tools.function import ToolOptions

__all__ = ["AgentOptions", "CallOptions", "Runtime"]

F = TypeVar("F", bound=Callable[..., object])

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000
_LONGEST_S: Final = 366 * 86_400
_NO_CONTEXT: Final[Mapping[str, object]] = {}


class AgentOptions(TypedDict, total=False):
    """What an agent declares about itself, as options of `Runtime.agent`; times in seconds."""

    description: str
    version: str
    effect: Effect | Literal["pure", "read", "write", "unknown"]
    scope: ScopeLevel | Literal["global", "tenant", "user", "session"]
    cacheable: bool
    cache_ttl: float
    ttl_rules: Mapping[str, float] | Sequence[tuple[str | re.Pattern[str], float]]
    timeout: float
    max_concurrency: int
    capabilities: Sequence[str]
    examples: Mapping[str, str]
    stale_while_revalidate: float
    stale_if_error: float
    cost_usd: float
    result_hints: Literal["mcp"]


class CallOptions(TypedDict, total=False):
    """Options of `Runtime.run`."""

    user: str | None
    caller: Caller | None
    timeout: float | None
    priority: Priority
    use_cache: bool
    context: Mapping[str, object] | None


@final
class Runtime:
    """Agents, tools and models behind the one call path.

    ::

        async with Runtime(agents=["agents"]) as runtime:
            outcome = await runtime.run("host_exec", "uname -a", user="ada")
            print(outcome.source, outcome.unwrap())

    State is kept in `home` (default: `$PACELINE_HOME`, else `./.paceline` where that exists,
    else the user's state directory); with `persist=False` nothing is written but the audit log
    of host commands. `agents` are directories of agent modules. Opening starts the parts;
    closing waits for calls in flight (`settings.run.drain_s` seconds), cancels the rest, and
    leaves nothing running.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        agents: Sequence[Path | str] | None = None,
        home: Path | str | None = None,
        persist: bool = True,
        config: Path | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Starts nothing and reads nothing; `async with` does.

        `config` is the file the settings came from: host commands may not change it.
        """
        self.settings = _checked(settings)
        dirs = agents if agents is not None else [self.settings.agents.dir]
        self._clock = clock or SystemClock()
        self._parts = Parts(
            Wanted(
                settings=self.settings,
                dirs=[Path(d) for d in dirs],
                home=Home(Path(home)) if home is not None else None,
                persist=persist,
                guarded=[config] if config is not None else [],
                environ=lambda: os.environ if environ is None else environ,
                clock=self._clock,
                rng=rng or random.Random(),  # noqa: S311 (spreads retries; guards nothing)
            ),
            secrets.token_hex(8),
        )
        self._in_flight = 0
        self._drained = asyncio.Event()  # once closing, when nothing is in flight
        self._open = self._entered = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = contextlib.AsyncExitStack()

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeClosedError("a runtime is opened once only", next_step="Make another one.")
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as parts:
            await self._parts.open(parts, self._prepare)
            self._closing = parts.pop_all()
        self._open = self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        if kind is not None:
            self._parts.drain_s = 0.0
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._parts.drain_s):
                    if self._in_flight:
                        await self._drained.wait()
        finally:
            await self._closing.aclose()

    # -- use ----------------------------------------------------------------------------------

    @property
    def registry(self) -> AgentRegistry:
        """The agents there are."""
        return self._parts.registry

    @property
    def metrics(self) -> MetricsCollector:
        """The figures of all calls."""
        return self._parts.metrics

    @property
    def notices(self) -> list[str]:
        """What is not as it should be but did not stop the runtime, in words for a person."""
        return self._parts.notices

    @property
    def paying(self) -> Paying:
        """What calls cost, and what may be spent."""
        return self._parts.paying

    @property
    def results(self) -> Results:
        """What is cached: to look at, take away and make ahead. Raises RuntimeClosedError."""
        self._opened()
        return self._parts.results

    @property
    def balancer(self) -> "LoadBalancer":
        """The instances of agents that have several: to look at, drain, and add strategies to; for
        further ones see `add_instance`. Raises RuntimeClosedError."""
        self._opened()
        return self._parts.spread().balancer

    async def add_instance(self, instance: "AgentInstance") -> None:
        """Has calls of the agent `instance.agent_type` done by this instance's `target` too, or
        if it is the first, by it alone: see `paceline.instances`. The target is opened now, probed
        from time to time, and closed once the instance is unregistered and idle, or with the runtime.

        Raises UnknownAgentError, UsageError for an instance without a target, RuntimeClosedError.
        """
        self.registry.get(instance.agent_type)
        self._around()
        await self._parts.open_fleets()
        await self._parts.spread().add(instance)
        self._parts.jobs.forget(instance.agent_type)

    async def run(
        self,
        name: str,
        input: str,  # noqa: A002 (the word of the command line and of every agent)
        *,
        user: str | None = None,
        caller: Caller | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (becomes the call's deadline)
        priority: Priority = Priority.NORMAL,
        use_cache: bool = True,
        context: Mapping[str, object] | None = None,
    ) -> Outcome:
        """Runs an agent and returns what came of it; agents' failures are in `outcome.error`.

        `user` is short for `caller=Caller(user=...)`; results are shared within the scope that
        the agent declares, else with that user only. `timeout` (seconds) covers everything,
        waiting included. `context` are further arguments of the agent, by name, and part of
        the cache key.
        Calls made by a running agent inherit caller, deadline and trace.

        Raises UnknownAgentError and InvalidInputError before anything runs,
        RuntimeClosedError when the runtime is not open, and CancelledError when cancelled.
        """
        around = self._around()
        check_request(name, input, user, caller, context, priority, timeout)
        spec = self.registry.get(name)
        call, error = self._parts.calls.make(
            spec,
            input,
            context or _NO_CONTEXT,
            self._parts.calls.caller(caller, user, around),
            priority=priority,
            deadline_ns=deadline_ns(around, timeout, self._clock),
        )
        if error is not None:
            return self._parts.path.refuse(call, error)
        self._in_flight += 1
        try:
            return await self._parts.path.run(call, self._parts.jobs.of(spec), use_cache=use_cache)
        finally:
            self._in_flight -= 1
            if not (self._in_flight or self._open):
                self._drained.set()

    def _prepare(self, wanted: WarmCall) -> tuple[Call, Job]:
        """The call of which the result is wanted ahead. Raises PacelineError."""
        around, priority, context = self._around(), Priority.LOW, wanted.context or {}
        check_request(wanted.agent, wanted.input, None, wanted.caller, context, priority, None)
        spec = self.registry.get(wanted.agent)
        caller = self._parts.calls.caller(wanted.caller, None, around)
        call, error = self._parts.calls.make(
            spec, wanted.input, context, caller, priority=priority, deadline_ns=None
        )
        if error is not None:
            raise error
        return call, self._parts.jobs.of(spec)

    async def run_agent_async(self, agent_name: str, agent_input: str) -> object:
        """The agent's value; raises what went wrong instead of returning it."""
        outcome = await self.run(agent_name, agent_input)
        return outcome.unwrap()

    def agent(self, name: str | None = None, **options: Unpack[AgentOptions]) -> Callable[[F], F]:
        """Registers the decorated function as an agent; it stays callable as it is.

        ::

            @runtime.agent(effect="read", cache_ttl=60, timeout=5)
            async def weather(query: str) -> str: ...

        `name` defaults to the function's. Without `effect` its results are never stored and its
        calls never repeated. Raises AgentLoadError for options that cannot be.
        """

        if callable(name):
            raise UsageError(
                "@runtime.agent is used without parentheses", next_step="Write @runtime.agent()."
            )

        def register(function: F) -> F:
            self.registry.add(function_spec(function, name=name, **options))
            return function

        return register

    def tool(self, function: None = None, /, **options: "Unpack[ToolOptions]") -> Callable[[F], F]:
        """Registers the decorated function as a tool of sessions; it stays callable as it is, and
        carries its options: any session that is given the function itself has it with them.

        ::

            @runtime.tool(effect="read", ttl_s=60)
            def stock(item: str) -> int: ...

        What it takes is read from its annotations and docstring. Raises AgentLoadError for a
        function that cannot be a tool, and for options that cannot be; UsageError for use without
        parentheses, which is why there is `function`.
        """
        if function is not None:
            raise UsageError(
                "@runtime.tool is used without parentheses", next_step="Write @runtime.tool()."
            )

        def register(function: F) -> F:
            self._parts.catalogue.add_tool(function, **options)
            return function

        return register

    def add_model(
        self,
        model: "Model",
        *,
        name: str | None = None,
        sampling: "Sampling | None" = None,
        fallback: Sequence[str] = (),
    ) -> None:
        """Registers a model of sessions by this name, else its own. The names in `fallback` are asked
        in turn where it cannot answer. Further models come from the settings. Raises
        InvalidInputError for what is no model."""
        from paceline.models.model import is_model  # noqa: PLC0415 (most runtimes have none)
        from paceline.sessions.catalogue import Offered  # noqa: PLC0415 (as above)
        from paceline.sessions.models import Sampling  # noqa: PLC0415 (as above)

        if not is_model(model):
            raise InvalidInputError(
                f"a model is wanted, and not what is of type {type(model).__name__}",
                next_step="Pass one of paceline.models, or what has `name` and `complete`.",
            )
        offered = Offered(model, sampling or Sampling(), fallback=tuple(fallback))
        self._parts.catalogue.add_model(name or model.name, offered)

    @property
    def sessions(self) -> "Sessions":
        """The sessions of this runtime, and what there is for them. Raises RuntimeClosedError."""
        self._opened()
        return self._parts.sessions

    def session(
        self, session_id: str | None = None, **options: "Unpack[SessionOptions]"
    ) -> "OpeningSession":
        """A session in which a model answers messages with the help of tools, for `async with`; it is
        shut down when it is left.

        ::

            async with runtime.session(model="gpt", tools=["stock"], user="ada") as session:
                turn = await session.send("How many bolts are there?")
                print(turn.agent_response)

        Raises what `Sessions.open` raises, RuntimeClosedError.
        """
        return self.sessions.open(session_id, **options)

    async def reload(self) -> Changes:
        """Loads agent modules that are new or changed; calls in flight finish on the old code."""
        return await self.registry.reload_async()

    def _around(self) -> Execution | None:
        """The execution in whose course this code runs. Raises RuntimeClosedError.

        Calls in flight may still make calls of their own while the runtime drains.
        """
        self._opened()
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeClosedError(
                "the runtime was opened on another event loop",
                next_step="Use it there, or SyncRuntime from other threads.",
            )
        parent = current_call.get()
        around = None if parent is None else self._parts.path.running(parent)
        if not self._open and around is None:
            raise RuntimeClosedError("the runtime is not open")
        return around

    def _opened(self) -> None:
        """Raises RuntimeClosedError before it has ever been open."""
        if not self._entered:
            raise RuntimeClosedError("the runtime is not open")


def _checked(settings: object) -> Settings:
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise InvalidInputError(
            f"settings are of type {type(settings).__name__}, not Settings",
            next_step="Make them with paceline.config.load(overrides={...}).",
        )
    return with_served_models(settings)
