"""The line that says what a session does right now. Pure: it is told events, and the time."""

from typing import Final, final

from paceline.cli.output import as_text, harmless
from paceline.engine.events import Event, StateChanged, ToolChanged, TurnEnded
from paceline.engine.states import AgentState, ToolStatus

__all__ = ["Status"]

_NS: Final = 1_000_000_000
_WORDS: Final = {
    AgentState.PROCESSING_PROMPT: "waiting for the model",
    AgentState.GENERATING_RESPONSE: "answering",
    AgentState.EXECUTING_TOOLS: "running tools",
    AgentState.ERROR: "trying again",
}


@final
class Status:
    """Where a session is, since when, and which tools run."""

    def __init__(self) -> None:
        self._state = AgentState.IDLE
        self._since_ns = 0
        self._running: dict[str, str] = {}
        self._cancelling = False
        self._trouble = ""

    def event(self, event: Event, now_ns: int) -> None:
        """Something happened at this moment of the monotonic clock."""
        if isinstance(event, StateChanged):
            self._state = event.transition.to_state
            self._since_ns = now_ns
            trouble = event.transition.trouble
            self._trouble = "" if trouble is None else " ".join(as_text(trouble.message).split())
        elif isinstance(event, ToolChanged):
            if event.status is ToolStatus.RUNNING:
                self._running[event.call_id] = event.tool_name
            else:
                self._running.pop(event.call_id, None)
        elif isinstance(event, TurnEnded):
            self._state = AgentState.IDLE
            self._running.clear()
            self._cancelling = False

    def cancelling(self, now_ns: int) -> None:
        """The turn is being cancelled from this moment on."""
        self._cancelling = True
        self._since_ns = now_ns

    def line(self, now_ns: int) -> str:
        """The state, whole seconds in it, and the tools that run or what went wrong; nothing while no turn runs, or
        where a person is waited for."""
        words = _WORDS.get(self._state)
        if words is None:
            return ""
        if self._cancelling:
            words = "cancelling"
        passed_s = max(0, now_ns - self._since_ns) // _NS
        tools = ", ".join(self._running.values())
        what = self._trouble or tools
        return harmless(f"{words} {passed_s}s" + (f": {what}" if what else ""))
