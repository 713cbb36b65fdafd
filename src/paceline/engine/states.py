"""The words of a session: its states, what moves it from one to another, and what is told of it."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec

from paceline.call import Priority, Tokens
from paceline.errors import Category
from paceline.resources import ResourceUsage

__all__ = [
    "AgentContext",
    "AgentState",
    "ConversationTurn",
    "ExecutionContext",
    "ExecutionPriority",
    "PerformanceHints",
    "PredictedCall",
    "ResourceLimits",
    "StateTransition",
    "ToolCall",
    "ToolExecutionState",
    "ToolStatus",
    "TransitionTrigger",
    "Trouble",
    "TurnStatus",
]


class AgentState(StrEnum):
    """Where a session is."""

    IDLE = "idle"
    """No turn runs."""
    PROCESSING_PROMPT = "processing_prompt"
    """A model is asked, and has said nothing yet."""
    GENERATING_RESPONSE = "generating_response"
    """The model's answer comes in."""
    EXECUTING_TOOLS = "executing_tools"
    AWAITING_APPROVAL = "awaiting_approval"
    """A tool must not run before somebody says so."""
    WAITING_FOR_USER = "waiting_for_user"
    """A tool has a question that only the user can answer."""
    ERROR = "error"
    """Something failed in the turn, and it is decided whether it goes on."""
    SHUTDOWN = "shutdown"
    """The end; no state comes after it."""


class TransitionTrigger(StrEnum):
    """Why a session moves from one state to another."""

    USER_INPUT = "user_input"
    RESPONSE_STARTED = "response_started"
    TOOLS_REQUESTED = "tools_requested"
    TOOL_COMPLETION = "tool_completion"
    """All tools of one answer have ended, however."""
    APPROVAL_NEEDED = "approval_needed"
    APPROVAL_DECIDED = "approval_decided"
    QUESTION = "question"
    RESPONSE_READY = "response_ready"
    TOOL_FAILURE = "tool_failure"
    TIMEOUT = "timeout"
    RESOURCE_LIMIT = "resource_limit"
    RATE_LIMIT = "rate_limit"
    INTERNAL_ERROR = "internal_error"
    RECOVERED = "recovered"
    GAVE_UP = "gave_up"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """What is wrong in the state ERROR. `origin` is the state it came from, and goes back to; `again_s`
    are the seconds until it is tried again, None if it is not."""

    category: Category
    message: str
    retryable: bool
    origin: AgentState
    attempt: int = 1
    again_s: float | None = None


class StateTransition(msgspec.Struct, frozen=True, gc=False):
    """One move. `at_ns` is wall time; `in_state_ns` how long the state before lasted; `turn_id` ties
    those of one turn together."""

    from_state: AgentState
    to_state: AgentState
    trigger: TransitionTrigger
    at_ns: int
    in_state_ns: int
    turn_id: str = ""
    trouble: Trouble | None = None


class ToolStatus(StrEnum):
    """How far the execution of a tool is."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    CACHED = "cached"
    """Answered without an execution of its own."""
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    """Not run: refused by a person, a limit, or for its arguments."""

    @property
    def terminal(self) -> bool:
        """Whether it has ended."""
        return self is not ToolStatus.QUEUED and self is not ToolStatus.RUNNING


class ToolExecutionState(msgspec.Struct, frozen=True, gc=False):
    """One execution of a tool, as it is now. Times are wall time; `estimated_ns` is when it may be
    over, where that is known."""

    call_id: str
    tool_name: str
    status: ToolStatus
    queued_ns: int
    started_ns: int | None = None
    ended_ns: int | None = None
    estimated_ns: int | None = None
    resources: ResourceUsage | None = None


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """One tool use of a turn, and what came of it. `id` is unique in the session; `args` is the JSON
    that the model wrote; `result` is what the model is told."""

    id: str
    tool_name: str
    args: str
    status: ToolStatus = ToolStatus.QUEUED
    result: str = ""
    error: str = ""
    category: Category | None = None
    attempts: int = 0
    source: str = ""
    queue_ns: int = 0
    execution_ns: int = 0
    resources: ResourceUsage | None = None
    cost_usd: float | None = None

    @property
    def cached(self) -> bool:
        """Whether it was answered without an execution of its own."""
        return self.status is ToolStatus.CACHED


class TurnStatus(StrEnum):
    """How a turn is, or ended."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ConversationTurn(msgspec.Struct, frozen=True, gc=False):
    """One message of the user and all that was done for it. `at_ns` is wall time."""

    id: str
    user_message: str
    agent_response: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    status: TurnStatus = TurnStatus.RUNNING
    at_ns: int = 0
    execution_ns: int | None = None
    steps: int = 0
    tokens: Tokens | None = None
    cost_usd: float | None = None
    models: tuple[str, ...] = ()
    error: str = ""
    category: Category | None = None
    finish: str = ""
    """What the model stopped for at last: "stop", or such as "length" for an answer that was cut off."""

    def taking(self, tokens: Tokens | None, cost_usd: float | None) -> "ConversationTurn":
        """The same, having used so much more."""
        if tokens is not None and self.tokens is not None:
            tokens = self.tokens.plus(tokens)
        if cost_usd is not None:
            cost_usd += self.cost_usd or 0.0
        return msgspec.structs.replace(
            self,
            tokens=self.tokens if tokens is None else tokens,
            cost_usd=self.cost_usd if cost_usd is None else cost_usd,
        )


