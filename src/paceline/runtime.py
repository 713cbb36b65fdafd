"""The runtime: wires the parts together, and owns their life."""

import asyncio
import contextlib
import logging
import os
import random
import re
import reprlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypedDict, TypeVar, Unpack, cast, final

from paceline.agents.module import function_spec
from paceline.agents.registry import AgentRegistry, Changes
from paceline.agents.runner import AgentRunner
from paceline.agents.spec import AgentSpec
from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.balance.retry import RetryPolicy
from paceline.call import (
    Call,
    Caller,
    Effect,
    EffectKind,
    Kind,
    Outcome,
    Plan,
    Priority,
    Scope,
    ScopeLevel,
    current_call,
)
from paceline.clock import Clock, SystemClock
from paceline.config import secrets_of
from paceline.errors import InvalidInputError, PacelineError, RuntimeClosedError, UsageError
from paceline.home import Home
from paceline.hostexec.setup import host_agent
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.trace import current_span, made_in
from paceline.path import Attempts, CallPath, Execution, Identity, Job
from paceline.path.jobs import HOST_EXEC, Jobs
from paceline.path.paying import Paying
from paceline.redaction import Redactor, environment_secrets
from paceline.reporting import Reporting
from paceline.results import Ahead, Results, WarmCall
from paceline.settings import Settings
from paceline.state import State

__all__ = ["AgentOptions", "CallOptions", "Runtime"]

