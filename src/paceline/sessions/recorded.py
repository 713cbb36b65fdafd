"""Sessions that were kept, as prediction learns from them and advice looks at them."""

import json
from collections.abc import Iterable, Iterator, Sequence

from paceline.advise.answers import Answered, Use
from paceline.advise.answers import Event as Told
from paceline.call import Caller
from paceline.engine.journal import Replied, StepEnded, TurnBegan, read, restore
from paceline.engine.states import ToolCall, ToolStatus
from paceline.errors import Category
from paceline.history.sessions import SessionSummary
from paceline.messages import AssistantMessage, Message, ToolMessage, ToolUse, UserMessage
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.values import is_object

__all__ = ["answers_of", "called", "caller_of", "events_of", "trajectory"]


def trajectory(kept: SessionSummary, entries: Iterable[bytes], scope: str = "") -> Trajectory:
    """A session that was kept, of which these are the entries. Calls of a turn that was interrupted,
    which the model was not told the results of, are no part of it.

    Raises CodecError for an entry that cannot be read, CorruptStoreError for one of no turn.
    """
    messages = [message for _, message in restore(entries).messages]
    return Trajectory(kept.id, tuple(events_of(messages)), scope=scope)


def answers_of(entries: Iterable[bytes]) -> Iterator[Told]:
    """What the user said and which tools the answers asked for, with how long these took, in order.
    Raises CodecError for an entry that cannot be read."""
    uses: Sequence[ToolUse] = ()
    last = b""
    for data in entries:
        if data == last:  # it was not known whether it was there
            continue
        last = data
        match read(data):
            case TurnBegan(text=text):
                uses = ()
                yield Said(text)
            case Replied(uses=uses):
                pass
            case StepEnded(calls=calls):
                yield Answered(tuple(map(_used, uses, calls)))
                uses = ()
            case _:
                pass


def caller_of(kept: SessionSummary) -> Caller:
    """On whose behalf it was."""
    return Caller(kept.user, kept.id, kept.tenant)


def events_of(messages: Sequence[Message]) -> Iterator[Event]:
    """What was said and called, in order."""
    place = 0
    while place < len(messages):
        message = messages[place]
        place += 1
        if isinstance(message, UserMessage):
            yield Said(message.text)
        elif isinstance(message, AssistantMessage):
            results: list[ToolMessage] = []
            while place < len(messages) and isinstance(told := messages[place], ToolMessage):
                results.append(told)
                place += 1
            made = map(called, message.uses, results)
            if calls := tuple(call for call in made if call is not None):
                yield Step(calls, message.text)
            elif message.text:
                yield Said(message.text, by_user=False)


def called(use: ToolUse, told: ToolMessage) -> Called | None:
    """One call and what the model was told of it; None where it was asked for with what are no
    arguments at all, so that nothing was run."""
    arguments = _json(use.arguments.strip() or "{}")
    if not is_object(arguments):
        return None
    return Called(use.name, arguments, told.text if told.failed else _json(told.text), told.failed)


def _used(use: ToolUse, call: ToolCall) -> Use:
    failed = call.status not in (ToolStatus.COMPLETED, ToolStatus.CACHED)
    told = ToolMessage(use.id, use.name, call.result, failed)
    refused = call.status is ToolStatus.REJECTED and call.category is Category.INVALID
    why = call.error if refused else None
    return Use(use.name, called(use, told), call.execution_ns, why, call.queue_ns)


def _json(text: str) -> object:
    """What it is as JSON, else itself."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found
