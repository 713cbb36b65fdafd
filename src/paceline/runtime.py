"""The runtime: wires the parts together, and owns their life."""

import asyncio
import contextlib
import functools
import logging
import os
import random
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypedDict, TypeVar, Unpack, final

from paceline.agents.module import function_spec
from paceline.agents.registry import AgentRegistry, Changes
from paceline.agents.runner import AgentRunner
from paceline.agents.spec import AgentSpec
from paceline.agents.threads import ThreadPool
from paceline.agents.watch import watch
from paceline.balance.gate import Gate
from paceline.balance.retry import RetryPolicy
from paceline.cache.disk import DiskTier
from paceline.cache.generations import Generations
from paceline.cache.memory import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import ResultCache
from paceline.call import (
    Call,
    Caller,
    Effect,
    Kind,
    Outcome,
    Plan,
    Priority,
    Scope,
    ScopeLevel,
    current_call,
)
from paceline.clock import Clock, SystemClock
from paceline.config import Settings
from paceline.errors import InvalidInputError, PacelineError, RuntimeClosedError, StorageError
from paceline.history.sqlite import SqliteHistory
from paceline.home import Home
from paceline.hostexec.setup import host_agent
from paceline.metrics.collector import MetricsCollector
from paceline.path import CallPath, Job, Observer
from paceline.redaction import Redactor, environment_secrets

__all__ = ["AgentOptions", "CallOptions", "Runtime"]

