"""What a session works with, and what of it outlasts its turns."""

import random
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, final

import msgspec

from paceline.clock import Clock
from paceline.engine.conversation import Conversation
from paceline.engine.events import Event, tool_changed
from paceline.engine.journal import Journal, Record
from paceline.engine.loops import Loops
from paceline.engine.machine import Machine
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Foresight, Models, Tools
from paceline.engine.states import (
    ConversationTurn,
    ExecutionContext,
    ExecutionPriority,
    ResourceLimits,
    ToolCall,
)
from paceline.engine.watch import Watch

__all__ = ["Means", "Scene", "current_turns"]

_MIB: Final = 1024**2

current_turns: Final[ContextVar[tuple[Record, ...]]] = ContextVar(
    "paceline_current_turns", default=()
)
"""The turns in whose course the running code runs, in whatever task or thread: none of them ends
before that code returns, if it is awaited."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """What a session works with; all but `models` and `tools` can be shared by many.

    `tools` are those of the pipeline, if None. `memory` says how many bytes this process takes; it
    is asked before each step. `foresight` looks ahead. `relieve` gives back what can be spared, such
    as caches, and returns how many bytes that was. `journal` is where the session is written down.
    `run` sets the turns apart from those of other sessions with the same id, where no journal counts
    them on. `ended` is told of each turn that is over.
    """

    models: Models
    pipeline: ToolPipeline
    clock: Clock
    rng: random.Random
    tools: Tools | None = None
    journal: Journal | None = None
    run: str = ""
    memory: Callable[[], int] | None = None
    relieve: Callable[[], int] | None = None
    ended: Callable[[ConversationTurn], object] | None = None
    foresight: Foresight | None = None

    def look_at_memory(self, limits: ResourceLimits) -> int:
        """Has fewer tools run at once while the process takes much; how many bytes it takes if that is
        more than it may, else 0."""
        if self.memory is None:
            return 0
        used = self.memory()
        share = used / (limits.max_memory_mb * _MIB)
        self.pipeline.observe_memory(share)
        return used if share >= 1 else 0


@final
class Scene(msgspec.Struct, kw_only=True, eq=False):
    """What of a session outlasts its turns."""

    context: ExecutionContext
    limits: ResourceLimits
    machine: Machine
    conversation: Conversation
    loops: Loops
    priority: ExecutionPriority = ExecutionPriority.NORMAL
    watches: tuple[Watch[Event], ...] = ()

    def tell(self, event: Event) -> None:
        """Tells everybody who watches. Ask for `watches` before the event is made."""
        for watch in self.watches:
            watch.put(event)

    def tool_changed(self, call: ToolCall) -> None:
        """Tells them how far a tool use is."""
        self.tell(tool_changed(call))
