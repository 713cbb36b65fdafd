"""The parts of a runtime: made, wired together, and closed in the order that undoes it."""

import asyncio
import contextlib
import functools
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from msgspec.structs import replace

from paceline.agents.registry import AgentRegistry
from paceline.agents.runner import AgentRunner
from paceline.agents.threads import ThreadPool
from paceline.balance.retry import RetryBudget, RetryPolicy
from paceline.call import Call, Outcome
from paceline.clock import Clock
from paceline.config import secrets_of
from paceline.errors import PacelineError
from paceline.home import Home
from paceline.hostexec.setup import host_agent
from paceline.metrics.collector import MetricsCollector
from paceline.path import Attempts, CallPath, Identity, Job
from paceline.path.calls import Calls
from paceline.path.jobs import HOST_EXEC, Jobs, gate_of
from paceline.path.paying import Paying
from paceline.redaction import Redactor, environment_secrets
from paceline.reporting import Reporting
from paceline.results import Ahead, Results, WarmCall
from paceline.settings import Settings
from paceline.state import State

if TYPE_CHECKING:
    from paceline.balance.balancer import LoadBalancer
    from paceline.engine.protocols import Foresight
    from paceline.engine.states import ExecutionContext
    from paceline.fleets import Fleets
    from paceline.sessions.catalogue import Catalogue
    from paceline.sessions.sessions import Sessions
    from paceline.sessions.talk import Talk
    from paceline.sessions.toolbox import Toolbox
    from paceline.speculation.predictions import Predictions

__all__ = ["Parts", "Wanted"]

_log = logging.getLogger("paceline")

