"""Requests and replies in the form of OpenAI's chat completions, which most servers speak. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, assert_never

import msgspec

from paceline.errors import AgentError, PacelineError
from paceline.messages import (
    AssistantMessage,
    Message,
    ModelReply,
    ModelRequest,
    SystemMessage,
    ToolDefinition,
    ToolMessage,
    ToolUse,
    UserMessage,
)

__all__ = ["arguments_of", "calls_of", "reply_of", "uses_of"]

_NO_JSON: Final = "invalid_json"
_FINISHES: Final = {"tool_calls": "tools", "function_call": "tools"}
"""What servers say they stopped for, where we have another word for it."""
_OPEN: Final = frozenset({"", "stop", "tools"})
"""Reasons that do not say whether there are tools to call, as servers confuse them."""


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, object] | None = None


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Reply(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    finish_reason: str | None = None


def arguments_of(request: ModelRequest) -> dict[str, object]:
    """The arguments of a call of an instance of kind openai that asks this: plain data, the same for
    equal requests, and with nothing that the request leaves to the model."""
    told: dict[str, object] = {"messages": [_message(message) for message in request.messages]}
    if request.tools:
        told["tools"] = [_tool(tool) for tool in request.tools]
    for name in ("temperature", "max_tokens", "seed"):
        value: float | None = getattr(request, name)
        if value is not None:
            told[name] = value
    return told


def reply_of(message: Mapping[str, object]) -> ModelReply:
    """The reply that a message is, as instances of kind openai answer a call with messages. Tokens are
    not in it: the meter of the call has them.

    Raises AgentError for what is no such message.
    """
    try:
        told = msgspec.convert(message, _Reply)
        uses = _uses(told.tool_calls or ())
    except (msgspec.ValidationError, TypeError, RecursionError) as exc:
        raise _useless(exc) from exc
    if told.refusal and not told.content:
        return ModelReply(told.refusal, uses, finish="refusal")
    why = told.finish_reason or ""
    finish = _FINISHES.get(why, why)
    if finish in _OPEN:
        finish = "tools" if uses else "stop"
    return ModelReply(told.content or "", uses, finish=finish)


def calls_of(uses: Iterable[ToolUse]) -> list[dict[str, object]]:
    """Tool uses as the `tool_calls` of a message.

    Servers read the arguments of earlier calls, and refuse a conversation in which one is no JSON
    object: that goes along as a text in one.
    """
    return [
        {
            "id": use.id,
            "type": "function",
            "function": {"name": use.name, "arguments": _object(use.arguments)},
        }
        for use in uses
    ]


def uses_of(calls: Sequence[Mapping[str, object]]) -> tuple[ToolUse, ...]:
    """The tool uses that the `tool_calls` of a message are. Raises AgentError for what are none."""
    try:
        return _uses(msgspec.convert(calls, list[_ToolCall]))
    except (msgspec.ValidationError, RecursionError) as exc:
        raise _useless(exc) from exc


def _uses(calls: Sequence[_ToolCall]) -> tuple[ToolUse, ...]:
    found: list[ToolUse] = []
    for place, call in enumerate(calls):
        arguments = call.function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if not (arguments or "").strip():
            arguments = "{}"
        found.append(ToolUse(call.id or f"call_{place}", call.function.name, arguments or "{}"))
    return tuple(found)


def _useless(exc: Exception) -> PacelineError:
    return AgentError(
        f"the model answered with something that is no message: {exc}",
        next_step="Look at the log of its server.",
        may_have_started=True,
    )


def _message(message: Message) -> dict[str, object]:
    match message:
        case SystemMessage(text):
            return {"role": "system", "content": text}
        case UserMessage(text):
            return {"role": "user", "content": text}
        case AssistantMessage(text, uses):
            told: dict[str, object] = {"role": "assistant", "content": text}
            if uses:
                told["content"] = text or None
                told["tool_calls"] = calls_of(uses)
            return told
        case ToolMessage(use_id, _, text):
            return {"role": "tool", "tool_call_id": use_id, "content": text}
        case _:
            assert_never(message)


def _tool(tool: ToolDefinition) -> dict[str, object]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def _object(arguments: str) -> str:
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return msgspec.json.encode({_NO_JSON: arguments}).decode()
    return arguments
