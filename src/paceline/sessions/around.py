"""What sessions use of the runtime they are in."""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from paceline.agents.spec import AgentSpec
from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.call import Call, Outcome
from paceline.clock import Clock
from paceline.engine.protocols import Foresight
from paceline.engine.states import ExecutionContext
from paceline.errors import PacelineError
from paceline.path.calls import Calls
from paceline.path.job import Job
from paceline.redaction import Redactor
from paceline.sessions.talk import Talk
from paceline.sessions.toolbox import Run, Toolbox
from paceline.settings import Settings

__all__ = ["Around", "Foresee"]

Foresee = Callable[
    [Toolbox, ExecutionContext, Talk], Awaitable[tuple[Foresight, Callable[[], object]]]
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Around:
    """The parts of a runtime, as far as they concern sessions.

    `agents` are those there are now, `run` is the call path, `agent_job` what calls of an agent
    run, `ended` is told when a synchronous tool has really ended, in its thread. `gate` makes a
    limit, `observe` is told of turns as of calls, and `relieve` gives back memory that can be
    spared and says how many bytes. `store` is the file that sessions are kept in, None for none.
    `notice` is told what a runtime goes on without. `hourly` has something done in a thread each
    hour, until what it returns is called. `foresee` has somebody look ahead in a session, where
    anybody does, until what it returns besides is called.
    """

    settings: Settings
    clock: Clock
    rng: random.Random
    environ: Mapping[str, str]
    store: Path | None
    redactor: Redactor
    agents: Callable[[], Mapping[str, AgentSpec]]
    run: Run
    agent_job: Callable[[AgentSpec], Job]
    ended: Callable[[Call], object]
    calls: Calls
    pool: ThreadPool
    gate: Callable[[str, int], Gate]
    observe: Callable[[Call, Outcome], object]
    relieve: Callable[[], int]
    notice: Callable[[str, PacelineError], object]
    hourly: Callable[[Callable[[], object]], Callable[[], None]]
    foresee: Foresee | None = None
