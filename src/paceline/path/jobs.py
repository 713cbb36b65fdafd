"""What calls of agents run: one job for each version of an agent."""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Final, cast, final

from paceline.agents.runner import AgentRunner
from paceline.agents.spec import AgentSpec, ResultHints
from paceline.agents.threads import ThreadPool
from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.fallback import STALE, fallbacks_of
from paceline.balance.gate import Gate
from paceline.cache.hints import SILENT, Hints, mcp_hints
from paceline.call import Call, Priority
from paceline.clock import Clock
from paceline.path.ahead import enter_thread
from paceline.path.job import Dispatch, Job
from paceline.settings import Settings

__all__ = ["HOST_EXEC", "Jobs", "gate_of"]

HOST_EXEC: Final = "host_exec"
"""The agent that comes with Paceline."""
_KEPT_TO_FALL_BACK_S: Final = 86_400.0


@final
class Jobs:
    """Makes jobs of agents, and keeps those of the agents there are."""

    def __init__(
        self,
        runner: AgentRunner,
        pool: ThreadPool,
        settings: Settings,
        *,
        clock: Clock,
        there: Callable[[], Collection[str]],
        dispatch: Callable[[AgentSpec], Dispatch | None] = lambda _: None,
    ) -> None:
        """`there` names the agents there are: jobs of others are let go. `dispatch` is how an agent
        with instances is given to them. Raises ConfigError for fallbacks that cannot be."""
        self._runner = runner
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._there = there
        self._dispatch = dispatch
        self._jobs: dict[str, tuple[AgentSpec, Job]] = {}
        self._gates: dict[str, Gate] = {}
        self._fallbacks = {
            name: fallbacks_of(name, fleet.fallback)
            for name, fleet in settings.fleets.items()
            if fleet.fallback
        }

    def of(self, spec: AgentSpec) -> Job:
        """How this version of the agent is run; made once a version."""
        known = self._jobs.get(spec.name)
        if known is not None and known[0] is spec:
            return known[1]
        trusted = spec.source == "builtin" and spec.name == HOST_EXEC
        dispatch = self._dispatch(spec)
        alone = spec.is_async or dispatch is None
        fallback = self._fallbacks.get(spec.name, (STALE,))
        job = Job(
            execute=functools.partial(self._runner.run if alone else self._in_turn, spec),
            version=spec.version,
            result_type=spec.result_type,
            gate=self._gate(spec),
            workers=None if spec.is_async or dispatch is not None else self._pool.gate,
            timeout_s=spec.timeout_s or self._settings.run.timeout_s,
            trusted=trusted,
            hints=_mcp if spec.result_hints is ResultHints.MCP else None,
            circuit=None if trusted or dispatch is not None else self._circuit(spec),
            dispatch=dispatch,
            fallback=fallback,
            stale_if_error_s=_KEPT_TO_FALL_BACK_S
            if STALE in self._fallbacks.get(spec.name, ())
            else None,
        )
        there = self._there()
        self._jobs = {name: known for name, known in self._jobs.items() if name in there}
        self._jobs[spec.name] = spec, job
        return job

    def forget(self, name: str) -> None:
        """Something about how it is run has changed, though not its code."""
        self._jobs.pop(name, None)

    async def _in_turn(self, spec: AgentSpec, call: Call) -> object:
        """The value of a synchronous agent that is one of several instances: only those that are
        run here need a thread."""
        if call.priority is Priority.SPECULATIVE:
            enter_thread(self._pool.gate)
        else:
            await self._pool.gate.enter(call.priority)
        try:
            return await self._runner.run(spec, call)
        finally:
            self._pool.gate.leave()

    def _circuit(self, spec: AgentSpec) -> Circuit | None:
        """A new one for each version: code that was mended need not wait."""
        balance = self._settings.balance
        if not balance.circuit_failures:
            return None
        policy = CircuitPolicy(
            balance.circuit_failures, balance.circuit_wait_s, balance.circuit_longest_wait_s
        )
        return Circuit(f"agent {spec.name}", self._clock, policy)

    def _gate(self, spec: AgentSpec) -> Gate | None:
        """The agent's own limit. It outlives versions: calls on the old code still count."""
        if spec.max_concurrency is None:
            return None
        gate = self._gates.get(spec.name)
        if gate is None:
            gate = gate_of(f"agent {spec.name}", spec.max_concurrency, self._settings, self._clock)
            self._gates[spec.name] = gate
        elif gate.capacity != spec.max_concurrency:
            gate.resize(spec.max_concurrency)
        return gate


def gate_of(name: str, capacity: int, settings: Settings, clock: Clock) -> Gate:
    """A gate as the settings have it; errors call what it guards by this name."""
    ageing_s = settings.balance.ageing_s
    return Gate(name, capacity, settings.run.max_queue, clock=clock, ageing_s=ageing_s)


def _mcp(value: object) -> Hints:
    if isinstance(value, Mapping):
        return mcp_hints(cast("Mapping[str, object]", value))
    return SILENT
