"""`paceline doctor`: is everything as it should be here, and what to do where it is not."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from paceline.agents.registry import AgentRegistry
from paceline.cli.output import FAILED, OK, json_line, table
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.config import Settings
from paceline.errors import PacelineError
from paceline.hostexec.audit import first_break
from paceline.hostexec.sandbox.level import choose_sandbox
from paceline.hostexec.sandbox.probe import probe
from paceline.hostexec.setup import load_policy, open_workspace, token_file

__all__ = ["Finding", "doctor"]

_LITTLE_SPACE: Final = 100 * 1024 * 1024

State = Literal["ok", "warning", "broken"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    state: State
    detail: str
    next_step: str = ""


def doctor(place: Place, dirs: Sequence[Path] | None, *, as_json: bool) -> int:
    """Looks at everything; 1 if something is broken."""
    findings = asyncio.run(_examine(place, dirs))
    if as_json:
        json_line({"home": str(place.home.path), "findings": findings})
    else:
        table(
            ("what", "state", "detail", "next step"),
            [(f.what, f.state, f.detail, f.next_step) for f in findings],
        )
    return FAILED if any(f.state == "broken" for f in findings) else OK


async def _examine(place: Place, dirs: Sequence[Path] | None) -> list[Finding]:
    findings: list[Finding] = []
    try:
        settings = place.settings()
        source = str(place.config) if place.config else "defaults and environment"
        findings.append(Finding("settings", "ok", source))
    except PacelineError as exc:
        findings.append(_broken("settings", exc))
        settings = Settings()
    findings += _home(place)
    findings += _files(place)
    findings += _agents(place, settings, dirs)
    findings += [finding async for finding in _host(place, settings)]
    return findings


def _home(place: Place) -> Iterator[Finding]:
    path = place.home.path
    existing = next(p for p in (path, *path.parents) if p.exists())
    if not os.access(existing, os.W_OK):
        yield Finding(
            "state directory",
            "broken",
            f"{existing} is not writable",
            "Set PACELINE_HOME to a directory of your own.",
        )
    else:
        yield Finding(
            "state directory", "ok", f"{path}{'' if path.exists() else ' (not made yet)'}"
        )
    free = shutil.disk_usage(existing).free
    little = free < _LITTLE_SPACE
    yield Finding(
        "disk space",
        "warning" if little else "ok",
        f"{free / 1024**3:.1f} GiB free",
        "Free some: results and history are not stored on a full disk." if little else "",
    )


def _files(place: Place) -> Iterator[Finding]:
    for what, path in (("result cache", place.home.cache), ("history", place.home.history)):
        if path.exists():
            yield _database(what, path)
    if place.home.audit.exists():
        yield _checked("audit log", lambda: _whole(place.home.audit))


def _database(what: str, path: Path) -> Finding:
    """A database is opened to read only: looking must not repair or replace it."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
        try:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as exc:
        problem = str(exc)
    size = f"{path} ({path.stat().st_size / 1024:,.0f} KiB)"
    if problem == "ok":
        return Finding(what, "ok", size)
    return Finding(what, "broken", f"{size}: {problem}", f"Move {path} away; a new one is made.")


def _whole(path: Path) -> str:
    broken = first_break(path)
    if broken is None:
        return str(path)
    raise PacelineError(
        f"{path}: line {broken} was changed, or one before it removed",
        next_step="Keep a copy of it, and find out who can write there.",
    )


def _agents(place: Place, settings: Settings, dirs: Sequence[Path] | None) -> Iterator[Finding]:
    registry = AgentRegistry(
        place.agent_dirs(settings, dirs),
        import_timeout_s=settings.agents.import_timeout_s,
        clock=SystemClock(),
    )
    registry.reload()
    yield Finding("agent modules", "ok", ", ".join(registry.snapshot()) or "none")
    for name, error in registry.broken.items():
        yield _broken(f"agent {name}", error)
    for text in registry.warnings:
        yield Finding("agent modules", "warning", text)


async def _host(place: Place, settings: Settings) -> AsyncIterator[Finding]:
    wanted = settings.hostexec
    if wanted.mode == "off":
        yield Finding("host commands", "ok", "off")
        return
    yield _checked("command policy", lambda: _policy(settings))
    token = token_file(wanted, place.home)
    if token.exists():
        from paceline.hostexec.http.token import read_token  # noqa: PLC0415 (few have one)

        yield _checked("service token", lambda: str(read_token(token) and token))
    try:
        workspace = open_workspace(wanted, place.home, place.agent_dirs(settings, None))
        sandbox = await choose_sandbox(wanted.sandbox, run_as=wanted.run_as)
        state: State = "warning" if sandbox.warning else "ok"
        yield Finding("sandbox", state, sandbox.warning or sandbox.level)
        for found in await probe(sandbox, workspace):
            if found.required and not found.ok:
                advice = "Do not run host commands here."
                yield Finding(f"sandbox: {found.name}", "broken", found.detail, advice)
            elif not found.ok:
                yield Finding(f"sandbox: {found.name}", "warning", f"not given: {found.detail}")
    except PacelineError as exc:
        yield _broken("sandbox", exc)


def _policy(settings: Settings) -> str:
    policy = load_policy(settings.hostexec)
    missing = sorted({rule.argv[0] for rule in policy.rules if not rule.program})
    return f"{len(policy.rules)} rules" + (f"; not installed: {', '.join(missing)}" * bool(missing))


def _checked(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", look())
    except PacelineError as exc:
        return _broken(what, exc)


def _broken(what: str, exc: PacelineError) -> Finding:
    return Finding(what, "broken", exc.message, exc.next_step)
