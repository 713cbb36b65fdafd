"""Running a host command: decided, admitted, recorded, confined, recorded again."""

import asyncio
import contextlib
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import msgspec

from paceline.balance.gate import Gate
from paceline.clock import Clock
from paceline.errors import (
    AuditError,
    CallTimeoutError,
    CommandDeniedError,
    OverloadedError,
    PacelineError,
    SandboxError,
)
from paceline.hostexec.audit import AuditLog
from paceline.hostexec.granted import CommandPolicy, Granted
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox.command import Command
from paceline.hostexec.sandbox.ending import ending, failure
from paceline.hostexec.sandbox.level import Sandbox, launch_failure
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.process import Ended, run
from paceline.hostexec.sandbox.room import Room
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.hostexec.timeouts import AdaptiveTimeouts

__all__ = ["HostExec"]

_NS: Final = 1e9


@final
class HostExec:
    """Runs commands that the policy allows, in the sandbox, and keeps the audit log.

    Used on one event loop. `limits.concurrency` commands run at once and `limits.queue` wait.
    """

    __slots__ = (
        "_audit",
        "_clock",
        "_gate",
        "_mean_s",
        "_new_id",
        "_timeouts",
        "limits",
        "policy",
        "sandbox",
        "workspace",
    )

    def __init__(
        self,
        policy: CommandPolicy,
        sandbox: Sandbox,
        audit: AuditLog,
        *,
        workspace: Workspace,
        limits: Limits,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        """`policy` may be replaced later by assignment; commands that run keep their decision."""
        self.policy = policy
        self.sandbox = sandbox
        self.workspace = workspace
        self.limits = limits
        self._audit = audit
        self._clock = clock
        self._new_id = new_id
        self._gate = Gate("host command execution", limits.concurrency, limits.queue, clock=clock)
        self._timeouts = AdaptiveTimeouts(limits.wall_s, limits.slow_wall_s)
        self._mean_s = 1.0

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        deadline_ns: int | None = None,
        who: str = "",
    ) -> CommandResult:
        """Runs one command, given as a line or as its words, and returns its successful result.

        `timeout_s` bounds the run, `deadline_ns` (of the clock's monotonic time) waiting and
        run; they only ever shorten the rule's own limit. `who` asks, for the audit log.

        Raises CommandDeniedError, OverloadedError, CallTimeoutError (out of time while
        waiting), SandboxError and AuditError, with nothing run; CommandFailedError, which has
        the result, where the command did not succeed or met a limit. When it is cancelled, the
        command and all it started are gone before the cancellation goes on.
        """
        case = _Case(self._new_id(), who, self.policy.digest)
        granted = self._decide(case, command)
        await self._enter(deadline_ns)
        try:
            left_s = self._left_s(deadline_ns)
            asked = [limit for limit in (timeout_s, left_s) if limit is not None]
            return await self._confined(case, granted, min(asked, default=None))
        finally:
            self._gate.leave()

    def _decide(self, case: "_Case", command: str | Sequence[str]) -> Granted:
        words: Sequence[str] = [command] if isinstance(command, str) else command
        try:
            if isinstance(command, str):
                words = self.policy.split(command)
            return self.policy.decide(words)
        except CommandDeniedError as exc:
            tokens = self._audit.mask([str(token) for token in words])
            self._record("denied", case, {"argv": tokens, "reason": exc.reason})
            raise

    async def _enter(self, deadline_ns: int | None) -> None:
        try:
            async with asyncio.timeout(self._left_s(deadline_ns)):
                await self._gate.enter()
        except TimeoutError as exc:
            raise CallTimeoutError("the deadline passed while the command waited") from exc
        except OverloadedError as exc:
            wait_s = self._mean_s * (1 + self._gate.waiting / self._gate.capacity)
            raise OverloadedError(
                f"{self._gate.capacity} host commands run and {self._gate.waiting} wait already",
                next_step="Try again a little later, or raise hostexec.concurrency.",
                retry_after_s=round(wait_s, 1),
            ) from exc

    async def _confined(
        self, case: "_Case", granted: Granted, asked_s: float | None
    ) -> CommandResult:
        rule, limits = granted.rule, self.limits
        limit_s = self._timeouts.limit_s(rule.id, slow=rule.slow, asked_s=asked_s)
        if limit_s <= 0:
            raise CallTimeoutError("the deadline passed before the command was started")
        self._record(
            "intent",
            case,
            {
                "rule": rule.id,
                "argv": self._audit.mask(granted.argv),
                "cwd": str(self.workspace.path) if rule.workspace else "/",
                "limits": {"wall_s": limit_s, "memory_bytes": limits.memory_bytes},
            },
        )
        began_ns = self._clock.monotonic_ns()
        try:
            async with self.sandbox.prepared(_command(granted), limits, self.workspace) as launch:
                ended = await run(
                    launch,
                    timeout_s=limit_s,
                    output_bytes=limits.output_bytes,
                    drain_s=limits.drain_s,
                    room=self._room(granted),
                )
        except asyncio.CancelledError:
            # The cancellation goes first; a log that is full refuses the next command anyway.
            with contextlib.suppress(AuditError):
                self._record("result", case, {"exit": "cancelled"})
            raise
        except PacelineError as exc:
            self._record("result", case, {"exit": "not_started", "why": exc.message})
            raise
        seconds = (self._clock.monotonic_ns() - began_ns) / _NS
        if problem := launch_failure(ended):
            self._record("result", case, {"exit": "not_started", "why": problem})
            raise SandboxError(f"the sandbox did not start the command: {problem}")
        self._learn(rule.id, ended, seconds)
        return self._judge(case, granted, ended, seconds, limit_s)

    def _room(self, granted: Granted) -> Room | None:
        writes = granted.rule.workspace and granted.rule.effect == "write"
        return Room(self.workspace.path, self.limits.disk_bytes) if writes else None

    def _learn(self, rule: str, ended: Ended, seconds: float) -> None:
        self._mean_s += (seconds - self._mean_s) / 8
        if not ended.stopped:
            self._timeouts.observe(rule, seconds)

    def _judge(
        self, case: "_Case", granted: Granted, ended: Ended, seconds: float, limit_s: float
    ) -> CommandResult:
        end = ending(ended, granted.rule.success)
        stdout, stderr = (_text(stream) for stream in (ended.stdout, ended.stderr))
        result = CommandResult(
            id=case.id,
            command=shlex.join(granted.given),
            rule=granted.rule.id,
            exit_kind=end.kind,
            exit_code=end.code,
            ok=end.ok,
            stdout=stdout[0],
            stderr=stderr[0],
            truncated=ended.truncated,
            lossy=stdout[1] or stderr[1],
            duration_ms=round(seconds * 1e3, 3),
            sandbox=self.sandbox.level,
        )
        try:
            self._record("result", case, _summary(result, ended))
        except AuditError as exc:
            exc.may_have_started = True
            raise
        if not result.ok:
            raise failure(result, self.limits, limit_s)
        return result

    def _record(self, phase: str, case: "_Case", fields: Mapping[str, object]) -> None:
        self._audit.write(
            phase,
            {**msgspec.structs.asdict(case), "sandbox": self.sandbox.level, **fields},
        )

    def _left_s(self, deadline_ns: int | None) -> float | None:
        if deadline_ns is None:
            return None
        return max(0.0, (deadline_ns - self._clock.monotonic_ns()) / _NS)


class _Case(msgspec.Struct, frozen=True):
    """What all audit lines of one request share."""

    id: str
    who: str
    policy: str


def _command(granted: Granted) -> Command:
    rule = granted.rule
    return Command(
        argv=granted.argv,
        env=dict(rule.env),
        workspace=rule.workspace,
        writable=rule.workspace and rule.effect == "write",
        view=rule.view,
        network=rule.network,
    )


def _text(stream: bytes) -> tuple[str, bool]:
    """As text, and whether something was lost."""
    try:
        return stream.decode(), False
    except UnicodeDecodeError:
        return stream.decode(errors="replace"), True


def _summary(result: CommandResult, ended: Ended) -> dict[str, object]:
    return {
        "rule": result.rule,
        "exit": result.exit_kind,
        "code": result.exit_code,
        "bytes": [len(ended.stdout), len(ended.stderr)],
        "truncated": result.truncated,
        "sha256": hashlib.sha256(ended.stdout).hexdigest(),
        "duration_ms": result.duration_ms,
    }
