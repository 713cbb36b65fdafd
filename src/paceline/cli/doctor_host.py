"""`paceline doctor` on host commands: policy, service, sandbox, workspace."""

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from paceline.cli.finding import Finding, broken, checked
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.errors import ExecServiceError, InvalidInputError, PacelineError, SandboxError
from paceline.hostexec.sandbox.command import Command
from paceline.hostexec.sandbox.level import Sandbox, choose_sandbox, launch_failure
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.probe import probe
from paceline.hostexec.sandbox.process import run
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.hostexec.setup import load_policy, open_workspace, service_client, token_file
from paceline.settings import HostExecSettings

__all__ = ["examine_host"]

_TRIAL_S: Final = 10.0


async def examine_host(
    settings: HostExecSettings, place: Place, dirs: Sequence[Path]
) -> AsyncIterator[Finding]:
    """What host commands need, in the mode that is set."""
    if settings.mode == "off":
        yield Finding("host commands", "ok", "off")
        return
    yield checked("command policy", lambda: _policy(settings))
    if settings.mode == "service":
        yield await _service(settings, place)
        return
    token = token_file(settings, place.home)
    if os.path.lexists(token):  # noqa: ASYNC240 (whoever serves commands from here has one)
        yield checked("service token", lambda: _token(token))
    try:
        config = [place.config] if place.config is not None else []
        workspace = open_workspace(settings, place.home, dirs, config)
        sandbox = await choose_sandbox(settings.sandbox, run_as=settings.run_as)
        yield Finding(
            "sandbox", "warning" if sandbox.warning else "ok", sandbox.warning or sandbox.level
        )
        for found in await probe(sandbox, workspace):
            if found.required and not found.ok:
                advice = "Do not run host commands here."
                yield Finding(f"sandbox: {found.name}", "broken", found.detail, advice)
            elif not found.ok:
                yield Finding(f"sandbox: {found.name}", "warning", f"not given: {found.detail}")
        yield await _entered(sandbox, workspace)
    except PacelineError as exc:
        yield broken("sandbox", exc)


def _policy(settings: HostExecSettings) -> str:
    policy = load_policy(settings)
    missing = sorted({rule.argv[0] for rule in policy.rules if not rule.program})
    return f"{len(policy.rules)} rules" + (f"; not installed: {', '.join(missing)}" * bool(missing))


def _token(path: Path) -> str:
    from paceline.hostexec.http.token import read_token  # noqa: PLC0415 (few have one)

    read_token(path)
    return str(path)


async def _service(settings: HostExecSettings, place: Place) -> Finding:
    """Asks it to run nothing, which it refuses to whoever has the right token."""
    what, about = "command service", f"{settings.url} answers and accepts the token"
    try:
        client = service_client(
            settings, home=place.home, environ=place.environ, clock=SystemClock()
        )
        await client.run((), who="doctor")
    except InvalidInputError:
        return Finding(what, "ok", about)
    except PacelineError as exc:
        return broken(what, exc)
    return broken(what, ExecServiceError(f"{settings.url} runs what is no command"))


async def _entered(sandbox: Sandbox, workspace: Workspace) -> Finding:
    """Whether a command gets into the workspace, as the user that it would run as."""
    try:
        command = Command(argv=("/usr/bin/sh", "-c", "ls >/dev/null"), workspace=True)
        limits = Limits()
        ended = await run(
            sandbox.launch(command, limits, workspace),
            timeout_s=_TRIAL_S,
            output_bytes=limits.output_bytes,
            drain_s=limits.drain_s,
        )
        if ended.code != 0:
            said = launch_failure(ended) or ended.stderr.decode(errors="replace").strip()
            raise SandboxError(f"commands cannot list {workspace.path}: {said or ended.stopped}")
    except PacelineError as exc:
        return broken("workspace", exc)
    return Finding("workspace", "ok", str(workspace.path))
