"""The built-in agent `host_exec`: an allowed command as a call like every other."""

from collections.abc import Sequence
from typing import Protocol, final

from paceline.call import Call, Plan
from paceline.errors import CommandDeniedError, InvalidInputError
from paceline.hostexec.effects import plan
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox.workspace import Workspace

__all__ = ["CommandHost", "HostExecAgent"]


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

    def __init__(self, host: CommandHost, policy: Policy, workspace: Workspace) -> None:
        self.VERSION = policy.digest
        self._host = host
        self._policy = policy
        self._workspace = workspace

    def plan(self, query: str, **_: object) -> Plan:
        """How the call of this command is to be treated."""
        try:
            return plan(self._policy.decide_line(query), self._workspace)
        except (CommandDeniedError, InvalidInputError):
            # It goes to the host all the same: what is refused there is also audited.
            return Plan()

    async def run(self, query: str, *, call: Call) -> CommandResult:
        """The result of a successful command; raises as HostExec.run does."""
        return await self._host.run(
            query, deadline_ns=call.deadline_ns, who=call.caller.user or "anonymous"
        )
