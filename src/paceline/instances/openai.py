"""A model behind a server that speaks OpenAI's chat completions."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

import msgspec

from paceline.call import Call
from paceline.clock import Clock
from paceline.errors import AgentError, CallTimeoutError, Category, InvalidInputError, PacelineError
from paceline.hearing import speaking
from paceline.instances.address import below
from paceline.instances.completion import Completion
from paceline.instances.endpoint import Answer, Endpoint
from paceline.instances.events import Events
from paceline.instances.limits import PROBE_S, left_s
from paceline.instances.metering import used
from paceline.instances.prompts import messages_of
from paceline.instances.raised import at_instance
from paceline.instances.refusals import category_of, status_of
from paceline.messages import Hear, Part
from paceline.redaction import Secret

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.rate import Rates

__all__ = ["OpenAITarget"]

_ENDS: Final = b"[DONE]"
_SHOWN: Final = 200
_LISTED: Final = frozenset({*range(200, 300), 405, 501})
"""Statuses by which a server is there: it lists its models, or says that it knows no such request."""
_THERE: Final = _LISTED | {404}
"""Of one that has answered: its address is right."""
_TAIL_S: Final = 0.25
"""How long the end of the connection's answer is waited for, to use it again."""
_OURS: Final = frozenset({"model", "n", "stream", "stream_options"})
_LIMITS: Final = frozenset({"max_completion_tokens", "max_tokens"})
_CUT: Final = {"content_filter": Category.POLICY, "length": Category.EXHAUSTED}
_PROMPT: Final = frozenset({"messages", "query", "system"})


