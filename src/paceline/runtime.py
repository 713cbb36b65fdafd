"""The runtime: wires the parts together, and owns their life."""

import asyncio
import contextlib
import functools
import logging
import os
import random
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, TypedDict, TypeVar, Unpack, final

from msgspec.structs import replace

from paceline.agents.module import function_spec
from paceline.agents.registry import AgentRegistry, Changes
from paceline.agents.runner import AgentRunner
from paceline.agents.threads import ThreadPool
from paceline.balance.retry import RetryBudget, RetryPolicy
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
from paceline.config import secrets_of
from paceline.errors import InvalidInputError, PacelineError, RuntimeClosedError, UsageError
from paceline.home import Home
from paceline.hostexec.setup import host_agent
from paceline.metrics.collector import MetricsCollector
from paceline.path import Attempts, CallPath, Execution, Identity, Job
from paceline.path.calls import Calls, check_request, deadline_ns
from paceline.path.jobs import HOST_EXEC, Jobs, gate_of
from paceline.path.paying import Paying
from paceline.redaction import Redactor, environment_secrets
from paceline.reporting import Reporting
from paceline.results import Ahead, Results, WarmCall
from paceline.settings import Settings
from paceline.state import State

if TYPE_CHECKING:
    from paceline.balance.balancer import LoadBalancer
    from paceline.balance.instance import AgentInstance
    from paceline.fleets import Fleets

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
        self.notices: list[str] = []
        """What is not as it should be but did not stop the runtime, in words for a person."""
        self._dirs = [
            Path(d) for d in (agents if agents is not None else [self.settings.agents.dir])
        ]
        self._home = Home(Path(home)) if home is not None else None
        self._persist = persist
        self._guarded = [config] if config is not None else []
        self._environ = environ
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 (spreads retries; guards nothing)
        self._calls = Calls(secrets.token_hex(8))
        self._in_flight = 0
        self._drained = asyncio.Event()  # once closing, when nothing is in flight
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = contextlib.AsyncExitStack()
        self._results: Results | None = None
        self._fleets: Fleets | None = None
        self.metrics = MetricsCollector(
            clock=self._clock, max_series=self.settings.metrics.max_series
        )
        self.registry = AgentRegistry(
            self._dirs,
            import_timeout_s=self.settings.agents.import_timeout_s,
            legacy_default_cacheable=self.settings.agents.legacy_default_cacheable,
            clock=self._clock,
        )

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeClosedError("a runtime is opened once only", next_step="Make another one.")
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as parts:
            await self._start(parts)
            self._closing = parts.pop_all()
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        drain_s = 0.0 if kind is not None else self.settings.run.drain_s
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    if self._in_flight:
                        await self._drained.wait()
        finally:
            await self._closing.aclose()

    async def _start(self, parts: contextlib.AsyncExitStack) -> None:
        """Opens every part; what is opened last is closed first."""
        clock, rng = self._clock, self._rng
        environ = os.environ if self._environ is None else self._environ
        home = self._home = self._home or Home.locate(environ, Path.cwd())
        hidden = [*environment_secrets(environ), *secrets_of(self.settings)]
        if self.settings.fleets:
            hidden += self._spread().tokens
        redactor = Redactor(hidden)
        state = State(
            self.settings,
            home if self._persist else None,
            clock=clock,
            redactor=redactor,
            rng=rng,
            notice=self._notice,
        )
        await parts.enter_async_context(state)
        run = self.settings.run
        threads = "the threads for synchronous agents"
        self._pool = ThreadPool(gate_of(threads, run.threads, self.settings, clock))
        # Threads that are left behind may still write, and must be able to say so.
        parts.callback(lambda: None if self._pool.in_use else state.generations.close())
        parts.callback(self._pool.close)
        self._identity = Identity(state.generations, clock=clock)
        loop = asyncio.get_running_loop()
        self._jobs = Jobs(
            AgentRunner(self._pool, ended=functools.partial(self._identity.ended, loop)),
            self._pool,
            self.settings,
            clock=clock,
            there=self.registry.snapshot,
            dispatch=lambda spec: None if self._fleets is None else self._fleets.dispatch(spec),
        )
        self.paying = await Paying.open(self.settings, clock, state.history, self._notice)
        gate = gate_of("the runtime", run.max_concurrency, self.settings, clock)
        here = f"local:{os.getpid()}"
        reporting = Reporting(
            self.metrics, gate, here, self._balanced, clock=clock, rng=rng, environ=environ
        )
        told = await reporting.open(self.settings, parts, self._notice)
        attempts = Attempts(
            clock=clock,
            gate=gate,
            retry=RetryPolicy(run.max_attempts),
            rng=rng,
            identity=self._identity,
            paying=self.paying,
            budget=RetryBudget(self.settings.balance.retry_share),
        )
        self._path = CallPath(
            clock=clock,
            cache=state.cache,
            identity=self._identity,
            attempts=attempts,
            observers=[self.metrics.observe, *state.observers, *told],
            began=self.metrics.begin,
            instance=here,
            other=self._instead,
        )
        # Instances are closed after the path: what still runs there is to be cancelled first.
        self._behind = await parts.enter_async_context(contextlib.AsyncExitStack())
        parts.push_async_callback(self._path.close)
        ahead, names = Ahead(self._prepare, self._path.run), self.registry.snapshot
        self._results = Results(state, self._identity, clock=clock, names=names, ahead=ahead)
        self._add_host_exec(home, environ, redactor)
        await self.registry.reload_async()
        if self._fleets is not None:
            await self._fleets.open(self._behind, home if self._persist else None, self._notice)
            self._fleets.examine(self.registry.snapshot(), self._notice)
            for spec in self._fleets.specs(self.registry.snapshot()):
                self.registry.add(spec)
        if self.settings.agents.watch:
            from paceline.agents.watch import watching  # noqa: PLC0415 (a single call needs none)

            stamp = home.reload_stamp if self._persist else None
            await parts.enter_async_context(watching(self.registry, stamp=stamp))

    def _spread(self) -> "Fleets":
        """What spreads calls over instances; made when the first is known."""
        if self._fleets is None:
            from paceline.fleets import Fleets  # noqa: PLC0415 (most runtimes have none)

            self._fleets = Fleets(
                self.settings,
                clock=self._clock,
                rng=self._rng,
                environ=os.environ if self._environ is None else self._environ,
                local=lambda call: self._path.job(call).execute(call),
            )
        return self._fleets

    def _balanced(self) -> "LoadBalancer | None":
        return None if self._fleets is None else self._fleets.balancer

    def _add_host_exec(self, home: Home, environ: Mapping[str, str], redactor: Redactor) -> None:
        """Registers the built-in agent; where it cannot be used, the others still can."""
        if self.settings.hostexec.mode == "off":
            return
        try:
            agent = host_agent(
                self.settings.hostexec,
                home=home,
                agents=self._dirs,
                environ=environ,
                clock=self._clock,
                redactor=redactor,
                on_warning=self.notices.append,
                guarded=self._guarded,
            )
            self.registry.add_object(HOST_EXEC, agent)
        except PacelineError as exc:
            self._notice("host_exec is not available", exc)

    def _notice(self, what: str, exc: PacelineError) -> None:
        self.notices.append(f"{what}: {str(exc).rstrip('.')}. {exc.next_step}")
        _log.warning("%s: %s", what, exc)

    # -- use ----------------------------------------------------------------------------------

    @property
    def results(self) -> Results:
        """What is cached: to look at, take away and make ahead. Raises RuntimeClosedError."""
        if self._results is None:
            raise RuntimeClosedError("the runtime is not open")
        return self._results

    @property
    def balancer(self) -> "LoadBalancer":
        """The instances of agents that have several: to look at, drain, and add strategies to; for
        further ones see `add_instance`. Raises RuntimeClosedError."""
        if self._loop is None:
            raise RuntimeClosedError("the runtime is not open")
        return self._spread().balancer

    async def add_instance(self, instance: "AgentInstance") -> None:
        """Has calls of the agent `instance.agent_type` done by this instance's `target` too, or
        if it is the first, by it alone: see `paceline.instances`. The target is opened now, probed
        from time to time, and closed with the runtime.

        Raises UnknownAgentError, UsageError for an instance without a target, RuntimeClosedError.
        """
        self.registry.get(instance.agent_type)
        self._around()
        fleets = self._spread()
        await fleets.open(self._behind, self._home if self._persist else None, self._notice)
        await fleets.add(instance)
        self._jobs.forget(instance.agent_type)

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
        call, error = self._calls.make(
            spec,
            input,
            context or _NO_CONTEXT,
            self._calls.caller(caller, user, around),
            priority=priority,
            deadline_ns=deadline_ns(around, timeout, self._clock),
        )
        if error is not None:
            return self._path.refuse(call, error)
        self._in_flight += 1
        try:
            return await self._path.run(call, self._jobs.of(spec), use_cache=use_cache)
        finally:
            self._in_flight -= 1
            if not (self._in_flight or self._open):
                self._drained.set()

    def _prepare(self, wanted: WarmCall) -> tuple[Call, Job]:
        """The call of which the result is wanted ahead. Raises PacelineError."""
        around, priority, context = self._around(), Priority.SPECULATIVE, wanted.context or {}
        check_request(wanted.agent, wanted.input, None, wanted.caller, context, priority, None)
        spec = self.registry.get(wanted.agent)
        caller = self._calls.caller(wanted.caller, None, around)
        call, error = self._calls.make(
            spec, wanted.input, context, caller, priority=priority, deadline_ns=None
        )
        if error is not None:
            raise error
        return call, self._jobs.of(spec)

    def _instead(self, failed: Call, name: str) -> tuple[Call, Job]:
        """The call of another agent in place of one that failed. Raises PacelineError."""
        spec = self.registry.get(name)
        return self._calls.instead_of(failed, spec), replace(self._jobs.of(spec), fallback=())

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

    async def reload(self) -> Changes:
        """Loads agent modules that are new or changed; calls in flight finish on the old code."""
        return await self.registry.reload_async()

    def _around(self) -> Execution | None:
        """The execution in whose course this code runs. Raises RuntimeClosedError.

        Calls in flight may still make calls of their own while the runtime drains.
        """
        if self._loop is None:
            raise RuntimeClosedError("the runtime is not open")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeClosedError(
                "the runtime was opened on another event loop",
                next_step="Use it there, or SyncRuntime from other threads.",
            )
        parent = current_call.get()
        around = None if parent is None else self._path.running(parent)
        if not self._open and around is None:
            raise RuntimeClosedError("the runtime is not open")
        return around


def _checked(settings: object) -> Settings:
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise InvalidInputError(
            f"settings are of type {type(settings).__name__}, not Settings",
            next_step="Make them with paceline.config.load(overrides={...}).",
        )
    return settings
