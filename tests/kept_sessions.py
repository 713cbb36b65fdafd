"""Sessions that were kept, made of what was said and called in them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from paceline.clock import Clock
from paceline.engine.journal import Replied, StepEnded, TurnBegan, TurnEnded, write
from paceline.engine.states import ToolCall, ToolStatus, TurnStatus
from paceline.history.sessions import SessionStore
from paceline.messages import ToolUse
from paceline.predict.events import Called, Event, Said, Step

__all__ = ["entries_of", "keep"]


def entries_of(events: Sequence[Event], took_ns: int = 0) -> list[bytes]:
    """The journal of a session in which this happened, each call for so long."""
    entries: list[object] = []
    turn = ""
    for place, event in enumerate(events):
        if isinstance(event, Said) and event.by_user:
            if turn:
                entries.append(TurnEnded(turn, TurnStatus.COMPLETED))
            turn = f"t{place}"
            entries.append(TurnBegan(turn, event.text, 0))
        elif isinstance(event, Step):
            uses = [_use(number, call) for number, call in enumerate(event.calls)]
            entries.append(Replied(turn, event.said, tuple(uses)))
            calls = [
                _ended(use, call, took_ns) for use, call in zip(uses, event.calls, strict=True)
            ]
            entries.append(StepEnded(turn, tuple(calls)))
        else:
            entries.append(Replied(turn, event.text))
    return [write(entry) for entry in entries]  # type: ignore[arg-type]


async def keep(
    path: Path,
    clock: Clock,
    sessions: Mapping[str, Sequence[Event]],
    *,
    user: str | None = None,
    took_ns: int = 0,
) -> None:
    """Keeps sessions, by id, in the file of all of them; each call took so long."""
    path.parent.mkdir(exist_ok=True)
    store = SessionStore(path, clock=clock)
    try:
        for session_id, events in sessions.items():
            await store.open(session_id, user=user)
            for entry in entries_of(events, took_ns):
                await store.append(session_id, entry)
    finally:
        store.close()


def _use(number: int, call: Called) -> ToolUse:
    return ToolUse(f"c{number}", call.name, json.dumps(call.arguments))


def _ended(use: ToolUse, call: Called, took_ns: int) -> ToolCall:
    text = call.result if isinstance(call.result, str) else json.dumps(call.result)
    status = ToolStatus.FAILED if call.failed else ToolStatus.COMPLETED
    error = text if call.failed else ""
    return ToolCall(use.id, use.name, use.arguments, status, text, error, execution_ns=took_ns)