Prepare = Callable[[WarmCall], tuple[Call, Job]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """What a runtime is to be made of."""

    settings: Settings
    dirs: Sequence[Path]
    home: Home | None
    """Where state is kept; None for where the environment says."""
    persist: bool
    guarded: Sequence[Path]
    """Files that host commands may not change."""
    environ: Callable[[], Mapping[str, str]]
    """The environment, as it is when the runtime is opened."""
    clock: Clock
    rng: random.Random


@final
class Parts:
    """The parts of one runtime, which owns them: `registry`, `metrics`, `notices` and `calls` from
    the beginning, all else once `open` has returned."""

    def __init__(self, wanted: Wanted, session: str) -> None:
        """Starts nothing and reads nothing. `session` names callers without a name."""
        settings = wanted.settings
        self._wanted = wanted
        self.calls = Calls(session)
        self.notices: list[str] = []
        self.metrics = MetricsCollector(clock=wanted.clock, max_series=settings.metrics.max_series)
        self.registry = AgentRegistry(
            wanted.dirs,
            import_timeout_s=settings.agents.import_timeout_s,
            legacy_default_cacheable=settings.agents.legacy_default_cacheable,
            clock=wanted.clock,
        )
        self.drain_s = settings.run.drain_s
        """How long what runs may go on once it is closed."""
        self._fleets: Fleets | None = None
        self._catalogue: Catalogue | None = None
        self._sessions: Sessions | None = None
        self._predictions: Predictions | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, parts: contextlib.AsyncExitStack, prepare: Prepare) -> None:
        """Opens every part; what is opened last is closed first. `prepare` makes calls of which
        the results are wanted ahead."""
        wanted = self._wanted
        settings, clock, rng = wanted.settings, wanted.clock, wanted.rng
        environ = self.environ = wanted.environ()
        self._place = wanted.home or Home.locate(environ, Path.cwd())
        self.home = self._place if wanted.persist else None
        hidden = [*environment_secrets(environ), *secrets_of(settings)]
        if settings.fleets:
            hidden += self.spread().tokens
        redactor = self.redactor = Redactor(hidden)
        state = self.state = State(
            settings, self.home, clock=clock, redactor=redactor, rng=rng, notice=self.notice
        )
        await parts.enter_async_context(state)
        run = settings.run
        threads = "the threads for synchronous agents"
        self.pool = ThreadPool(gate_of(threads, run.threads, settings, clock))
        # Threads that are left behind may still write, and must be able to say so.
        parts.callback(lambda: None if self.pool.in_use else state.generations.close())
        parts.callback(self.pool.close)
        self.identity = Identity(state.generations, clock=clock)
        self._ended = functools.partial(self.identity.ended, asyncio.get_running_loop())
        self.jobs = Jobs(
            AgentRunner(self.pool, ended=self._ended),
            self.pool,
            settings,
            clock=clock,
            there=self.registry.snapshot,
            dispatch=lambda spec: None if self._fleets is None else self._fleets.dispatch(spec),
        )
        self.paying = await Paying.open(settings, clock, state.history, self.notice)
        gate = gate_of("the runtime", run.max_concurrency, settings, clock)
        here = f"local:{os.getpid()}"
        reporting = Reporting(
            self.metrics, gate, here, self.balanced, clock=clock, rng=rng, environ=environ
        )
        told = await reporting.open(settings, parts, self.notice)
        attempts = Attempts(
            clock=clock,
            gate=gate,
            retry=RetryPolicy(run.max_attempts),
            rng=rng,
            identity=self.identity,
            paying=self.paying,
            budget=RetryBudget(settings.balance.retry_share),
        )
        self.path = CallPath(
            clock=clock,
            cache=state.cache,
            identity=self.identity,
            attempts=attempts,
            observers=[self.metrics.observe, *state.observers, *told, self._predicted],
            began=self.metrics.begin,
            instance=here,
            other=self._instead,
        )
        # Instances are closed after the path: what still runs there is to be cancelled first.
        self.behind = await parts.enter_async_context(contextlib.AsyncExitStack())
        parts.push_async_callback(self.path.close)
        parts.push_async_callback(self._close_sessions)
        ahead, names = Ahead(prepare, self.path.run), self.registry.snapshot
        self.results = Results(state, self.identity, clock=clock, names=names, ahead=ahead)
        self._add_host_exec()
        await self.registry.reload_async()
        if self._fleets is not None:
            await self.open_fleets()
            self._fleets.examine(self.registry.snapshot(), self.notice)
            for spec in self._fleets.specs(self.registry.snapshot()):
                self.registry.add(spec)
        if settings.agents.watch:
            from paceline.agents.watch import watching  # noqa: PLC0415 (a single call needs none)

            stamp = self._place.reload_stamp if wanted.persist else None
            await parts.enter_async_context(watching(self.registry, stamp=stamp))

    async def open_fleets(self) -> None:
        """Opens the instances there are; a second time it does nothing."""
        await self.spread().open(self.behind, self.home, self.notice)

    def spread(self) -> "Fleets":
        """What spreads calls over instances; made when the first is known."""
        if self._fleets is None:
            from paceline.fleets import Fleets  # noqa: PLC0415 (most runtimes have none)

            wanted = self._wanted
            self._fleets = Fleets(
                wanted.settings,
                clock=wanted.clock,
                rng=wanted.rng,
                environ=wanted.environ(),
                local=lambda call: self.path.job(call).execute(call),
            )
        return self._fleets

    def balanced(self) -> "LoadBalancer | None":
        """The instances there are, if any."""
        return None if self._fleets is None else self._fleets.balancer

    @property
    def catalogue(self) -> "Catalogue":
        """The tools and models that were registered."""
        if self._catalogue is None:
            from paceline.sessions.catalogue import Catalogue  # noqa: PLC0415 (most runtimes have none)

            self._catalogue = Catalogue()
        return self._catalogue

    @property
    def sessions(self) -> "Sessions":
        """The sessions; made when the first is wanted."""
        if self._sessions is None:
            from paceline.sessions.around import Around  # noqa: PLC0415 (as above)
            from paceline.sessions.sessions import Sessions  # noqa: PLC0415 (as above)

            wanted = self._wanted
            settings, clock = wanted.settings, wanted.clock
            around = Around(
                settings=settings,
                clock=clock,
                rng=wanted.rng,
                environ=self.environ,
                store=None if self.home is None else self.home.sessions,
                redactor=self.redactor,
                agents=self.registry.snapshot,
                run=self.path.run,
                agent_job=self.jobs.of,
                ended=self._ended,
                calls=self.calls,
                pool=self.pool,
                gate=lambda name, most: gate_of(name, most, settings, clock),
                observe=self.path.observe,
                relieve=self.state.relieve,
                notice=self.notice,
                hourly=self.state.hourly,
                foresee=self._foresee if settings.predict.learn else None,
            )
            self._sessions = Sessions(self.catalogue, around)
        return self._sessions

    async def predictions(self) -> "Predictions":
        """What was learnt of sessions; read when the first is opened."""
        if self._predictions is None:
            from paceline.speculation.kept import KeptPredictions  # noqa: PLC0415 (as above)
            from paceline.speculation.predictions import Predictions  # noqa: PLC0415 (as above)

            wanted, home = self._wanted, self.home
            self._predictions = made = Predictions(
                wanted.settings.predict,
                run=self.path.run,
                left_s=self.path.left_s,
                clock=wanted.clock,
                rng=wanted.rng,
                redactor=self.redactor,
                kept=None
                if home is None
                else KeptPredictions(
                    home.predictions,
                    wanted.clock,
                    on_trouble=functools.partial(self.notice, "what was learnt of sessions"),
                ),
                notice=self.notice,
            )
            self._reading = asyncio.create_task(made.open())
        if self._reading is not None:
            await asyncio.shield(self._reading)
        return self._predictions

    def _predicted(self, call: Call, outcome: Outcome) -> None:
        if self._predictions is not None:
            self._predictions.speculator.observe(call, outcome)

    async def _foresee(
        self, tools: "Toolbox", context: "ExecutionContext", talk: "Talk"
    ) -> "tuple[Foresight, Callable[[], object]]":
        foresight = (await self.predictions()).foresight(tools, context, talk)
        foresight.opened()
        return foresight, foresight.close

    async def _close_sessions(self) -> None:
        if self._sessions is not None:
            await self._sessions.close(self.drain_s)
        if self._predictions is not None:
            await (await self.predictions()).close()

    def notice(self, what: str, exc: PacelineError) -> None:
        """Something is not as it should be, and the runtime goes on without it."""
        self.notices.append(f"{what}: {str(exc).rstrip('.')}. {exc.next_step}")
        _log.warning("%s: %s", what, exc)

    def _instead(self, failed: Call, name: str) -> tuple[Call, Job]:
        """The call of another agent in place of one that failed. Raises PacelineError."""
        spec = self.registry.get(name)
        return self.calls.instead_of(failed, spec), replace(self.jobs.of(spec), fallback=())

    def _add_host_exec(self) -> None:
        """Registers the built-in agent; where it cannot be used, the others still can."""
        wanted = self._wanted
        if wanted.settings.hostexec.mode == "off":
            return
        try:
            agent = host_agent(
                wanted.settings.hostexec,
                home=self._place,
                agents=wanted.dirs,
                environ=self.environ,
                clock=wanted.clock,
                redactor=self.redactor,
                on_warning=self.notices.append,
                guarded=wanted.guarded,
            )
            self.registry.add_object(HOST_EXEC, agent)
        except PacelineError as exc:
            self.notice("host_exec is not available", exc)
