"""The models of a session, asked on the one call path."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, cast, final

import msgspec

from paceline.call import Call, Caller, Kind, Outcome, Plan, Priority, Scope, Tokens
from paceline.clock import Clock
from paceline.engine.states import ExecutionContext
from paceline.errors import Category, PacelineError
from paceline.hearing import Floor, current_floor, nobody
from paceline.messages import AssistantMessage, Hear, ModelReply, ModelRequest
from paceline.path.calls import Calls
from paceline.path.job import Job
from paceline.pricing import PriceList, day_of
from paceline.sessions.toolbox import Run
from paceline.sessions.turns import place_of

__all__ = ["Ahead", "Asked", "ModelCalls", "last_said"]

_NS: Final = 1_000_000_000
_CHARACTERS: Final = 4
"""Of a token, about."""
_ANSWER: Final = 1_000
"""Tokens that an answer is held to have, where nobody has seen one."""
_ANOTHER_MAY: Final = frozenset(
    {
        Category.AUTHENTICATION,
        Category.EXECUTION,
        Category.EXHAUSTED,
        Category.NETWORK,
        Category.NOT_FOUND,
        Category.RATE_LIMIT,
        Category.TIMEOUT,
        Category.UNAVAILABLE,
    }
)
"""Troubles of one model that another need not have."""


class Asked(Protocol):
    """One model, as it is asked."""

    @property
    def name(self) -> str:
        """What figures call it."""
        ...

    @property
    def priced_as(self) -> str | None:
        """What prices are likely to call it; None for one that costs nothing."""
        ...

    answered: bool
    """Whether it has ever answered in this process."""

    def call(self, request: ModelRequest) -> tuple[Mapping[str, object], Plan, Job]:
        """The arguments of a call with this request, how it is treated and what it runs."""
        ...

    def reply(self, value: object) -> ModelReply:
        """The answer that the value of a call is. Raises PacelineError for what is none."""
        ...


class Ahead(NamedTuple):
    """A call that asks a model ahead. `usd` is about what it costs, by the prices there are; None where
    it may cost something, and no price says how much."""

    call: Call
    job: Job
    usd: float | None


@final
class ModelCalls:
    """Asks the models of a session: the first, and if that cannot answer the next ones."""

    __slots__ = ("_caller", "_calls", "_clock", "_models", "_prices", "_priority", "_run", "_scope")

    def __init__(
        self,
        models: Sequence[Asked],
        *,
        run: Run,
        calls: Calls,
        caller: Caller,
        clock: Clock,
        priority: Priority = Priority.NORMAL,
        prices: PriceList | None = None,
    ) -> None:
        """`models`, one at least, are asked in this order. `run` is the call path."""
        self._models = tuple(models)
        self._run = run
        self._calls = calls
        self._caller = caller
        self._scope = Scope.of(caller, None)
        self._clock = clock
        self._priority = priority
        self._prices = PriceList() if prices is None else prices

    def at(self, priority: Priority) -> "ModelCalls":
        """The same, more or less urgent."""
        return ModelCalls(
            self._models,
            run=self._run,
            calls=self._calls,
            caller=self._caller,
            clock=self._clock,
            priority=priority,
            prices=self._prices,
        )

    @property
    def answered(self) -> bool:
        """Whether the first has ever answered in this process, to whomever."""
        return self._models[0].answered

    def fallbacks(self) -> Sequence[str]:
        """The models after the first."""
        return [model.name for model in self._models[1:]]

    async def ask(
        self,
        request: ModelRequest,
        context: ExecutionContext,
        *,
        hear: Hear | None,
        timeout_s: float | None,
    ) -> Outcome:
        """What came of it; of the last model that was asked, where several were, with what all of
        them used. Where none could answer the error is that of the first, which is the one to wait
        for."""
        deadline_ns = (
            None if timeout_s is None else self._clock.monotonic_ns() + round(timeout_s * _NS)
        )
        floor = Floor(hear or nobody)
        outcome = await self._ask(floor, self._models[0], request, context, deadline_ns)
        first = outcome.error
        for model in self._models[1:]:
            if first is None or not self._another_may(outcome.error, deadline_ns):
                break
            floor = Floor(hear or nobody, again=floor.heard)
            following = await self._ask(floor, model, request, context, deadline_ns)
            outcome = _after(outcome, following, first)
        return outcome

    def _another_may(self, error: PacelineError | None, deadline_ns: int | None) -> bool:
        """Whether a model may do what another could not, and there is time for it."""
        if error is None or error.category not in _ANOTHER_MAY:
            return False
        return deadline_ns is None or self._clock.monotonic_ns() < deadline_ns

    async def _ask(
        self,
        floor: Floor,
        asked: Asked,
        request: ModelRequest,
        context: ExecutionContext,
        deadline_ns: int | None,
    ) -> Outcome:
        """What comes of asking one model, who has this floor as long as that is awaited."""
        call, job = self._call(asked, request, context, deadline_ns)
        token = current_floor.set(floor)
        try:
            outcome = await self._run(call, job)
            if outcome.error is None:
                if type(outcome.value) is not ModelReply:
                    outcome = _read(asked, outcome)
                if outcome.error is None:
                    floor.settle(cast("ModelReply", outcome.value))
                    asked.answered = asked.answered or outcome.attempts > 0
            return outcome
        finally:
            floor.close()
            current_floor.reset(token)

    def _call(
        self,
        asked: Asked,
        request: ModelRequest,
        context: ExecutionContext,
        deadline_ns: int | None,
    ) -> tuple[Call, Job]:
        arguments, plan, job = asked.call(request)
        parent_id, trace_id, tracked_id, _ = place_of(context.turn_id)
        call = Call(
            self._calls.next_id(),
            Kind.MODEL,
            asked.name,
            arguments,
            self._caller,
            self._scope if plan.scope is None else Scope.of(self._caller, plan.scope),
            plan,
            self._priority,
            deadline_ns,
            parent_id,
            trace_id,
            tracked_id,
        )
        return call, job

    def ahead(self, request: ModelRequest, context: ExecutionContext) -> Ahead | None:
        """What asks the first model, if its answer is kept for who asks the same later."""
        call, job = self._call(self._models[0], request, context, None)
        if not call.plan.cacheable:
            return None
        usd = self._usd(self._models[0].priced_as, call.arguments)
        return Ahead(msgspec.structs.replace(call, priority=Priority.SPECULATIVE), job, usd)

    def _usd(self, model: str | None, arguments: Mapping[str, object]) -> float | None:
        """About what asking it once costs. Where there are no prices nothing is held to cost."""
        if model is None or not self._prices:
            return 0.0
        read, most = len(msgspec.json.encode(arguments)) // _CHARACTERS, arguments.get("max_tokens")
        said = min(most, _ANSWER) if isinstance(most, int) else _ANSWER
        cost = self._prices.cost(model, Tokens(read, said), day_of(self._clock.wall_ns()))
        return None if cost is None else cost.cost_usd

    def reply(self, outcome: Outcome) -> ModelReply | None:
        """What the first model answered to that; None if it did not."""
        if outcome.error is None and type(outcome.value) is not ModelReply:
            outcome = _read(self._models[0], outcome)
        return outcome.value if isinstance(outcome.value, ModelReply) else None


def _read(asked: Asked, outcome: Outcome) -> Outcome:
    """With the answer that its value is."""
    try:
        return msgspec.structs.replace(outcome, value=asked.reply(outcome.value))
    except PacelineError as exc:
        return msgspec.structs.replace(outcome, value=None, error=exc)


def _after(before: Outcome, outcome: Outcome, first: PacelineError) -> Outcome:
    """The outcome of a model that was asked after others, with the error of the `first`. What they
    used counts too."""
    tokens, cost_usd = before.tokens, before.cost_usd
    if tokens is not None:
        tokens = tokens if outcome.tokens is None else tokens.plus(outcome.tokens)
    if cost_usd is not None:
        cost_usd += outcome.cost_usd or 0.0
    return msgspec.structs.replace(
        outcome,
        tokens=outcome.tokens if tokens is None else tokens,
        cost_usd=outcome.cost_usd if cost_usd is None else cost_usd,
        error=_error_of(outcome.error, first),
        instead_of=first if outcome.error is None else None,
    )


def _error_of(error: PacelineError | None, first: PacelineError) -> PacelineError | None:
    """That of the first model, but for one of another that is asked again with less."""
    return error if error is None or error.category is Category.TOO_LONG else first


def last_said(request: ModelRequest) -> str:
    """What the model is to answer: the messages since it spoke last, as one text."""
    said: list[str] = []
    for message in reversed(request.messages):
        if isinstance(message, AssistantMessage):
            break
        said.append(message.text)
    return "\n".join(reversed(said))
