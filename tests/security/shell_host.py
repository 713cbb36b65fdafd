"""A host whose only rule runs any shell script: what no policy should allow, for trying walls."""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec

from paceline.clock import SystemClock
from paceline.errors import CommandFailedError, InvalidInputError
from paceline.hostexec.audit import AuditLog
from paceline.hostexec.executor import HostExec
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox.command import View
from paceline.hostexec.sandbox.level import Level, Sandbox
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.workspace import HIDDEN, PROTECTED, Workspace
from paceline.redaction import Redactor, Secret

RUN_AS = 61_187 + os.getpid() % 997  # one of its own for each process of the tests
AS_ROOT = os.geteuid() == 0
USER = RUN_AS if AS_ROOT else None
BOTH_WEAKER: tuple[Level, ...] = ("landlock", "limits")
ALL_LEVELS: tuple[Level, ...] = ("bubblewrap", "landlock", "limits")
KNOWN_SECRET = "canary-3f9a77"


class ScriptRule(msgspec.Struct, frozen=True, kw_only=True):
    id: str = "test-sh"
    env: Mapping[str, str] = {}
    workspace: bool = True
    effect: str = "read"
    view: View = "none"
    network: bool = False
    success: tuple[int, ...] = (0,)
    slow: bool = False


class GrantedScript(msgspec.Struct, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    given: tuple[str, ...]
    rule: ScriptRule


class ShellPolicy:
    """Runs whatever it is given as a script."""

    digest = "test-policy"

    def __init__(self, rule: ScriptRule) -> None:
        self.rule = rule

    def split(self, text: str, /) -> tuple[str, ...]:
        return tuple(text.split())

    def decide(self, argv: Sequence[str], /) -> GrantedScript:
        if not argv:
            raise InvalidInputError("no command")
        program = ("/usr/bin/sh", "-c") if argv[0] == "sh" else (argv[0],)
        return GrantedScript(argv=(*program, *argv[1:]), given=tuple(argv), rule=self.rule)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A fresh directory that the user of the sandbox can enter and write to."""
    path = Path(tempfile.mkdtemp(prefix="paceline-test-", dir="/tmp"))
    try:
        path.chmod(0o777)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class ShellHost:
    """A HostExec over one directory, with what the tests ask of it."""

    def __init__(
        self,
        directory: Path,
        *,
        level: Level = "bubblewrap",
        limits: Limits | None = None,
        protected: tuple[str, ...] = PROTECTED,
        **rule: Any,
    ) -> None:
        self.directory = directory
        ids = itertools.count(1)
        self.log = directory.parent / f"{directory.name}.audit.jsonl"
        self.host = HostExec(
            ShellPolicy(ScriptRule(**rule)),
            Sandbox(level, run_as=USER),
            AuditLog(self.log, clock=SystemClock(), redactor=Redactor([Secret(KNOWN_SECRET)])),
            workspace=Workspace(directory, protected=protected, hidden=HIDDEN),
            limits=limits or Limits(),
            clock=SystemClock(),
            new_id=lambda: f"run-{next(ids)}",
        )

    async def sh(self, script: str, **options: Any) -> CommandResult:
        """The result of a script, also of one that fails."""
        try:
            return await self.host.run(("sh", script), **options)
        except CommandFailedError as exc:
            return cast("CommandResult", exc.result)

    def lines(self) -> list[dict[str, Any]]:
        """The audit log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def started(*argv: str) -> "subprocess.Popen[bytes]":
    """A process beside us, in a session of its own."""
    return subprocess.Popen(argv, start_new_session=True)


def running(marker: str) -> list[int]:
    """Process ids on the host whose command line has the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(entry.name))
    return found


async def until(condition: Callable[[], bool], within_s: float = 2.0) -> bool:
    """Whether it comes true in real time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition() and loop.time() < end:
        await asyncio.wait({loop.create_future()}, timeout=0.02)
    return condition()