class PredictedCall(msgspec.Struct, frozen=True, gc=False):
    """A call that is likely to come. `expected_ns` is how long it takes and `expected_usd` what it
    costs, in US dollars, as far as that is known."""

    tool_name: str
    arguments: str
    probability: float
    expected_ns: int = 0
    expected_usd: float = 0.0


class PerformanceHints(msgspec.Struct, frozen=True, gc=False):
    """What is known ahead of a turn."""

    predicted_tool_sequence: tuple[PredictedCall, ...] = ()
    cache_warming_candidates: tuple[PredictedCall, ...] = ()
    parallel_execution_groups: tuple[tuple[str, ...], ...] = ()
    resource_intensive_tools: tuple[str, ...] = ()
    expected_ns: Mapping[str, int] = {}
    """How long tools take, by name, of those of which that is known."""


class ResourceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a session may take. A limit of 0 is none, but for the first three."""

    max_concurrent_tools: int = 4
    max_memory_mb: int = 1024
    """Of this process; beyond it caches are shed, and fewer tools run at once."""
    max_execution_s: float = 300.0
    """One turn, with all its calls."""
    max_tool_retries: int = 3
    """After the first attempt."""
    max_steps: int = 50
    """Answers of the model in one turn."""
    max_tool_calls: int = 0
    """Of one turn."""
    max_fan_out: int = 64
    """Tool uses of one answer; the model is told that the others were not run."""
    max_turn_tokens: int = 0
    max_turn_usd: float = 0.0
    max_session_tokens: int = 0
    """Of all turns together, those of earlier runs included; once they are used up no message is
    answered."""
    max_session_usd: float = 0.0
    max_turns_kept: int = 100
    """Turns of the conversation that the model still sees."""
    max_context_tokens: int = 0
    """Of the conversation, by estimate."""
    approval_timeout_s: float = 0.0
    """How long a turn waits for a person."""
    max_recoveries: int = 3
    """Of one turn, from troubles of one kind."""


class AgentContext(msgspec.Struct, frozen=True):
    """A session at one moment: what it was, not what it becomes."""

    session_id: str
    current_state: AgentState
    conversation_history: tuple[ConversationTurn, ...]
    active_tools: Mapping[str, ToolExecutionState]
    """Of the answer that the running turn is at, by the id of their call."""
    performance_hints: PerformanceHints
    resource_limits: ResourceLimits


class ExecutionPriority(IntEnum):
    """How urgent a tool request is."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3

    @property
    def priority(self) -> Priority:
        """The same as calls have it; what is critical goes among the urgent."""
        return Priority(min(self.value + 1, Priority.HIGH)) if self else Priority.LOW


class ExecutionContext(msgspec.Struct, frozen=True, gc=False):
    """For whom and in which course a tool runs. `workspace` is the directory that its relative
    paths belong to, where it has one."""

    session_id: str
    user_id: str | None = None
    tenant: str | None = None
    turn_id: str = ""
    trace_id: str = ""
    parent_id: str | None = None
    workspace: str = ""