F = TypeVar("F", bound=Callable[..., object])

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000


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
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Starts nothing and reads nothing; `async with` does."""
        self.settings = settings or Settings()
        self.notices: list[str] = []
        """What is not as it should be but did not stop the runtime, in words for a person."""
        self._dirs = [
            Path(d) for d in (agents if agents is not None else [self.settings.agents.dir])
        ]
        self._home = Home(Path(home)) if home is not None else None
        self._persist = persist
        self._environ = environ
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 (spreads retries; guards nothing)
        self._session = secrets.token_hex(8)
        self._calls = 0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = False
        self._closing = contextlib.AsyncExitStack()
        self._jobs: dict[str, tuple[AgentSpec, Job]] = {}
        self._gates: dict[str, Gate] = {}
        self.metrics = MetricsCollector(clock=self._clock)
        self.registry = AgentRegistry(
            self._dirs,
            import_timeout_s=self.settings.agents.import_timeout_s,
            legacy_default_cacheable=self.settings.agents.legacy_default_cacheable,
            clock=self._clock,
        )

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._open:
            raise RuntimeClosedError("this runtime is open already", next_step="Make another one.")
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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        await self._closing.aclose()

    async def _start(self, parts: contextlib.AsyncExitStack) -> None:
        """Opens every part; what is opened last is closed first."""
        environ = os.environ if self._environ is None else self._environ
        home = self._home = self._home or Home.locate(environ, Path.cwd())
        observers: list[Observer] = [self.metrics.observe]
        redactor = Redactor(environment_secrets(environ))
        if self._persist and self.settings.history.enabled:
            observers += self._open_history(home, redactor, parts)
        self._pool = ThreadPool(self.settings.run.threads)
        parts.callback(self._pool.close)
        self._runner = AgentRunner(self._pool)
        self._path = CallPath(
            clock=self._clock,
            cache=self._open_cache(home, parts),
            generations=self._open_generations(home, parts),
            gate=Gate(
                "the runtime", self.settings.run.max_concurrency, self.settings.run.max_queue
            ),
            retry=RetryPolicy(self.settings.run.max_attempts),
            rng=self._rng,
            observers=observers,
            instance=f"local:{os.getpid()}",
        )
        parts.push_async_callback(self._path.close)
        self._add_host_exec(home, environ, redactor)
        await self.registry.reload_async()
        if self.settings.agents.watch:
            await parts.enter_async_context(self._watching(home))

    def _open_history(
        self, home: Home, redactor: Redactor, parts: contextlib.AsyncExitStack
    ) -> list[Observer]:
        """The history as an observer; without it calls still run, and a notice says so."""
        kept = self.settings.history
        try:
            history = SqliteHistory(
                home.history,
                clock=self._clock,
                redactor=redactor,
                keep_inputs=kept.inputs,
                on_loss=lambda exc: self._notice("calls are not recorded", exc),
            )
        except StorageError as exc:
            self._notice("calls are not recorded", exc)
            return []
        parts.push_async_callback(asyncio.to_thread, history.close)
        history.prune(max_age_s=kept.retention_days * 86_400, max_records=kept.max_records)
        return [history.observe]

    def _open_cache(self, home: Home, parts: contextlib.AsyncExitStack) -> ResultCache:
        wanted = self.settings.cache
        memory = MemoryTier[bytes, Snapshot](
            wanted.hot_entries if wanted.enabled else 0, clock=self._clock
        )
        disk = None
        if self._persist and wanted.enabled and wanted.warm_bytes:
            disk = DiskTier(
                home.cache,
                clock=self._clock,
                max_bytes=wanted.warm_bytes,
                on_trouble=lambda exc: self._notice("the warm tier", exc),
            )
            parts.push_async_callback(asyncio.to_thread, disk.close)
        return ResultCache(memory, disk, default_ttl_s=wanted.default_ttl_s)

    def _open_generations(self, home: Home, parts: contextlib.AsyncExitStack) -> Generations:
        generations = Generations(
            home.generations if self._persist else None,
            on_trouble=lambda exc: self._notice("invalidation across processes", exc),
        )
        parts.callback(generations.close)
        return generations

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
            )
            self.registry.add_object("host_exec", agent)
        except PacelineError as exc:
            self._notice("host_exec is not available", exc)

    @contextlib.asynccontextmanager
    async def _watching(self, home: Home) -> AsyncGenerator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(
            watch(self.registry, stop, stamp=home.reload_stamp if self._persist else None)
        )
        try:
            yield
        finally:
            stop.set()
            await task

    def _notice(self, what: str, exc: PacelineError) -> None:
        self.notices.append(f"{what}: {exc}. {exc.next_step}")
        _log.warning("%s: %s", what, exc)

    # -- use ----------------------------------------------------------------------------------

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
        if not self._open:
            raise RuntimeClosedError("the runtime is not open")
        if not input.strip():
            raise InvalidInputError(f"the input of {name} is empty", next_step="Say what to do.")
        spec = self.registry.get(name)
        call, error = self._call(
            spec,
            input,
            context or {},
            caller if caller is not None or user is None else Caller(user),
            priority=priority,
            timeout_s=timeout,
        )
        if error is not None:
            return self._path.refuse(call, error)
        self._in_flight += 1
        self._idle.clear()
        try:
            return await self._path.run(call, self._job(spec), use_cache=use_cache)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

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

        def register(function: F) -> F:
            self.registry.add(function_spec(function, name=name, **options))
            return function

        return register

    async def reload(self) -> Changes:
        """Loads agent modules that are new or changed; calls in flight finish on the old code."""
        return await self.registry.reload_async()

    def _call(
        self,
        spec: AgentSpec,
        query: str,
        context: Mapping[str, object],
        caller: Caller | None,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> tuple[Call, PacelineError | None]:
        """The call, and what speaks against running it at all."""
        parent = current_call.get()
        if caller is None:
            caller = parent.caller if parent is not None else Caller(session=self._session)
        plan, error = Plan(), None
        try:
            plan = spec.plan(query, context)
        except PacelineError as exc:
            error = exc
        self._calls += 1
        call_id = f"{self._session}-{self._calls}"
        call = Call(
            id=call_id,
            kind=Kind.AGENT,
            name=spec.name,
            arguments={**context, "query": query},
            caller=caller,
            scope=Scope.of(caller, plan.scope),
            plan=plan,
            priority=priority,
            deadline_ns=self._deadline_ns(parent, timeout_s),
            parent_id=parent.id if parent is not None else None,
            trace_id=parent.trace_id if parent is not None else call_id,
        )
        return call, error

    def _deadline_ns(self, parent: Call | None, timeout_s: float | None) -> int | None:
        """The earlier of the caller's own limit and the deadline of the call it is made in."""
        limits = [parent.deadline_ns] if parent is not None and parent.deadline_ns else []
        if timeout_s is not None:
            limits.append(self._clock.monotonic_ns() + round(timeout_s * _NS))
        return min(limits, default=None)

    def _job(self, spec: AgentSpec) -> Job:
        """How this version of the agent is run; made once a version."""
        known = self._jobs.get(spec.name)
        if known is not None and known[0] is spec:
            return known[1]
        job = Job(
            execute=functools.partial(self._runner.run, spec),
            version=spec.version,
            result_type=spec.result_type,
            gate=self._gate(spec),
            timeout_s=spec.timeout_s or self.settings.run.timeout_s,
        )
        self._jobs[spec.name] = spec, job
        return job

    def _gate(self, spec: AgentSpec) -> Gate | None:
        """The agent's own limit. It outlives versions: calls on the old code still count."""
        if spec.max_concurrency is None:
            return None
        gate = self._gates.get(spec.name)
        if gate is None:
            gate = Gate(f"agent {spec.name}", spec.max_concurrency, self.settings.run.max_queue)
            self._gates[spec.name] = gate
        elif gate.capacity != spec.max_concurrency:
            gate.resize(spec.max_concurrency)
        return gate
