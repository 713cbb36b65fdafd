"""The built-in agent `host_exec`: an allowed command as a call like every other."""

from collections.abc import Sequence
from typing import Final, Protocol, final

from paceline.call import Call, Effect, Plan
from paceline.clock import Clock
from paceline.errors import (
    CallTimeoutError,
    CommandDeniedError,
    CommandFailedError,
    InvalidInputError,
)
from paceline.hostexec.effects import plan
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.hostexec.text import split
from paceline.tags import file_writes

__all__ = ["CommandHost", "HostExecAgent"]

_EARLIER_NS: Final = 100_000_000
_EARLIER_PART: Final = 10
_NS: Final = 1e9


class CommandHost(Protocol):
    """Runs commands: in this process, or through the service."""

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        deadline_ns: int | None = None,
        who: str = "",
    ) -> CommandResult:
        """See HostExec.run."""
        ...


@final
class HostExecAgent:
    """Runs one command line, which the policy has to allow; nothing interprets it.

    The policy says beforehand what a command reads and writes and how long its output stays
    true, so that the call path caches, repeats and invalidates without knowing commands.
    """

    DESCRIPTION = "Runs an allowed command on this host, in a sandbox, and returns its output."
    CAPABILITIES = ("host",)
    TIMEOUT = 330.0  # above every limit of a command: those end it, and say which one it met

    def __init__(
        self,
        host: CommandHost,
        policy: Policy,
        workspace: Workspace,
        *,
        clock: Clock,
        version: str,
        elsewhere: bool = False,
    ) -> None:
        """`version` changes with everything that results depend on beside the command. `elsewhere`:
        the host decides by a policy of its own, which may allow what this one does not."""
        self.VERSION = version
        self.EXAMPLES = {
            rule.allow[0]: rule.about
            for rule in policy.rules
            if rule.about and rule.allow and rule.effect == "read" and (rule.program or elsewhere)
        }
        self._host = host
        self._policy = policy
        self._workspace = workspace
        self._clock = clock
        self._elsewhere = elsewhere

    def plan(self, query: str, **_: object) -> Plan:
        """How the call of this command is to be treated.

        Every command goes to the host, also one that is to be refused: that is audited there.
        """
        try:
            return plan(self._policy.understand(split(query)), self._workspace)
        except InvalidInputError:
            return Plan()
        except CommandDeniedError:
            if not self._elsewhere:
                return Plan()
            return Plan(effect=Effect.write(*file_writes(self._workspace.path)), ttl_s=0)

    async def run(self, query: str, *, call: Call) -> CommandResult:
        """The result of a successful command; raises as HostExec.run does."""
        until_ns = call.deadline_ns
        if until_ns is not None:
            # A little before the caller's time is up, so that what the host says of it arrives.
            until_ns -= max(0, min(_EARLIER_NS, self._left_ns(until_ns) // _EARLIER_PART))
        try:
            return await self._host.run(
                query, deadline_ns=until_ns, who=call.caller.user or "anonymous"
            )
        except (CallTimeoutError, CommandFailedError) as exc:
            no_more_ns = 2 * _EARLIER_NS
            if call.deadline_ns is not None and self._left_ns(call.deadline_ns) < no_more_ns:
                # What is left is for telling, not for another try.
                exc.retry_after_s = no_more_ns / _NS
            raise

    def _left_ns(self, deadline_ns: int) -> int:
        return deadline_ns - self._clock.monotonic_ns()