F = TypeVar("F", bound=Callable[..., object])

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000
_LONGEST_S: Final = 366 * 86_400
_NO_CONTEXT: Final[Mapping[str, object]] = {}
_AGENT: Final = Kind.AGENT  # asking an enum for a member takes longer than looking a result up


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
        self._session = secrets.token_hex(8)
        self._calls = 0
        self._in_flight = 0
        self._drained = asyncio.Event()  # once closing, when nothing is in flight
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = contextlib.AsyncExitStack()
        self._results: Results | None = None
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
        environ = os.environ if self._environ is None else self._environ
        home = self._home = self._home or Home.locate(environ, Path.cwd())
        redactor = Redactor([*environment_secrets(environ), *secrets_of(self.settings)])
        state = State(
            self.settings,
            home if self._persist else None,
            clock=self._clock,
            redactor=redactor,
            rng=self._rng,
            notice=self._notice,
        )
        await parts.enter_async_context(state)
        self._pool = ThreadPool(self.settings.run.threads, self.settings.run.max_queue)
        # Threads that are left behind may still write, and must be able to say so.
        parts.callback(lambda: None if self._pool.in_use else state.generations.close())
        parts.callback(self._pool.close)
        self._jobs = Jobs(
            AgentRunner(self._pool, ended=self._ended),
            self._pool,
            self.settings.run,
            there=self.registry.snapshot,
        )
        self._identity = Identity(state.generations, clock=self._clock)
        run = self.settings.run
        self.paying = await Paying.open(self.settings, self._clock, state.history, self._notice)
        gate, here = Gate("the runtime", run.max_concurrency, run.max_queue), f"local:{os.getpid()}"
        reporting = Reporting(
            self.metrics, gate, here, clock=self._clock, rng=self._rng, environ=environ
        )
        told = await reporting.open(self.settings, parts, self._notice)
        attempts = Attempts(
            clock=self._clock,
            gate=gate,
            retry=RetryPolicy(run.max_attempts),
            rng=self._rng,
            identity=self._identity,
            paying=self.paying,
        )
        self._path = CallPath(
            clock=self._clock,
            cache=state.cache,
            identity=self._identity,
            attempts=attempts,
            observers=[self.metrics.observe, *state.observers, *told],
            began=self.metrics.begin,
            instance=here,
        )
        parts.push_async_callback(self._path.close)
        self._results = Results(
            state,
            self._identity,
            clock=self._clock,
            names=self.registry.snapshot,
            ahead=Ahead(self._prepare, self._path.run),
        )
        self._add_host_exec(home, environ, redactor)
        await self.registry.reload_async()
        if self.settings.agents.watch:
            from paceline.agents.watch import watching  # noqa: PLC0415 (a single call needs none)

            stamp = home.reload_stamp if self._persist else None
            await parts.enter_async_context(watching(self.registry, stamp=stamp))

    def _ended(self, call: Call) -> None:
        """A synchronous agent has really ended, in its thread. If it wrote, that is only now over."""
        if call.plan.effect.kind is not EffectKind.WRITE or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._identity.changed, call)
        except RuntimeError:  # the loop is closed: only other processes can still read
            self._identity.changed(call)

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
        _check_request(name, input, user, caller, context, priority, timeout)
        spec = self.registry.get(name)
        call, error = self._call(
            spec,
            input,
            context or _NO_CONTEXT,
            self._caller(caller, user, around),
            priority=priority,
            deadline_ns=_deadline_ns(around, timeout, self._clock),
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
        _check_request(wanted.agent, wanted.input, None, wanted.caller, context, priority, None)
        spec = self.registry.get(wanted.agent)
        caller = self._caller(wanted.caller, None, around)
        call, error = self._call(
            spec, wanted.input, context, caller, priority=priority, deadline_ns=None
        )
        if error is not None:
            raise error
        return call, self._jobs.of(spec)

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

    def _caller(self, caller: Caller | None, user: str | None, around: Execution | None) -> Caller:
        """On whose behalf: who is named, else who made the call around this one, else nobody but
        this runtime's own session, so that no two nameless callers share results."""
        parent = current_call.get() if around is not None else None
        if caller is None:
            caller = parent.caller if parent is not None and user is None else Caller(user or None)
        if caller.user or caller.session:
            return caller
        return Caller(session=self._session, tenant=caller.tenant)

    def _call(
        self,
        spec: AgentSpec,
        query: str,
        context: Mapping[str, object],
        caller: Caller,
        *,
        priority: Priority,
        deadline_ns: int | None,
    ) -> tuple[Call, PacelineError | None]:
        """The call, and what speaks against running it at all."""
        try:
            plan, error = spec.plan(query, context), None
        except PacelineError as exc:
            plan, error = Plan(), exc
        parent, around = current_call.get(), current_span.get()
        self._calls += 1
        call_id = f"{self._session}-{self._calls}"
        call = Call(
            call_id,
            _AGENT,
            spec.name,
            {**context, "query": query} if context else {"query": query},
            caller,
            Scope.of(caller, plan.scope),
            plan,
            priority,
            deadline_ns,
            parent.id if parent is not None else None,
            parent.trace_id if parent is not None else call_id,
        )
        return call if around is None else made_in(around, parent, call), error


def _checked(settings: object) -> Settings:
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise InvalidInputError(
            f"settings are of type {type(settings).__name__}, not Settings",
            next_step="Make them with paceline.config.load(overrides={...}).",
        )
    return settings


def _deadline_ns(around: Execution | None, timeout_s: float | None, clock: Clock) -> int | None:
    """The earlier of the caller's own limit and the deadline of the call it is made in.

    Not inside a call whose result others may get: they may have more time, and would get what
    came of having less. Such a call ends its inner ones by being cancelled.
    """
    shared = around is not None and around.call.plan.cacheable
    outer_ns = around.deadline_ns if around is not None and not shared else None
    if timeout_s is None:
        return outer_ns
    own_ns = clock.monotonic_ns() + round(timeout_s * _NS)
    return own_ns if outer_ns is None else min(own_ns, outer_ns)


def _check_request(  # noqa: PLR0917 (on the path of every call)
    name: object,
    text: object,
    user: object,
    caller: object,
    context: object,
    priority: object,
    timeout: object,
) -> None:
    """Raises InvalidInputError for what no call can be made of."""
    if not isinstance(name, str):
        raise _wrong("the name of an agent", name, "a text")
    if not isinstance(text, str):
        raise _wrong(f"the input of {name}", text, "a text")
    if not text.strip():
        raise InvalidInputError(f"the input of {name} is empty", next_step="Say what to do.")
    if user is not None and not isinstance(user, str):
        raise _wrong("user", user, "a text")
    if caller is not None and not isinstance(caller, Caller):
        raise _wrong("caller", caller, "a Caller")
    if context is not None and not isinstance(context, Mapping):
        raise _wrong("context", context, "a mapping of names to values")
    if not isinstance(priority, Priority):
        raise _wrong("priority", priority, "a Priority")
    if timeout is None:
        return
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or not 0 < cast("float", timeout) <= _LONGEST_S:
        raise _wrong("timeout", timeout, "a number of seconds, more than 0 and at most a year")


def _wrong(what: str, value: object, wanted: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what} is {reprlib.repr(value)}, not {wanted}", next_step=f"Give {wanted}."
    )
