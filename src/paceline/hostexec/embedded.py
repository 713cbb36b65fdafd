"""Host command execution in this process: the sandbox is chosen when the first command runs.

Nothing is to be started before, and a process whose answers all come from the cache never
starts a sandbox at all.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import final

from paceline.clock import Clock
from paceline.hostexec.audit import AuditLog
from paceline.hostexec.executor import HostExec
from paceline.hostexec.granted import CommandPolicy
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox.level import choose_sandbox
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.settings import HostExecSettings

__all__ = ["EmbeddedHost"]


@final
class EmbeddedHost:
    """Opens a HostExec once, when it is first needed. Used on one event loop."""

    def __init__(
        self,
        settings: HostExecSettings,
        *,
        policy: CommandPolicy,
        workspace: Workspace,
        audit: AuditLog,
        clock: Clock,
        on_warning: Callable[[str], None],
    ) -> None:
        """`on_warning` is told, in words, when the isolation is weaker than it could be."""
        self._settings = settings
        self._policy = policy
        self._workspace = workspace
        self._audit = audit
        self._clock = clock
        self._on_warning = on_warning
        self._opening = asyncio.Lock()
        self._host: HostExec | None = None

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        deadline_ns: int | None = None,
        who: str = "",
    ) -> CommandResult:
        """As HostExec.run; the first run also raises SandboxError where no sandbox works."""
        host = await self.opened()
        return await host.run(command, timeout_s=timeout_s, deadline_ns=deadline_ns, who=who)

    async def opened(self) -> HostExec:
        """The host, with its sandbox chosen and tried. Raises SandboxError."""
        async with self._opening:
            if self._host is None:
                self._host = await self._open()
            return self._host

    async def _open(self) -> HostExec:
        wanted = self._settings
        sandbox = await choose_sandbox(wanted.sandbox, run_as=wanted.run_as)
        if sandbox.warning:
            self._on_warning(sandbox.warning)
        return HostExec(
            self._policy,
            sandbox,
            self._audit,
            workspace=self._workspace,
            limits=Limits.of(wanted),
            clock=self._clock,
            new_id=lambda: secrets.token_hex(8),
        )
