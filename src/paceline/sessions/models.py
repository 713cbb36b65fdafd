"""Models as sessions ask them: objects that answer by themselves, and fleets of servers."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import msgspec

from paceline.balance.circuit import Circuit
from paceline.balance.gate import Gate
from paceline.call import Call, Effect, Plan
from paceline.errors import AgentError
from paceline.hearing import speaking
from paceline.messages import ModelReply, ModelRequest
from paceline.models.openai import arguments_of, reply_of
from paceline.path.job import Job
from paceline.sessions.asking import last_said
from paceline.usage import report_usage

if TYPE_CHECKING:
    from paceline.models.model import Model

__all__ = ["DirectModel", "FleetModel", "Sampling"]

T = TypeVar("T")
_SHOWN: Final = 2_000
_TIMEOUT_S: Final = 120.0
_PURE: Final = Effect.pure()


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is asked where the request does not say, and whether its answers are kept.

    `cache` None keeps those of temperature 0 only, since asking again would give the same.
    `timeout_s` None is the limit of the fleet, else 120 seconds.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    cache: bool | None = None
    cache_ttl_s: float = 300.0
    timeout_s: float | None = None

    def of(self, request: ModelRequest) -> ModelRequest:
        """The request with what it leaves open."""
        if self.temperature is None and self.max_tokens is None and self.seed is None:
            return request
        return msgspec.structs.replace(
            request,
            temperature=_either(request.temperature, self.temperature),
            max_tokens=_either(request.max_tokens, self.max_tokens),
            seed=_either(request.seed, self.seed),
        )

    def keeps(self, request: ModelRequest) -> bool:
        """Whether the answer to this request is kept."""
        return request.temperature == 0 if self.cache is None else self.cache

    def plans(self) -> tuple[Plan, Plan]:
        """How calls are to be treated whose answers are not kept, and those whose are. Answers do not
        depend on the world, and asking twice does no harm."""
        return (
            Plan(_PURE, ttl_s=0.0, timeout_s=self.timeout_s),
            Plan(_PURE, ttl_s=self.cache_ttl_s, timeout_s=self.timeout_s),
        )


@final
class DirectModel:
    """A model that answers by itself."""

    def __init__(
        self,
        name: str,
        model: "Model",
        sampling: Sampling,
        *,
        version: str = "",
        free: bool = False,
        gate: Gate | None = None,
        circuit: Circuit | None = None,
    ) -> None:
        """Answers are shared with models of the same `version`, by default those of its kind and
        name. One that runs here is `free`."""
        self.name = name
        self.model = model
        self._sampling = sampling
        self._plans = sampling.plans()
        self._free = free
        self.answered = False
        self._job = Job(
            execute=self._without,
            version=version or f"{type(model).__qualname__}:{model.name}",
            result_type=ModelReply,
            gate=gate,
            timeout_s=sampling.timeout_s or _TIMEOUT_S,
            circuit=circuit,
            heeds=True,
        )

    @property
    def priced_as(self) -> str | None:
        """Prices call it as it calls itself."""
        return None if self._free else self.model.name

    def call(self, request: ModelRequest) -> tuple[Mapping[str, object], Plan, Job]:
        """The whole request is in the arguments if answers are kept, else what was said last."""
        request = self._sampling.of(request)
        plan = self._plans[self._sampling.keeps(request)]
        arguments: Mapping[str, object] = (
            arguments_of(request) if plan.cacheable else {"query": last_said(request)[:_SHOWN]}
        )
        job = msgspec.structs.replace(self._job, execute=functools.partial(self._complete, request))
        return arguments, plan, job

    def reply(self, value: object) -> ModelReply:
        """As it is."""
        return cast("ModelReply", value)

    async def _complete(self, request: ModelRequest, _: Call) -> ModelReply:
        with speaking() as hear:
            reply = await self.model.complete(request, hear)
        if reply.tokens is not None:
            tokens = reply.tokens
            report_usage(
                reply.model or self.model.name,
                input=tokens.input,
                output=tokens.output,
                cached_input=tokens.cached_input,
                cache_write=tokens.cache_write,
                reasoning=tokens.reasoning,
                cost_usd=0.0 if self._free else None,
            )
        return reply

    async def _without(self, call: Call) -> ModelReply:
        raise AgentError(f"{call.name} was called without a request")


@final
class FleetModel:
    """A model behind one or several servers."""

    def __init__(self, name: str, sampling: Sampling, job: Callable[[], Job]) -> None:
        """`job` has a call done by the servers."""
        self.name = name
        self.answered = False
        self._sampling = sampling
        self._plans = sampling.plans()
        self._job = job

    @property
    def priced_as(self) -> str | None:
        """Which model answers the servers say; it may have this name."""
        return self.name

    def call(self, request: ModelRequest) -> tuple[Mapping[str, object], Plan, Job]:
        """Servers choose by the request, and so it is all in the arguments."""
        request = self._sampling.of(request)
        return arguments_of(request), self._plans[self._sampling.keeps(request)], self._job()

    def reply(self, value: object) -> ModelReply:
        """Raises AgentError for a value that is no message."""
        if not isinstance(value, dict):
            raise AgentError(
                f"{self.name} answered with something that is no message",
                next_step="Use instances of kind openai for a model.",
                may_have_started=True,
            )
        return reply_of(cast("dict[str, object]", value))


def _either(one: T | None, other: T | None) -> T | None:
    return other if one is None else one
