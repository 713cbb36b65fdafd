"""Sessions recorded elsewhere, read for learning and evaluation."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from paceline.errors import InvalidInputError
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.values import is_object

__all__ = ["openai_messages", "trajectories"]

T = TypeVar("T")


class _Call(msgspec.Struct):
    name: str
    args: dict[str, Any] = {}
    result: Any = None


class _Heard(msgspec.Struct):
    k: str
    text: str = ""
    calls: list[_Call] = []


class _Run(msgspec.Struct):
    id: str | int
    events: list[_Heard]
    task: str | int | None = None
    user: str | int | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str = ""


class _Part(msgspec.Struct):
    type: str = "text"
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str = ""


class _Log(msgspec.Struct):
    messages: list[_Message]
    id: str | int | None = None
    task: str | int | None = None
    user: str | int | None = None


def trajectories(lines: Iterable[str | bytes]) -> Iterator[Trajectory]:
    """Runs of the form `{id, task, user, events: [{k: user or asst, text} or {k: step, calls:
    [{name, args, result}]}]}`, one a line; what else a line says is passed over.

    Raises InvalidInputError, naming the line, where one is of another form.
    """
    for number, run in _decoded(lines, _Run):
        events = tuple(_event(heard, number) for heard in run.events)
        yield Trajectory(str(run.id), events, _name(run.task), _name(run.user))


def openai_messages(lines: Iterable[str | bytes]) -> Iterator[Trajectory]:
    """Message logs in the form of OpenAI's chat completions, `{messages: [...]}` one a line, `id`,
    `task` and `user` beside them if known. Results are those of the messages with the role tool.

    Raises InvalidInputError, naming the line, where one is of another form.
    """
    for number, log in _decoded(lines, _Log):
        events = tuple(_messages(log.messages, number))
        yield Trajectory(_name(log.id) or str(number), events, _name(log.task), _name(log.user))


def _name(given: str | int | None) -> str:
    return "" if given is None else str(given)


def _decoded(lines: Iterable[str | bytes], form: type[T]) -> Iterator[tuple[int, T]]:
    decoder = msgspec.json.Decoder(form)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, decoder.decode(line)
            except msgspec.MsgspecError as exc:
                raise _unreadable(number, str(exc)) from exc


def _unreadable(number: int, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"line {number} is no recorded session: {why}",
        next_step="Give a file with one session a line, as JSON.",
    )


def _event(heard: _Heard, number: int) -> Event:
    if heard.k == "step":
        return Step(tuple(Called(call.name, call.args, call.result) for call in heard.calls))
    if heard.k in {"user", "asst"}:
        return Said(heard.text, by_user=heard.k == "user")
    raise _unreadable(number, f"an event is {heard.k!r}, and not user, asst or step")


def _messages(messages: Sequence[_Message], number: int) -> Iterator[Event]:
    results = {each.tool_call_id: each for each in messages if each.role == "tool"}
    for message in messages:
        text = _text(message)
        if message.role == "user":
            yield Said(text)
        elif message.role == "assistant":
            if text:
                yield Said(text, by_user=False)
            if message.tool_calls:
                yield Step(tuple(_called(each, results, number) for each in message.tool_calls))


def _text(message: _Message) -> str:
    content = message.content or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if part.type == "text")


def _called(call: _ToolCall, results: Mapping[str, _Message], number: int) -> Called:
    arguments: object = call.function.arguments
    if isinstance(arguments, str):
        arguments = _json(arguments or "{}")
    if not is_object(arguments):
        raise _unreadable(number, f"the arguments of a call of {call.function.name} are no object")
    answer = results.get(call.id)
    return Called(call.function.name, arguments, None if answer is None else _json(_text(answer)))


def _json(text: str) -> Any:
    """What it is as JSON, else itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
