"""Runs predicted calls before anybody asks for them.

A launch is an ordinary call on the one call path, of the lowest priority: it waits for no place and
gives its own way to whoever does, and its result is in the cache where, and as long as, that of any
other call would be. Whoever asks for the same thing meanwhile joins it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol, final

from paceline.call import SPECULATED, Call, Caller, EffectKind, Kind, Outcome, Priority, Source
from paceline.clock import Clock
from paceline.engine.protocols import Preparation
from paceline.engine.states import ExecutionContext
from paceline.errors import CallCancelledError
from paceline.messages import ToolDefinition, ToolUse
from paceline.path.job import Job
from paceline.predict.budget import Budget
from paceline.predict.ledger import Ledger
from paceline.speculation.scopes import Share, circle_of

__all__ = ["INTENSIVE_S", "Chance", "Speculator", "Tools"]

_NS: Final = 1_000_000_000
_SPECULATIVE: Final = Priority.SPECULATIVE
_MOST_PAID: Final = 1_000
INTENSIVE_S: Final = 5.0
"""What takes so many seconds takes much."""
_SPECULATED: Final = Source.SPECULATED
_UNKNOWN: Final = "what it costs is not known before it has answered once"


class Tools(Protocol):
    """The tools of a session, as far as they may be run ahead."""

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """All that the model may use; the same object until they change."""
        ...

    def ahead(self, use: ToolUse) -> Preparation | None:
        """The use, checked, if it may be run before the model asks for it; None else. Raises
        nothing: what the tool would not take is None too."""
        ...

    def public(self) -> frozenset[str]:
        """The names of those that are the same for everybody, and whose arguments are no secret."""
        ...

    def effects(self) -> Mapping[str, EffectKind]:
        """What they declare to do to the world, by name."""
        ...

    def text(self, outcome: Outcome) -> str:
        """What the model is told of a result."""
        ...

    def call(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> tuple[Call, Job]:
        """What is run for it."""
        ...


class Chance(NamedTuple):
    """What is thought of a call that may come: the probability that it does, how many seconds it
    takes, and in how many somebody may ask for it; and what it costs in US dollars, as far as nobody
    has seen one yet: None where that is not known."""

    probability: float
    takes_s: float
    lead_s: float
    usd: float | None = 0.0


class _Launch(NamedTuple):
    """A launch that runs: what is asked, whether it takes much, and what it is likely to cost."""

    task: asyncio.Task[Outcome]
    name: str
    arguments: Mapping[str, object]
    intensive: bool
    usd: float


def _whose(caller: Caller) -> str:
    """Who pays for launches in vain: the user, else the session."""
    return circle_of(caller, "user")


@final
class Speculator:
    """Launches calls as far as they are worth it and the budget allows, and learns what they were
    worth. It is told of every outcome of the call path, by `observe`."""

    def __init__(
        self,
        *,
        run: Callable[[Call, Job], Awaitable[Outcome]],
        ledger: Ledger,
        budget: Budget,
        clock: Clock,
        launches: bool = True,
        at_once: int = 3,
        outside: bool = False,
        share: Share = "user",
    ) -> None:
        """`run` is the call path. If it does not launch, all else is as if it did. What reaches `outside`
        is launched only if allowed. At most `at_once` launches of one session run at a time; those
        that take much leave one place to the others, if there are several. What they are worth is
        learnt where habits are, as `share` says."""
        self._run = run
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._launches = launches
        self._at_once = at_once
        self._outside = outside
        self._share: Share = share
        self._of_session: dict[str, dict[str, _Launch]] = {}
        """Launches that run, by session and by their own id."""
        self._paid: dict[str, float] = {}
        """What a model, or a tool that costs something, cost last, by its name; what was used last is
        last."""
        self._closed = False

    def __len__(self) -> int:
        """Launches that run."""
        return sum(map(len, self._of_session.values()))

    def objection(self, call: Call, chance: Chance) -> str:
        """Why a call is not worth being launched, in words; nothing if it is."""
        if call.plan.outside and not self._outside:
            return "it tells others what is asked"
        usd = self._costs(call, chance)
        if usd is None:
            return _UNKNOWN
        return self._ledger.objection(
            call.name,
            chance.probability,
            takes_s=chance.takes_s,
            lead_s=chance.lead_s,
            usd=usd,
            circle=circle_of(call.caller, self._share),
        )

    def launch(
        self,
        call: Call,
        job: Job,
        chance: Chance,
        then: Callable[[Outcome], object] | None = None,
    ) -> str:
        """Starts a call of `Priority.SPECULATIVE` that there is no objection to, and returns at once;
        or says why it does not. `then` is told what came of it, unless it was stopped."""
        session = call.caller.session or ""
        if self._closed or not self._launches:
            return "nothing is run ahead"
        usd, takes_s = self._costs(call, chance), chance.takes_s
        if usd is None:
            return _UNKNOWN
        if len(self._of_session.get(session, ())) >= self._at_once or (
            takes_s >= INTENSIVE_S and self._intense(session, call)
        ):
            return "enough is run ahead"
        if refusal := self._budget.may(call.name, session, takes_s, usd, whose=_whose(call.caller)):
            return refusal
        id_ = call.id + SPECULATED  # as the path calls it
        self._budget.launched(id_, call.name, session, takes_s, usd, whose=_whose(call.caller))
        circle, at_ns = circle_of(call.caller, self._share), self._clock.monotonic_ns()
        self._ledger.launched(id_, call.name, at_ns, takes_s, usd, circle=circle)
        task = asyncio.create_task(self._carry_out(call, job))
        launch = _Launch(task, call.name, call.arguments, takes_s >= INTENSIVE_S, usd)
        self._of_session.setdefault(session, {})[id_] = launch
        began_ns = self._clock.monotonic_ns()
        task.add_done_callback(lambda _: self._over(id_, call, task, began_ns))
        if then is not None:
            task.add_done_callback(lambda _: task.cancelled() or then(task.result()))
        return ""

    def leave(self, session: str) -> None:
        """The session is over: what runs for it alone is stopped."""
        for launch in self._of_session.get(session, {}).values():
            launch.task.cancel()

    def proposed(self, tool: str) -> None:
        """A call that changes nothing was proposed, launched or not."""
        self._ledger.proposed(tool)

    def real(self, tool: str, caller: Caller, *, foreseen: bool) -> None:
        """A session made a call that changes nothing; `foreseen` if it was proposed as one that may
        be launched."""
        self._ledger.real(tool, foreseen=foreseen)
        self._budget.real(_whose(caller))

    def _intense(self, session: str, call: Call) -> bool:
        """Whether one more that takes much would be too many of one session. Who asks for the same
        as another joins that."""
        asked = call.name, call.arguments
        others: list[tuple[str, Mapping[str, object]]] = []
        for launch in self._of_session.get(session, {}).values():
            other = launch.name, launch.arguments
            if launch.intensive and other != asked and other not in others:
                others.append(other)
        return len(others) >= max(1, self._at_once - 1)

    def costs(self, tool: str) -> float:
        """What a call of it cost last, in US dollars, as far as that is known."""
        return self._paid.get(tool, 0.0)

    def _cost_last(self, name: str, otherwise: float | None) -> float | None:
        if name not in self._paid:
            return otherwise
        usd = self._paid[name] = self._paid.pop(name)
        return usd

    def _costs(self, call: Call, chance: Chance) -> float | None:
        """What it is likely to cost, in US dollars: its price, what it cost last, or what is thought of
        it; None where nobody knows."""
        return call.plan.cost_usd or self._cost_last(call.name, chance.usd)

    def _paid_for(self, call: Call, outcome: Outcome) -> None:
        """Something ran: what it cost, which is nothing too if a model answered."""
        usd = call.plan.cost_usd if outcome.cost_usd is None else outcome.cost_usd
        answered = call.kind is Kind.MODEL and outcome.attempts > 0 and outcome.error is None
        if answered or (usd and outcome.attempts):
            self._paid.pop(call.name, None)
            if len(self._paid) >= _MOST_PAID:
                del self._paid[next(iter(self._paid))]
            self._paid[call.name] = usd

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Something was asked for, and this came of it."""
        self._paid_for(call, outcome)
        if call.priority is _SPECULATIVE:
            return
        if call.kind is Kind.MODEL and call.plan.cacheable and call.caller.session is not None:
            self._budget.real(_whose(call.caller))
        if outcome.source is _SPECULATED:
            self._ledger.used(outcome.link, outcome.saved_ns / _NS)
            self._budget.used(outcome.link)

    async def close(self) -> None:
        """Stops what runs; nothing is launched any more."""
        self._closed = True
        running = [one.task for each in self._of_session.values() for one in each.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _carry_out(self, call: Call, job: Job) -> Outcome:
        return await self._run(call, job)

    def _over(self, id_: str, call: Call, task: asyncio.Task[Outcome], began_ns: int) -> None:
        """Told by the task itself, which may have been cancelled before it began."""
        session = call.caller.session or ""
        tasks = self._of_session[session]
        expected_usd = tasks.pop(id_).usd
        if not tasks:
            del self._of_session[session]
        if task.cancelled():
            took_s = (self._clock.monotonic_ns() - began_ns) / _NS
            self._ledger.cancelled(id_)
            self._budget.took(id_, took_s, expected_usd)  # nobody knows what was paid by then
            return
        outcome = task.result()
        took_s, usd = outcome.execute_ns / _NS, outcome.cost_usd
        if not outcome.attempts:  # it was there already, or there was no place for it
            self._ledger.withdrawn(id_)
            self._budget.withdrawn(id_)
        elif isinstance(outcome.error, CallCancelledError):
            self._ledger.cancelled(id_, usd)
            self._budget.took(id_, took_s, expected_usd if usd is None else usd)
        else:
            usd = call.plan.cost_usd if usd is None else usd
            self._ledger.took(id_, took_s, usd)
            self._budget.took(id_, took_s, usd)
            if outcome.error is not None:
                self._ledger.gone(id_)
