"""Runtimes with nothing of their own, for sessions in virtual time."""

import random
from pathlib import Path
from typing import Any, Final, Self

from paceline import Runtime
from paceline.config import load
from paceline.messages import Hear, ModelReply, ModelRequest, TextPart, ToolUse, UsePart
from paceline.testing.virtual_time import VirtualClock

__all__ = ["BYE", "Said", "Seen", "a_runtime", "asks", "calls", "seen"]

BYE: Final = ModelReply("bye")
Seen = tuple[str, str, str | None]
"""Of a call: its kind, its name, and the parent it has in the tree."""


def a_runtime(
    home: Path | None = None, *, clock: VirtualClock | None = None, **settings: Any
) -> Runtime:
    """One with no agents, which keeps what it keeps in `home`, else nothing. One that keeps something
    is used on a real loop: the thread that writes does not know of virtual time."""
    quiet: dict[str, Any] = {
        "agents": {"watch": False},
        "hostexec": {"mode": "off"},
        "alerts": {"enabled": False},
    }
    return Runtime(
        load(overrides={**quiet, **settings}),
        agents=[],
        home=home,
        persist=home is not None,
        environ={},
        clock=clock or VirtualClock(),
        rng=random.Random(1),
    )


def asks(*names: str, **arguments: str) -> ModelReply:
    """An answer that asks for these tools, each with all these arguments."""
    told = ", ".join(f'"{name}": "{value}"' for name, value in arguments.items())
    return ModelReply(uses=tuple(ToolUse(f"m-{name}", name, f"{{{told}}}") for name in names))


class Said:
    """A model that says what is next, all at once; errors are raised. It can be opened and closed."""

    def __init__(self, *replies: ModelReply | Exception, name: str = "said") -> None:
        self.name = name
        self.replies = list(replies)
        self.requests: list[ModelRequest] = []
        self.open = 0
        self.opened = 0

    async def __aenter__(self) -> Self:
        self.open += 1
        self.opened += 1
        assert self.open == 1, "opened twice"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open -= 1

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        assert self.open == 1, "not open"
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            hear(TextPart("broken "))
            raise reply
        if reply.text:
            hear(TextPart(reply.text))
        for use in reply.uses:
            hear(UsePart(use))
        return reply


def seen(runtime: Runtime) -> list[tuple[Any, Any]]:
    """Every call that is observed from now on, with what came of it."""
    path = runtime._parts.path
    found: list[tuple[Any, Any]] = []
    path._observers = (*path._observers, lambda call, outcome: found.append((call, outcome)))
    return found


def calls(found: list[tuple[Any, Any]]) -> list[Seen]:
    """What was seen, each with its parent's name."""
    names = {call.id: call.name for call, _ in found}
    return [
        (str(call.kind), call.name, names.get(call.tracked_id or call.parent_id))
        for call, _ in found
    ]
