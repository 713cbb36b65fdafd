"""The models of pydantic-ai as models of ours: every provider that it knows.

::

    model = PydanticAIModel("anthropic:claude-sonnet-4-5")

What a model thinks aloud is left out. Needs the extra `paceline[models]`, and for most providers a
package of theirs, which pydantic-ai names.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, assert_never, cast, final

import msgspec

from paceline.call import Tokens
from paceline.errors import AgentError, Category, ConfigError, PacelineError
from paceline.extras import missing
from paceline.messages import (
    AssistantMessage,
    Hear,
    Message,
    ModelReply,
    ModelRequest,
    SystemMessage,
    TextPart,
    ToolMessage,
    ToolUse,
    UsePart,
    UserMessage,
)
from paceline.redaction import Redactor
from paceline.retry_after import LONGEST_S

if TYPE_CHECKING:
    from pydantic_ai.settings import ModelSettings

try:
    from pydantic_ai import exceptions, messages
    from pydantic_ai.direct import model_request, model_request_stream
    from pydantic_ai.models import Model as TheirModel
    from pydantic_ai.models import ModelRequestParameters, infer_model
    from pydantic_ai.tools import ToolDefinition as TheirTool
    from pydantic_ai.usage import RequestUsage
except ImportError as exc:
    raise missing("models of pydantic-ai need", "pydantic-ai-slim", "models") from exc

__all__ = ["PydanticAIModel"]

_MOST_SHOWN: Final = 300
_UNSENT: Final = frozenset({"pool", "connect"})
_SERVER: Final = 500
_BY_STATUS: Final = {
    401: Category.AUTHENTICATION,
    402: Category.EXHAUSTED,
    403: Category.AUTHENTICATION,
    404: Category.NOT_FOUND,
    408: Category.TIMEOUT,
    429: Category.RATE_LIMIT,
    504: Category.TIMEOUT,
}
_BY_KIND: Final[tuple[tuple[type[Exception], Category], ...]] = (
    (exceptions.ModelQuotaExceededError, Category.EXHAUSTED),
    (exceptions.ModelRateLimitError, Category.RATE_LIMIT),
    (exceptions.ModelUnavailableError, Category.UNAVAILABLE),
    (exceptions.ModelServerError, Category.UNAVAILABLE),
    (exceptions.ModelRequestTimeout, Category.TIMEOUT),
    (exceptions.ModelTimeoutError, Category.TIMEOUT),
    (exceptions.ModelConnectionError, Category.NETWORK),
    (exceptions.ModelAuthenticationError, Category.AUTHENTICATION),
    (exceptions.ModelNotFoundError, Category.NOT_FOUND),
    (exceptions.ModelContextWindowExceededError, Category.TOO_LONG),
    (exceptions.ModelRequestRejectedError, Category.INVALID),
    (exceptions.ContentFilterError, Category.POLICY),
    (exceptions.UserError, Category.INVALID),
    (TimeoutError, Category.TIMEOUT),
    (ConnectionError, Category.NETWORK),
)
"""What is first fits best."""


@final
class PydanticAIModel:
    """A model of pydantic-ai. Entered, it keeps its connections; it works without, too."""

    def __init__(
        self,
        model: TheirModel | str,
        *,
        name: str = "",
        stream: bool = True,
        settings: Mapping[str, object] | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        """`model` is one of theirs, or its name as they write it, "provider:model". `settings` are of
        their ModelSettings, for what a request leaves open. A model that cannot `stream` is asked for
        whole answers. `redactor` knows the secrets that errors may repeat.

        Raises ConfigError for a model that cannot be had: there is none of that name, a package is
        missing, or the key for it.
        """
        try:
            self._model = infer_model(model)
        except (exceptions.UserError, ImportError, ValueError) as exc:
            raise ConfigError(
                f"there is no model {str(model)!r}: {exc}",
                next_step='Give it as "provider:model", with its package and its key.',
            ) from exc
        self._name = name or self._model.model_name
        self._stream = stream
        self._settings = settings or {}
        self._redactor = redactor or Redactor()

    @property
    def name(self) -> str:
        """As it was given, else as the provider calls it."""
        return self._name

    async def __aenter__(self) -> Self:
        await self._model.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._model.__aexit__(kind, error, trace)

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The whole answer. Raises AgentError for all that goes wrong, without a cause: that may hold
        the key."""
        telling = _Telling(hear)
        failure: PacelineError | None = None
        try:
            response = await self._ask(request, telling)
        except PacelineError:
            raise
        except Exception as exc:  # noqa: BLE001 (providers raise what they like: it ends here)
            failure = self._failed(exc)
        else:
            if response.state == "complete":
                return telling.reply(response)
            failure = AgentError(
                f"{self._name} did not complete its answer ({response.state})",
                category=Category.NETWORK,
                may_have_started=True,
            )
        raise failure

    async def _ask(self, request: ModelRequest, telling: "_Telling") -> messages.ModelResponse:
        asked = _messages(request.messages)
        settings = cast("ModelSettings", {**self._settings, **_settings(request)})
        parameters = ModelRequestParameters(
            function_tools=[
                TheirTool(
                    name=tool.name,
                    description=tool.description,
                    parameters_json_schema=dict(tool.parameters),
                )
                for tool in request.tools
            ]
        )
        if not self._stream:
            return await model_request(
                self._model,
                asked,
                model_settings=settings,
                model_request_parameters=parameters,
            )
        async with model_request_stream(
            self._model,
            asked,
            model_settings=settings,
            model_request_parameters=parameters,
        ) as stream:
            async for event in stream:
                telling.event(event)
            return stream.get()

    def _failed(self, exc: Exception) -> PacelineError:
        status = exc.status_code if isinstance(exc, exceptions.ModelHTTPError) else None
        found = next((kind for type_, kind in _BY_KIND if isinstance(exc, type_)), None)
        if found is None and status is not None:
            otherwise = Category.UNAVAILABLE if status >= _SERVER else Category.INVALID
            found = _BY_STATUS.get(status, otherwise)
        wait_s = exc.retry_after if isinstance(exc, exceptions.ModelAPIError) else None
        words = " ".join(self._redactor.text(f"{type(exc).__name__}: {exc}").split())
        shown = words if len(words) <= _MOST_SHOWN else f"{words[:_MOST_SHOWN]}..."
        return AgentError(
            f"{self._name} failed: {shown}",
            next_step="See what its provider says of that.",
            category=found or Category.EXECUTION,
            may_have_started=_may_have_started(exc, status),
            retry_after_s=None if wait_s is None else min(max(0.0, wait_s), LONGEST_S),
        )


