"""`paceline run`: one call of one agent."""

import asyncio
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from paceline.call import Outcome
from paceline.cli.output import exit_code, json_line, line, note, plain, problem_data
from paceline.cli.place import Place
from paceline.errors import PacelineError
from paceline.hostexec.text import error_text
from paceline.runtime import Runtime

__all__ = ["Request", "run"]

_LONGEST_INPUT = 1024 * 1024
_MS = 1e6


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `paceline run` is asked for. `text` "-" is standard input."""

    agent: str
    text: str
    agents: Sequence[Path] | None = None
    user: str | None = None
    timeout_s: float | None = None
    cache: bool = True
    as_json: bool = False


def run(place: Place, request: Request) -> int:
    """Runs it, shows what came of it, and returns the exit code."""
    user = request.user or _system_user()
    try:
        outcome, notices = asyncio.run(_outcome(place, request, user))
    except PacelineError as exc:
        if not request.as_json:
            raise
        json_line(_data(request.agent, user, None, exc))
        return exit_code(exc)
    for notice in notices:
        note(f"note: {notice}")
    if request.as_json:
        json_line(_data(request.agent, user, outcome, outcome.error))
    elif outcome.error is not None:
        note(error_text(outcome.error, request.text))
    else:
        line(_text(outcome.value))
    return exit_code(outcome.error)


async def _outcome(place: Place, request: Request, user: str) -> tuple[Outcome, list[str]]:
    settings = place.settings({"agents": {"watch": False}})  # one call sees one version
    dirs = place.agent_dirs(settings, request.agents)
    query = sys.stdin.read(_LONGEST_INPUT) if request.text == "-" else request.text
    runtime = Runtime(settings, agents=dirs, home=place.home.path, environ=place.environ)
    async with runtime:
        outcome = await runtime.run(
            request.agent,
            query,
            user=user,
            timeout=request.timeout_s,
            use_cache=request.cache,
        )
    return outcome, runtime.notices


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "local"


def _data(
    agent: str, user: str, outcome: Outcome | None, error: PacelineError | None
) -> dict[str, object]:
    """The one object of `--json`."""
    known = outcome or Outcome("", agent, source=None)  # type: ignore[arg-type]
    return {
        "value": plain(known.value),
        "error": problem_data(error) if error is not None else None,
        "source": known.source,
        "agent": agent,
        "user": user,
        "instance": known.instance,
        "attempts": known.attempts,
        "queue_ms": known.queue_ns / _MS,
        "execute_ms": known.execute_ns / _MS,
        "total_ms": known.total_ns / _MS,
    }


def _text(value: object) -> str:
    """A value for people: text as it is, data as indented JSON."""
    data = plain(value) if type(value) in (dict, list, tuple) else None
    if data is not None:
        return msgspec.json.format(msgspec.json.encode(data, enc_hook=str)).decode()
    return str(value).rstrip("\n")
