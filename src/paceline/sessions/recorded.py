"""Sessions that were kept, as prediction learns from them."""

import json
from collections.abc import Iterable, Iterator, Sequence

from paceline.call import Caller
from paceline.engine.journal import restore
from paceline.history.sessions import SessionSummary
from paceline.messages import AssistantMessage, Message, ToolMessage, ToolUse, UserMessage
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.values import is_object

__all__ = ["called", "caller_of", "events_of", "trajectory"]


def trajectory(kept: SessionSummary, entries: Iterable[bytes], scope: str = "") -> Trajectory:
    """A session that was kept, of which these are the entries. Calls of a turn that was interrupted,
    which the model was not told the results of, are no part of it.

    Raises CodecError for an entry that cannot be read, CorruptStoreError for one of no turn.
    """
    messages = [message for _, message in restore(entries).messages]
    return Trajectory(kept.id, tuple(events_of(messages)), scope=scope)


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
            if message.text:
                yield Said(message.text, by_user=False)
            results: list[ToolMessage] = []
            while place < len(messages) and isinstance(told := messages[place], ToolMessage):
                results.append(told)
                place += 1
            made = map(called, message.uses, results)
            if calls := tuple(call for call in made if call is not None):
                yield Step(calls)


def called(use: ToolUse, told: ToolMessage) -> Called | None:
    """One call and what the model was told of it; None where it was asked for with what are no
    arguments at all, so that nothing was run."""
    arguments = _json(use.arguments.strip() or "{}")
    if not is_object(arguments):
        return None
    return Called(use.name, arguments, told.text if told.failed else _json(told.text), told.failed)


def _json(text: str) -> object:
    """What it is as JSON, else itself."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found
