"""`paceline hostexec`: the service, the policy, the audit log."""

import asyncio
import contextlib
import logging
import secrets
import shlex
import signal
from collections.abc import Generator
from pathlib import Path
from typing import final

from paceline.cli.output import FAILED, OK, exit_code, json_line, line, note, table
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.errors import CommandDeniedError, InvalidInputError, PolicyError
from paceline.hostexec.audit import first_break
from paceline.hostexec.effects import plan
from paceline.hostexec.executor import HostExec
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.policy.file import PolicyFile
from paceline.hostexec.result import visible
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.hostexec.setup import (
    embedded_host,
    load_policy,
    open_workspace,
    policy_file,
    token_file,
)
from paceline.redaction import Redactor, environment_secrets
from paceline.settings import Settings

__all__ = ["audit", "check", "explain", "rules", "serve"]

_LOOK_EVERY_S = 1.0


def serve(place: Place, *, host: str, port: int, allow_remote: bool) -> int:
    """Serves until it is interrupted."""
    return asyncio.run(_serve(place, host, port, allow_remote=allow_remote))


async def _serve(place: Place, host: str, port: int, *, allow_remote: bool) -> int:
    from paceline.hostexec.http.service import app, running  # noqa: PLC0415 (loads an HTTP server)
    from paceline.hostexec.http.token import read_or_create_token  # noqa: PLC0415

    all_settings = place.settings()
    settings, clock = all_settings.hostexec, SystemClock()
    policy = policy_file(settings)
    file = token_file(settings, place.home)
    place.home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = read_or_create_token(file)
    redactor = Redactor([token, *environment_secrets(place.environ)])
    embedded = embedded_host(
        settings,
        policy=policy.policy if policy else load_policy(settings),
        workspace=_workspace(place, all_settings),
        home=place.home,
        clock=clock,
        redactor=redactor,
        on_warning=lambda text: note(f"WARNING: {text}"),
    )
    opened = await embedded.opened()
    service = app(
        opened,
        sandbox=opened.sandbox.level,
        token=token,
        clock=clock,
        new_id=lambda: secrets.token_hex(8),
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = running(service, host=host, port=port, allow_remote=allow_remote)
    with _errors_shown(redactor):
        async with serving as url:
            line(f"host commands at {url} (sandbox: {opened.sandbox.level}); stop with Ctrl-C")
            line(f'  curl -H "X-Exec-Token: $(cat {file})" -H "Content-Type: application/json" \\')
            line(f'    -d \'{{"argv": ["uname", "-a"]}}\' {url}/v1/exec')
            if policy:
                await _follow(policy, opened, stop)
            await stop.wait()
    return OK


@contextlib.contextmanager
def _errors_shown(redactor: Redactor) -> Generator[None]:
    """While the block runs, errors in the service itself are told beside its output."""
    log, told = logging.getLogger("paceline.hostexec"), _ErrorNotes(redactor)
    log.addHandler(told)
    try:
        yield
    finally:
        log.removeHandler(told)


@final
class _ErrorNotes(logging.Handler):
    """One line for each error: what it is and the id that the client was given."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__(logging.ERROR)
        self._redactor = redactor

    def emit(self, record: logging.LogRecord) -> None:
        """Writes it, its exception in short, no secrets and no control characters."""
        what = record.exc_info[1] if record.exc_info else None
        why = f": {type(what).__name__}: {what}" if what else ""
        note(visible(self._redactor.text(f"ERROR: {record.getMessage()}{why}")))


def _workspace(place: Place, settings: Settings) -> Workspace:
    return open_workspace(
        settings.hostexec,
        place.home,
        place.agent_dirs(settings, None),
        [place.config] if place.config else [],
    )


async def _follow(file: PolicyFile, host: HostExec, stop: asyncio.Event) -> None:
    """Keeps the host at the last good version of the policy file."""
    problem = ""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_EVERY_S)
        if file.refresh():
            host.policy = file.policy
            note(f"{file.policy.name} was changed and is in force")
        if file.problem and file.problem != problem:
            note(f"WARNING: the last good policy stays in force: {file.problem}")
        problem = file.problem


def rules(place: Place, *, as_json: bool) -> int:
    """What the policy allows."""
    policy = load_policy(place.settings().hostexec)
    if as_json:
        json_line({"policy": policy.name, "digest": policy.digest, "rules": policy.rules})
        return OK
    table(
        ("command", "effect", "kept", "about"),
        [
            (
                rule.words,
                rule.effect if rule.effect == "read" or policy.writes else "write (off)",
                f"{rule.ttl_s:g} s" if rule.ttl_s else "no",
                rule.about if rule.program else f"not installed here. {rule.about}",
            )
            for rule in policy.rules
        ],
        empty="the policy allows nothing",
    )
    return OK


def check(place: Place, file: Path | None) -> int:
    """Loads a policy, which runs its self-tests. Raises PolicyError."""
    if file is None:
        policy = load_policy(place.settings().hostexec)
    else:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise PolicyError(
                f"{file} cannot be read: {exc}", next_step="Name a policy file."
            ) from exc
        policy = Policy.load(text, name=str(file))
    examples = sum(len(rule.allow) + len(rule.deny) for rule in policy.rules)
    line(f"{policy.name}: {len(policy.rules)} rules, {examples} examples hold")
    return OK


def explain(place: Place, command: str) -> int:
    """Whether the policy allows a command, and how its result is treated."""
    settings = place.settings()
    policy = load_policy(settings.hostexec)
    redactor = Redactor(environment_secrets(place.environ))
    try:
        granted = policy.decide_line(command)
    except (CommandDeniedError, InvalidInputError) as exc:
        reason = f" ({exc.reason})" if isinstance(exc, CommandDeniedError) else ""
        line(visible(redactor.text(f"refused{reason}: {exc}")))
        line(visible(redactor.text(f"  next: {exc.next_step}")))
        return exit_code(exc)
    planned = plan(granted, _workspace(place, settings))
    line(f"allowed by rule {granted.rule.id}")
    line(f"  runs:    {visible(shlex.join(redactor.words(granted.argv)))}")
    line(f"  effect:  {planned.effect.kind}")
    kept = f"{planned.ttl_s:g} s" if planned.cacheable and planned.ttl_s else "never"
    line(f"  kept:    {kept}")
    line(f"  shared:  {planned.scope or 'by one user'}")
    return OK


def audit(place: Place) -> int:
    """Whether each line of the audit log follows from the one before. Raises AuditError."""
    path = place.home.audit
    if not path.exists():
        line("no host command was asked for yet")
        return OK
    broken = first_break(path)
    if broken is None:
        line(f"{path}: whole")
        return OK
    note(f"{path}: line {broken} was changed, or one before it removed")
    return FAILED