@final
class OpenAITarget:
    """Asks a model for its answer, which is streamed: so it is seen when it begins, and where it
    stops.

    A call has a `query` (text), for the text of the answer, or `messages`, for the message, as a
    dict with `role`, `content`, `finish_reason`, and `tool_calls` where there are any. All other
    arguments are options of the request, such as `temperature` and `tools`; `system` goes before
    the query.

    An answer that breaks off is an error, never a shorter answer.
    """

    __slots__ = (
        "_answered",
        "_clock",
        "_endpoint",
        "_first_token_s",
        "_model",
        "_stall_s",
        "_timeout_s",
    )

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        clock: Clock,
        token: Secret | None = None,
        rates: "Rates | None" = None,
        timeout_s: float = 60.0,
        first_token_s: float = 60.0,
        stall_s: float = 30.0,
    ) -> None:
        """`base_url` is what `/chat/completions` follows, such as "http://127.0.0.1:8000/v1".

        `token` is sent as a bearer token, and `rates` are told the headers of answers. In seconds:
        `timeout_s` is the limit of a call without a deadline, `first_token_s` of waiting for the
        beginning of the answer, `stall_s` of each pause in it.

        Raises ConfigError for an address or a token that cannot be used.
        """
        self._endpoint = Endpoint(
            "model server",
            base_url,
            clock=clock,
            token=token,
            rates=rates,
            category_of=category_of,
        )
        self._clock = clock
        self._model = model
        self._timeout_s = timeout_s
        self._first_token_s = first_token_s
        self._stall_s = stall_s
        self._answered = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r}, {self._endpoint.who})"

    async def __aenter__(self) -> Self:
        self._endpoint.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._endpoint.close()

    async def execute(self, call: Call, lease: "Lease") -> object:
        """The model's answer. Raises PacelineError. Whoever listens hears its parts as they come."""
        with at_instance(lease):
            return await self._execute(call, lease)

    async def _execute(self, call: Call, lease: "Lease") -> object:
        limit_s = left_s(call, self._clock, self._timeout_s)
        body = self._body(call)
        with speaking() as hear:
            completion = await self._complete(body, limit_s, lease, hear)
            self._tell(completion.end, hear)
            self._answered = True
            return self._value(call, completion)

    async def probe(self) -> None:
        """Asks for its list of models, which costs nothing. Raises PacelineError if it is not there. A
        server that has answered is there without such a list, too."""
        url, accepts = below(self._endpoint.url, "models"), _THERE if self._answered else _LISTED
        (await self._endpoint.ask("GET", url, PROBE_S, accepts=accepts)).close()

    async def _complete(
        self, body: bytes, limit_s: float, lease: "Lease", hear: Hear
    ) -> Completion:
        """All that is answered to a request."""
        completion = Completion()
        patience = asyncio.timeout(self._first_token_s)
        try:
            async with patience:
                answer = await self._endpoint.ask(
                    "POST",
                    below(self._endpoint.url, "chat/completions"),
                    limit_s,
                    body=body,
                    headers={"Accept": "text/event-stream, application/json;q=0.9"},
                    lease=lease,
                )
                with closing(answer):
                    await self._read(answer, completion, lease, patience, hear)
        except TimeoutError as exc:
            if not completion.finish_reason:  # else only the end of the connection's answer is late
                raise self._silent(completion) from exc
        finally:
            if completion.tokens is not None:
                used(lease, self._model, completion.tokens)
        return completion

    def _body(self, call: Call) -> bytes:
        """The request. Raises InvalidInputError for a call that cannot be made one."""
        messages = messages_of(call)
        arguments = call.arguments
        if refused := sorted(_OURS.intersection(arguments)):
            raise InvalidInputError(
                f"{', '.join(refused)} cannot be chosen in a call of {call.name}",
                next_step="Leave it out: the model is that of the instance, its answer is one.",
            )
        told: dict[str, object] = {
            "model": self._model,
            "messages": messages,
            **{name: value for name, value in arguments.items() if name not in _PROMPT},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            return msgspec.json.encode(told)
        except (TypeError, ValueError, RecursionError, OverflowError) as exc:
            raise InvalidInputError(
                f"an argument of {call.name} cannot be sent as JSON: {exc}",
                next_step="Pass plain data (text, numbers, lists, dicts).",
            ) from exc

    async def _read(
        self,
        answer: Answer,
        completion: Completion,
        lease: "Lease",
        patience: asyncio.Timeout,
        hear: Hear,
    ) -> None:
        """Reads an answer to its end. Raises PacelineError where it has none, or none of sense."""
        if answer.kind == "application/json":  # it does not stream
            self._add(completion, await answer.body(), hear)
            lease.first_token()
        elif answer.kind == "text/event-stream":
            await self._stream(answer, completion, lease, patience, hear)
        else:
            raise self._endpoint.useless("answered with something that is no completion")
        if not completion.finish_reason:
            raise self._endpoint.unfinished()

    async def _stream(
        self,
        answer: Answer,
        completion: Completion,
        lease: "Lease",
        patience: asyncio.Timeout,
        hear: Hear,
    ) -> None:
        events, loop = Events(), asyncio.get_running_loop()
        async for chunk in answer.chunks():
            for event in events.feed(chunk):
                if event == _ENDS:
                    completion.finish_reason = completion.finish_reason or "stop"
                    patience.reschedule(loop.time() + _TAIL_S)
                    await answer.drain()
                    return
                self._add(completion, event, hear)
                if completion.begun:
                    lease.first_token()
                    patience.reschedule(loop.time() + self._stall_s)

    def _add(self, completion: Completion, data: bytes, hear: Hear) -> None:
        self._tell(functools.partial(completion.add, data), hear)
        if completion.error:
            status = status_of(completion.error)
            raise self._endpoint.refusal(status, completion.error, started=True)

    def _tell(self, more: Callable[[], Sequence[Part]], hear: Hear) -> None:
        """Has the parts heard that there are more of. Raises AgentError where it makes no sense."""
        failure: PacelineError | None = None
        parts: Sequence[Part] = ()
        try:
            parts = more()
        except ValueError:
            failure = self._endpoint.useless("answered with something that is no completion")
        if failure is not None:
            raise failure
        for part in parts:
            hear(part)

    def _silent(self, completion: Completion) -> PacelineError:
        who = self._endpoint.who
        if completion.begun:
            what = f"{who} stopped for {self._stall_s:g} s in the middle of its answer"
        else:
            what = f"{who} did not begin to answer within {self._first_token_s:g} s"
        return CallTimeoutError(what, may_have_started=True)

    def _value(self, call: Call, completion: Completion) -> object:
        """What is made of a complete answer. Raises AgentError for one that is of no use."""
        why = completion.finish_reason
        if "messages" in call.arguments and not completion.empty:
            return completion.message()
        cut = why in _CUT and not (why == "length" and not _LIMITS.isdisjoint(call.arguments))
        if completion.text and not cut:
            return completion.text
        if cut or completion.empty:
            what = f"cut its answer short ({why})" if completion.text else f"gave no answer ({why})"
            category = _CUT.get(why, Category.UNAVAILABLE)
        elif completion.refusal:
            what, category = f"refuses: {completion.refusal[:_SHOWN]}", Category.POLICY
        else:
            what, category = "wants tools called in place of an answer", Category.EXECUTION
        raise AgentError(
            f"{self._endpoint.who} {what}",
            next_step="Pass messages=, to be given whatever the model answers.",
            category=category,
            may_have_started=True,
        )
