"""Sessions recorded elsewhere, read for learning and evaluation."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from paceline.errors import InvalidInputError
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.values import is_object

__all__ = ["openai_messages", "trajectories"]

_RESULTS: Final = frozenset({"tool", "function"})
"""The roles of those who answer a call, now and before there were several in one answer."""
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
    arguments: str | dict[str, Any] | None = None


class _Custom(msgspec.Struct):
    name: str
    input: str = ""


class _ToolCall(msgspec.Struct):
    function: _Function | None = None
    custom: _Custom | None = None
    id: str | None = None


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    tool_call_id: str | None = None

    @property
    def calls(self) -> list[_ToolCall]:
        """What it asks for."""
        if self.role != "assistant":
            return []
        return self.tool_calls or ([_ToolCall(self.function_call)] if self.function_call else [])

    @property
    def text(self) -> str:
        """What it says."""
        if isinstance(self.content, str):
            return self.content
        said = (part.text for part in self.content or () if part.type == "text")
        return "\n".join(text for text in said if text is not None)


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
        events = tuple(_answers(_event(heard, number) for heard in run.events))
        yield Trajectory(str(run.id), events, _name(run.task), _name(run.user))


def openai_messages(lines: Iterable[str | bytes]) -> Iterator[Trajectory]:
    """Message logs in the form of OpenAI's chat completions, `{messages: [...]}` one a line, `id`,
    `task` and `user` beside them if known; calls as `function_call`, in older ones, are read too.
    Results are those of the messages with the role tool, or function. A call with arguments that are
    no object has failed, as it does in a session; that of a custom tool has one argument, `input`.

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


def _answers(events: Iterable[Event]) -> Iterator[Event]:
    """What a model says right before it calls is of the same answer. A step without calls is none."""
    said: Said | None = None
    for event in events:
        if isinstance(event, Step):
            if event.calls:
                yield Step(event.calls, said.text if said else "")
                said = None
            continue
        if said is not None:
            yield said
        said = None if event.by_user else event
        if event.by_user:
            yield event
    if said is not None:
        yield said


def _messages(messages: Sequence[_Message], number: int) -> Iterator[Event]:
    results = _results(messages)
    for place, message in enumerate(messages):
        if message.role == "user":
            yield Said(message.text)
        elif calls := message.calls:
            told = (results.get((place, index)) for index in range(len(calls)))
            made = tuple(_called(*each, number) for each in zip(calls, told, strict=True))
            yield Step(made, message.text)
        elif message.role == "assistant" and message.text:
            yield Said(message.text, by_user=False)


def _results(messages: Sequence[_Message]) -> dict[tuple[int, int], str]:
    """What was answered, by the place of the message that asks for it and of the call in that. Ids that
    come again are of the latest who asks; calls of one message that share one, or have none, are answered
    in their order."""
    found: dict[tuple[int, int], str] = {}
    waiting: dict[str | None, deque[tuple[int, int]]] = {}
    for place, message in enumerate(messages):
        calls = message.calls
        waiting |= {call.id or None: deque() for call in calls}
        for index, call in enumerate(calls):
            waiting[call.id or None].append((place, index))
        if message.role in _RESULTS and (asked := waiting.get(message.tool_call_id or None)):
            found[asked.popleft()] = message.text
    return found


def _called(call: _ToolCall, told: str | None, number: int) -> Called:
    result = None if told is None else _json(told)
    if call.custom is not None:
        return Called(call.custom.name, {"input": call.custom.input}, result)
    if call.function is None:
        raise _unreadable(number, "a call names no tool: it has neither function nor custom")
    arguments: object = call.function.arguments or "{}"
    if isinstance(arguments, str):
        arguments = _json(arguments.strip() or "{}")
    if is_object(arguments):
        return Called(call.function.name, arguments, result)
    return Called(call.function.name, {}, told, failed=True)


def _json(text: str) -> Any:
    """What it is as JSON, else itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
