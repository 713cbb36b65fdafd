"""Every error Paceline raises, one tree.

::

    PacelineError
    ├── UsageError                  the request itself is wrong; nothing was run
    │   ├── UnknownAgentError       no agent, and no tool of a session, has that name
    │   ├── InvalidInputError       the input cannot be used as it is
    │   ├── UnkeyableError          a value has no canonical form, so it cannot be a cache key
    │   ├── IllegalTransitionError  a session cannot do that in the state it is in
    │   ├── ConfigError             a setting is unknown or has a wrong value
    │   └── RuntimeClosedError      the runtime is not open
    ├── AgentLoadError              an agent module cannot be used; its last good version stays
    ├── CallError                   a call was accepted and did not deliver
    │   ├── AgentError              the agent raised; its exception is the cause
    │   ├── CallTimeoutError        the deadline passed
    │   ├── CallCancelledError      the caller or the closing runtime cancelled
    │   ├── OverloadedError         nothing has capacity for it; `reason` says what is short
    │   └── BudgetExceededError     it would cost, and the money or tokens for it are used up
    ├── HostExecError               a host command was not run, or did not succeed
    │   ├── PolicyError             the policy file cannot be used
    │   ├── CommandDeniedError      the policy refuses the command
    │   ├── CommandFailedError      the command ran and did not succeed
    │   ├── SandboxError            the sandbox is missing or does not hold
    │   ├── AuditError              the audit log cannot be written, so nothing runs
    │   └── ExecServiceError        the host command service refused or cannot be reached
    └── StorageError                a file or database of ours cannot be used
        ├── CorruptStoreError       its content is damaged or not ours
        └── CodecError              a value cannot be stored, or stored bytes cannot be read

An error says what happened (`args[0]`) and what to do about it (`next_step`). Exceptions of
other libraries stop at the module that calls them and travel on as `__cause__`.
"""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

__all__ = [
    "AgentError",
    "AgentLoadError",
    "AuditError",
    "BudgetExceededError",
    "CallCancelledError",
    "CallError",
    "CallTimeoutError",
    "Category",
    "CodecError",
    "CommandDeniedError",
    "CommandFailedError",
    "ConfigError",
    "CorruptStoreError",
    "ExecServiceError",
    "HostExecError",
    "IllegalTransitionError",
    "InvalidInputError",
    "OverloadedError",
    "PacelineError",
    "PolicyError",
    "RuntimeClosedError",
    "SandboxError",
    "Shortage",
    "StorageError",
    "UnkeyableError",
    "UnknownAgentError",
    "UsageError",
]


class Category(StrEnum):
    """What kind of trouble an error is: the label that metrics and retries go by."""

    NETWORK = "network"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    UNAVAILABLE = "unavailable"
    AUTHENTICATION = "authentication"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    POLICY = "policy"
    SANDBOX = "sandbox"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"
    STORAGE = "storage"
    EXECUTION = "execution"
    TOO_LONG = "too_long"
    """A model was shown more than it can read; less may well do."""

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {Category.NETWORK, Category.TIMEOUT, Category.RATE_LIMIT, Category.UNAVAILABLE}
)


