"""What calls of tools and agents in a session run: one job for each version of a tool."""

import functools
import weakref
from collections.abc import Callable
from typing import Protocol, final

from msgspec.structs import replace

from paceline.agents.spec import AgentSpec
from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.gate import Gate
from paceline.balance.retry import RetryPolicy
from paceline.clock import Clock
from paceline.path.job import Job
from paceline.settings import Settings
from paceline.tools.runner import ToolRunner
from paceline.tools.spec import ToolSpec

__all__ = ["SessionJobs", "ToolJobs"]


class ToolJobs(Protocol):
    """What calls of tools run."""

    def of_tool(self, spec: ToolSpec) -> Job:
        """How this version of a tool is run."""
        ...

    def of_agent(self, spec: AgentSpec) -> Job:
        """How this version of an agent is run."""
        ...


@final
class SessionJobs:
    """Makes the jobs of tools, each of them once."""

    def __init__(
        self,
        runner: ToolRunner,
        threads: Gate,
        settings: Settings,
        *,
        clock: Clock,
        agent: Callable[[AgentSpec], Job],
        gate: Callable[[str, int], Gate],
    ) -> None:
        """`threads` is the limit of those that synchronous tools run in, `agent` how an agent is
        run, and `gate` makes the limit of this name and so many at once."""
        self._runner = runner
        self._threads = threads
        self._settings = settings
        self._clock = clock
        self._agent = agent
        self._gate = gate
        self._retry = RetryPolicy(settings.chat.max_tool_retries + 1)
        self._jobs: weakref.WeakKeyDictionary[ToolSpec, Job] = weakref.WeakKeyDictionary()

    def of_agent(self, spec: AgentSpec) -> Job:
        """As everywhere else."""
        return self._agent(spec)

    def of_tool(self, spec: ToolSpec) -> Job:
        """How this version of a tool is run."""
        job = self._jobs.get(spec)
        if job is None:
            job = self._jobs[spec] = self._make(spec)
        return job

    def retrying(self, most: int) -> ToolJobs:
        """The same, but with so many attempts more after the first of a tool."""
        return _Retrying(self, RetryPolicy(most + 1))

    def circuit(self, what: str) -> Circuit | None:
        """What leaves something alone for a while that keeps failing; None if nothing is."""
        balance = self._settings.balance
        if not balance.circuit_failures:
            return None
        policy = CircuitPolicy(
            balance.circuit_failures, balance.circuit_wait_s, balance.circuit_longest_wait_s
        )
        return Circuit(what, self._clock, policy)

    def _make(self, spec: ToolSpec) -> Job:
        here = not spec.is_async and not spec.killable and spec.memory_mb is None
        most = spec.max_concurrency
        return Job(
            execute=functools.partial(self._runner.run, spec),
            version=spec.version,
            result_type=spec.result_type,
            gate=None if most is None else self._gate(f"tool {spec.name}", most),
            workers=self._threads if here else None,
            timeout_s=spec.timeout_s or self._settings.chat.tool_timeout_s,
            circuit=self.circuit(f"tool {spec.name}"),
            heeds=spec.is_async,  # as all code of asyncio has to; what does not can be `killable`
            retry=self._retry,
        )


@final
class _Retrying:
    """The jobs of others, with another number of attempts."""

    __slots__ = ("_jobs", "_kept", "_retry")

    def __init__(self, jobs: SessionJobs, retry: RetryPolicy) -> None:
        self._jobs = jobs
        self._retry = retry
        self._kept: weakref.WeakKeyDictionary[ToolSpec, Job] = weakref.WeakKeyDictionary()

    def of_agent(self, spec: AgentSpec) -> Job:
        return self._jobs.of_agent(spec)

    def of_tool(self, spec: ToolSpec) -> Job:
        job = self._kept.get(spec)
        if job is None:
            job = self._kept[spec] = replace(self._jobs.of_tool(spec), retry=self._retry)
        return job
