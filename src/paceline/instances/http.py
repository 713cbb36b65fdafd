"""An agent behind HTTP: one POST a call."""

from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final, Self, cast, final

import msgspec
from msgspec import Meta

from paceline.call import Call, Tokens
from paceline.clock import Clock
from paceline.errors import InvalidInputError
from paceline.instances.address import address
from paceline.instances.arguments import query_and_context
from paceline.instances.endpoint import Answer, Endpoint
from paceline.instances.limits import PROBE_S, left_s
from paceline.instances.metering import used
from paceline.instances.raised import at_instance
from paceline.redaction import Secret

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.rate import Rates

__all__ = ["HttpAgent"]

Count = Annotated[int, Meta(ge=0, le=10**12)]

_MS: Final = 1_000
_NO_CONTENT: Final = 204
_THERE: Final = frozenset({*range(200, 300), *range(402, 500), 400})
"""What a server answers that is there, though not made for HEAD; 401 means that it would refuse
all calls."""
_ENVELOPE: Final = frozenset({"value", "usage"})
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})


class _Usage(msgspec.Struct, frozen=True, gc=False):
    """What an agent says its model calls used, all together."""

    model: str = ""
    input: Count = 0
    output: Count = 0
    cached_input: Count = 0
    cache_write: Count = 0
    reasoning: Count = 0
    cost_usd: Annotated[float, Meta(ge=0)] | None = None


@final
class HttpAgent:
    """Sends calls to an agent elsewhere.

    A call is posted as JSON: `query`, `context` (all other arguments), `caller` (`user`, `session`,
    `tenant`), `call_id`, `trace`, and `deadline_ms`, the milliseconds that are left for it, which
    the header Paceline-Deadline-Ms repeats for what stands in between.

    The answer is `{"value": ...}`, with what it used under `usage` if it likes (the fields of
    `Tokens`, `model` and `cost_usd`), or any other JSON, or plain text.
    """

    __slots__ = ("_clock", "_endpoint", "_probe_url", "_timeout_s")

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        token: Secret | None = None,
        rates: "Rates | None" = None,
        timeout_s: float = 60.0,
        connect_s: float = 5.0,
        most_bytes: int = 16 * 1024**2,
        probe_url: str = "",
    ) -> None:
        """`token` is sent as a bearer token. `timeout_s` is the limit of a call without a deadline,
        `connect_s` that of connecting, `most_bytes` of the answer. `rates` are told the headers
        of answers. `probe_url` answers with success while the agent is there; without one, it is
        there if `url` answers HEAD with any status below 500.

        Raises ConfigError for an address or a token that cannot be used.
        """
        self._endpoint = Endpoint(
            "agent",
            url,
            clock=clock,
            token=token,
            rates=rates,
            connect_s=connect_s,
            most_bytes=most_bytes,
        )
        self._clock = clock
        self._timeout_s = timeout_s
        self._probe_url = address(probe_url) if probe_url else ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.who})"

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
        """What the agent answers. Raises PacelineError."""
        with at_instance(lease):
            return await self._execute(call, lease)

    async def _execute(self, call: Call, lease: "Lease") -> object:
        limit_s = left_s(call, self._clock, self._timeout_s)
        left_ms = max(1, round(limit_s * _MS))
        answer = await self._endpoint.ask(
            "POST",
            self._endpoint.url,
            limit_s,
            body=_body(call, left_ms),
            headers={
                "Accept": "application/json, text/plain;q=0.9, */*;q=0.1",
                "Paceline-Deadline-Ms": str(left_ms),
            },
            lease=lease,
        )
        with closing(answer):
            body = bytearray()
            async for chunk in answer.chunks():
                lease.first_token()
                body += chunk
            return self._value(answer, bytes(body), lease)

    async def probe(self) -> None:
        """Asks it for no work. Raises PacelineError if it is not there."""
        if self._probe_url:
            answer = await self._endpoint.ask("GET", self._probe_url, PROBE_S)
        else:
            answer = await self._endpoint.ask("HEAD", self._endpoint.url, PROBE_S, accepts=_THERE)
        answer.close()

    def _value(self, answer: Answer, body: bytes, lease: "Lease") -> object:
        """What an answer means."""
        kind = answer.kind
        if kind in _PAGES:
            raise self._endpoint.useless("answered with a page for browsers")
        if answer.status == _NO_CONTENT:
            return None
        if kind != "application/json" and not kind.endswith("+json"):
            try:
                return body.decode()
            except UnicodeDecodeError:
                pass
            raise self._endpoint.useless("answered with something that is neither JSON nor text")
        try:
            told = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            told = msgspec.UNSET
        if told is msgspec.UNSET:
            raise self._endpoint.useless("answered with what is not valid JSON")
        if not isinstance(told, dict):
            return cast("object", told)
        fields = cast("dict[str, object]", told)
        if "value" not in fields or not fields.keys() <= _ENVELOPE:
            return fields
        if "usage" in fields:
            _note(fields["usage"], lease)
        return fields["value"]


def _body(call: Call, left_ms: int) -> bytes:
    """A call as JSON. Raises InvalidInputError for arguments that have no form in it."""
    query, context = query_and_context(call)
    told: dict[str, object] = {
        "query": query,
        "context": context,
        "caller": call.caller,
        "deadline_ms": left_ms,
        "call_id": call.id,
        "trace": {"id": call.trace_id, "parent": call.parent_id},
    }
    try:
        return msgspec.json.encode(told)
    except (TypeError, ValueError, RecursionError, OverflowError) as exc:
        raise InvalidInputError(
            f"an argument of {call.name} cannot be sent as JSON: {exc}",
            next_step="Pass plain data (text, numbers, lists, dicts, dates).",
        ) from exc


def _note(told: object, lease: "Lease") -> None:
    """Meters what the agent says it used; what cannot be understood is left out."""
    try:
        usage = msgspec.convert(told, _Usage)
    except msgspec.ValidationError:
        return
    tokens = Tokens(
        usage.input, usage.output, usage.cached_input, usage.cache_write, usage.reasoning
    )
    used(lease, usage.model, tokens, usage.cost_usd)