class PacelineError(Exception):
    """Root of the tree.

    `next_step` is advice for a person; `may_have_started` says whether the work behind the
    request can have had effects before the error, which decides if repeating it is safe;
    `retry_after_s` is how long the other side asked us to wait, in seconds.
    """

    category: Category = Category.EXECUTION
    advice: ClassVar[str] = "See the cause of this error."

    def __init__(
        self,
        message: str,
        *,
        next_step: str | None = None,
        category: Category | None = None,
        may_have_started: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step or self.advice
        self.may_have_started = may_have_started
        self.retry_after_s = retry_after_s
        if category is not None:
            self.category = category

    def __str__(self) -> str:
        return self.message


class UsageError(PacelineError, ValueError):
    """The request cannot be carried out as it stands; nothing was run."""

    category = Category.INVALID
    advice = "Correct the request and try again."


class UnknownAgentError(UsageError):
    """No agent of that name is registered, or a session has no tool of that name."""

    category = Category.NOT_FOUND
    advice = "List what there is with `paceline agents`."


class InvalidInputError(UsageError):
    """The input cannot be used: empty, too long, or of the wrong type."""


class UnkeyableError(UsageError):
    """A value has no canonical form. Pass plain data, or run the call without the cache."""

    advice = "Pass plain data (text, numbers, lists, dicts, dates), or turn the cache off."


class IllegalTransitionError(UsageError):
    """A session cannot do that in the state it is in; its state is unchanged."""

    advice = "See the session's `state`; a turn that runs can be awaited or cancelled."


class ConfigError(UsageError):
    """A setting is unknown, or its value cannot be used."""

    advice = "Correct the setting; `paceline doctor` shows where each value comes from."


class RuntimeClosedError(UsageError):
    """The runtime was used before it was opened or after it was closed."""

    advice = "Call it inside `async with Runtime() as runtime:`."


class AgentLoadError(PacelineError):
    """An agent module cannot be used; the other agents, and its last good version, still can."""

    category = Category.INVALID
    advice = "Correct the module; it is loaded again as soon as the file changes."


class CallError(PacelineError):
    """A call was accepted and did not deliver a value."""


class AgentError(CallError):
    """The agent raised. `__cause__` is what it raised."""

    advice = "The agent's own error says what failed; `paceline history` shows the call."


class CallTimeoutError(CallError):
    """The deadline of the call, or the time limit of its agent, passed."""

    category = Category.TIMEOUT
    advice = "Allow more time (`timeout=`, `--timeout`, or TIMEOUT in the agent), or ask for less."


class CallCancelledError(CallError):
    """The call was cancelled by its caller or because the runtime is closing."""

    category = Category.CANCELLED
    advice = "Run it again if the result is still wanted."


class Shortage(StrEnum):
    """Why there is no capacity for a call."""

    FULL = "full"
    """All that could take it are at their limits."""
    QUEUE_FULL = "queue_full"
    """They are, and so is the queue before them."""
    SHED = "shed"
    """It waited in the queue and had to make place for what is more urgent."""
    LATE = "late"
    """Its deadline is before its turn can come."""
    UNMATCHED = "unmatched"
    """There are instances, and none can do what it needs."""
    UNHEALTHY = "unhealthy"
    """All instances that could take it are down, ejected, draining or trying to recover."""
    CIRCUIT_OPEN = "circuit_open"
    """What it calls failed too often and is left alone for a while."""
    RATE_LIMIT = "rate_limit"
    """The requests or tokens of this minute are used up."""
    NO_CAPACITY = "no_capacity"
    """The instances there are have a capacity of zero."""
    SPECULATIVE = "speculative"
    """Nobody has asked for it, and there is no place for it that is free now: it does not wait."""


class OverloadedError(CallError):
    """Nothing has capacity for the call. `reason` says what is short; nothing was run.

    `retry_after_s` is when trying again may make sense, where that is known.
    """

    category = Category.EXHAUSTED
    advice = "Try again a little later, or raise the agent's MAX_CONCURRENCY."

    def __init__(
        self,
        message: str,
        *,
        reason: Shortage = Shortage.FULL,
        next_step: str | None = None,
        category: Category | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(
            message, next_step=next_step, category=category, retry_after_s=retry_after_s
        )
        self.reason = reason


class BudgetExceededError(CallError):
    """A budget is used up, so nothing was run that costs. `budget` is its name, or that of the limit
    that a turn of a session reached.

    `resets_at` is when there is money, or are tokens, again; None for the budget of a run or a turn,
    which has an end with that only.
    """

    category = Category.EXHAUSTED
    advice = "`paceline budget` shows what is used; the limits are in [budgets]."

    def __init__(
        self,
        message: str,
        *,
        budget: str,
        resets_at: datetime | None = None,
        next_step: str | None = None,
        may_have_started: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(
            message,
            next_step=next_step,
            may_have_started=may_have_started,
            retry_after_s=retry_after_s,
        )
        self.budget = budget
        self.resets_at = resets_at


class HostExecError(PacelineError):
    """A host command was not run, or did not succeed."""


class PolicyError(HostExecError):
    """The policy file cannot be used; the last good policy, if any, stays in force."""

    category = Category.INVALID
    advice = "Correct the rule that is named; `paceline hostexec check` tests a policy."


class CommandDeniedError(HostExecError):
    """The policy refuses the command. `reason` is a stable word, `detail` the token at fault."""

    category = Category.POLICY
    advice = "`paceline hostexec rules` lists what is allowed."

    def __init__(
        self, message: str, *, reason: str, detail: str = "", next_step: str | None = None
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.reason = reason
        self.detail = detail


class CommandFailedError(HostExecError):
    """The command ran and did not succeed. `result` is what there is of its outcome."""

    advice = "The command's own messages (stderr) say why."

    def __init__(
        self,
        message: str,
        *,
        result: object = None,
        next_step: str | None = None,
        category: Category | None = None,
    ) -> None:
        super().__init__(message, next_step=next_step, category=category, may_have_started=True)
        self.result = result


class SandboxError(HostExecError):
    """The sandbox that was asked for is missing here, or a probe shows that it does not hold."""

    category = Category.SANDBOX
    advice = "Install bubblewrap (Debian: `apt install bubblewrap`), then `paceline doctor`."


class AuditError(HostExecError):
    """The audit log cannot be written. Commands are refused until it can."""

    category = Category.STORAGE
    advice = "Free space on the disk or correct the permissions of the state directory."


class ExecServiceError(HostExecError):
    """The host command service refused the request or could not be reached."""

    category = Category.UNAVAILABLE
    advice = "Start it with `paceline hostexec serve`, or check its address and token."


class StorageError(PacelineError):
    """A file or database of ours cannot be read or written."""

    category = Category.STORAGE
    advice = "Check free space and permissions of the state directory (`paceline doctor`)."


class CorruptStoreError(StorageError):
    """The content of a file is damaged, or the file is not one of ours."""


class CodecError(StorageError):
    """A value has no stored form, or stored bytes cannot be turned back into a value."""

    advice = "Return plain data, or annotate the agent's return type with a dataclass or Struct."
