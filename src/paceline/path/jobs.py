"""What calls of agents run: one job for each version of an agent."""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Final, cast, final

from paceline.agents.runner import AgentRunner
from paceline.agents.spec import AgentSpec, ResultHints
from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.cache.hints import SILENT, Hints, mcp_hints
from paceline.path.job import Job
from paceline.settings import RunSettings

__all__ = ["HOST_EXEC", "Jobs"]

HOST_EXEC: Final = "host_exec"
"""The agent that comes with Paceline."""


@final
class Jobs:
    """Makes jobs of agents, and keeps those of the agents there are."""

    def __init__(
        self,
        runner: AgentRunner,
        pool: ThreadPool,
        settings: RunSettings,
        *,
        there: Callable[[], Collection[str]],
    ) -> None:
        """`there` names the agents there are: jobs of others are let go."""
        self._runner = runner
        self._pool = pool
        self._settings = settings
        self._there = there
        self._jobs: dict[str, tuple[AgentSpec, Job]] = {}
        self._gates: dict[str, Gate] = {}

    def of(self, spec: AgentSpec) -> Job:
        """How this version of the agent is run; made once a version."""
        known = self._jobs.get(spec.name)
        if known is not None and known[0] is spec:
            return known[1]
        job = Job(
            execute=functools.partial(self._runner.run, spec),
            version=spec.version,
            result_type=spec.result_type,
            gate=self._gate(spec),
            workers=None if spec.is_async else self._pool.gate,
            timeout_s=spec.timeout_s or self._settings.timeout_s,
            trusted=spec.source == "builtin" and spec.name == HOST_EXEC,
            hints=_mcp if spec.result_hints is ResultHints.MCP else None,
        )
        there = self._there()
        self._jobs = {name: known for name, known in self._jobs.items() if name in there}
        self._jobs[spec.name] = spec, job
        return job

    def _gate(self, spec: AgentSpec) -> Gate | None:
        """The agent's own limit. It outlives versions: calls on the old code still count."""
        if spec.max_concurrency is None:
            return None
        gate = self._gates.get(spec.name)
        if gate is None:
            gate = Gate(f"agent {spec.name}", spec.max_concurrency, self._settings.max_queue)
            self._gates[spec.name] = gate
        elif gate.capacity != spec.max_concurrency:
            gate.resize(spec.max_concurrency)
        return gate


def _mcp(value: object) -> Hints:
    if isinstance(value, Mapping):
        return mcp_hints(cast("Mapping[str, object]", value))
    return SILENT