@final
class _Telling:
    """Has the parts of an answer heard, and knows which were."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._text: list[str] = []
        self._uses: dict[str, ToolUse] = {}

    def event(self, event: object) -> None:
        """Something of a stream. A tool use is complete when its part ends, though with some providers
        not even then."""
        match event:
            case messages.PartStartEvent(part=messages.TextPart(content=text)):
                self._say(text)
            case messages.PartDeltaEvent(delta=messages.TextPartDelta(content_delta=text)):
                self._say(text)
            case messages.PartEndEvent(part=messages.ToolCallPart() as part):
                if _is_object(_arguments(part)):
                    self._call(part)
            case _:
                pass

    def reply(self, response: messages.ModelResponse) -> ModelReply:
        """The answer as it was heard; what was not heard yet is, now. Raises AgentError where a tool
        use changed after it was heard."""
        if not self._text:
            for part in response.parts:
                if isinstance(part, messages.TextPart):
                    self._say(part.content)
        for part in response.parts:
            if isinstance(part, messages.ToolCallPart):
                self._call(part)
        finish: str = response.finish_reason or ""
        if finish in {"", "stop", "tool_call"}:
            finish = "tools" if self._uses else "stop"
        return ModelReply(
            "".join(self._text),
            tuple(self._uses.values()),
            _tokens(response.usage),
            finish,
            response.model_name or "",
        )

    def _say(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._hear(TextPart(text))

    def _call(self, part: messages.ToolCallPart) -> None:
        use = ToolUse(part.tool_call_id, part.tool_name, _arguments(part))
        heard = self._uses.setdefault(use.id, use)
        if heard is use:
            self._hear(UsePart(use))
        elif heard != use:
            raise AgentError(
                f"two calls of tools have the id {use.id!r}, or one goes on after its end",
                next_step="Look at the provider's own log.",
                may_have_started=True,
            )


def _messages(ours: Sequence[Message]) -> list[messages.ModelMessage]:
    """A conversation as theirs: what is not the model's is of one request until the model speaks."""
    found: list[messages.ModelMessage] = []
    asked: list[messages.ModelRequestPart] = []
    for message in ours:
        if not isinstance(message, AssistantMessage):
            asked.append(_part(message))
            continue
        if asked:
            found.append(messages.ModelRequest(asked))
            asked = []
        said: list[messages.ModelResponsePart] = []
        if message.text:
            said.append(messages.TextPart(message.text))
        said += [messages.ToolCallPart(use.name, use.arguments, use.id) for use in message.uses]
        found.append(messages.ModelResponse(said))
    if asked:
        found.append(messages.ModelRequest(asked))
    return found


def _part(message: SystemMessage | UserMessage | ToolMessage) -> messages.ModelRequestPart:
    match message:
        case SystemMessage(text):
            return messages.SystemPromptPart(text)
        case UserMessage(text):
            return messages.UserPromptPart(text)
        case ToolMessage(use_id, name, text, failed):
            return messages.ToolReturnPart(
                name, text, use_id, outcome="failed" if failed else "success"
            )
        case _:
            assert_never(message)


def _settings(request: ModelRequest) -> dict[str, object]:
    """What the request does not leave open."""
    names = ("temperature", "max_tokens", "seed")
    told = {name: cast("object", getattr(request, name)) for name in names}
    return {name: value for name, value in told.items() if value is not None}


def _tokens(usage: RequestUsage) -> Tokens | None:
    if not usage.has_values():
        return None
    return Tokens(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.output_reasoning_tokens,
    )


def _arguments(part: messages.ToolCallPart) -> str:
    """As the model wrote them; no arguments are an empty object."""
    if isinstance(part.args, str):
        return part.args if part.args.strip() else "{}"
    return msgspec.json.encode(part.args or {}).decode()


def _is_object(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _may_have_started(exc: Exception, status: int | None) -> bool:
    """Whether the provider may have done the work: not if it refused the request, or never got it."""
    if isinstance(exc, exceptions.ModelConnectionError):
        return exc.phase not in _UNSENT
    if isinstance(exc, exceptions.UserError):
        return False
    if isinstance(exc, exceptions.ModelAPIError) and exc.in_stream:
        return True
    return status is None or status >= _SERVER
