"""`paceline run`: one call of one agent."""

import getpass
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

import msgspec

from paceline.balance.fallback import fallbacks_of
from paceline.call import Outcome
from paceline.cli.completed import completed
from paceline.cli.output import (
    LONGEST_ERROR,
    as_text,
    exit_code,
    json_line,
    line,
    note,
    plain,
    problem,
    problem_data,
)
from paceline.cli.place import Place
from paceline.errors import (
    CommandFailedError,
    InvalidInputError,
    PacelineError,
    UnknownAgentError,
)
from paceline.hostexec.text import error_text, shorten
from paceline.runtime import Runtime
from paceline.settings import FleetSettings

__all__ = ["Request", "run", "standard_input", "system_user", "value_text"]

_LONGEST_INPUT: Final = 1024 * 1024
_GIVE: Final = "Pipe text into it, or give the input as an argument."
_MS: Final = 1e6


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `paceline run` is asked for. `text` "-" is standard input."""

    agent: str
    text: str
    agents: Sequence[Path] | None = None
    user: str | None = None
    timeout_s: float | None = None
    cache: bool = True
    as_json: bool = False


class _Ran(msgspec.Struct, frozen=True):
    """What came of the call, or why none was made; and what the runtime has to say."""

    outcome: Outcome | None
    error: PacelineError | None
    notices: Sequence[str] = ()


def run(place: Place, request: Request) -> int:
    """Runs it, shows what came of it, and returns the exit code."""
    user = request.user or system_user()
    query = request.text
    try:
        if query == "-":
            query = standard_input()
        ran = completed(_ran(place, request, query, user))
    except PacelineError as exc:
        ran = _Ran(None, exc)
    for notice in ran.notices:
        note(f"note: {notice}")
    if request.as_json:
        json_line(_data(request.agent, user, ran))
    elif ran.outcome is None and ran.error is not None:
        problem(ran.error)
    elif ran.error is not None:
        note(_error_text(ran.error, query))
    elif ran.outcome is not None:
        line(value_text(ran.outcome.value))
        if (failed := ran.outcome.instead_of) is not None:
            said = shorten(as_text(failed), LONGEST_ERROR)
            note(f"note: a fallback answered, as {request.agent} failed: {said}")
    return exit_code(ran.error)


def standard_input() -> str:
    """Standard input, in full. Raises InvalidInputError where it is too long or no text."""
    stream: TextIO | None = sys.stdin
    if stream is None:
        raise InvalidInputError("standard input is closed", next_step=_GIVE)
    try:
        text = stream.read(_LONGEST_INPUT + 1)
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"standard input cannot be read: {exc}", next_step=_GIVE) from exc
    if len(text) > _LONGEST_INPUT:
        raise InvalidInputError(
            f"standard input is longer than {_LONGEST_INPUT:,} characters",
            next_step="Give the agent a part of it, or the name of a file.",
        )
    return text


async def _ran(place: Place, request: Request, query: str, user: str) -> _Ran:
    settings = place.settings({"agents": {"watch": False}})  # one call sees one version
    dirs = place.agent_dirs(settings, request.agents)
    runtime = Runtime(
        settings,
        agents=dirs,
        home=place.home.path,
        config=place.config,
        environ=place.environ,
    )
    outcome = error = None
    async with runtime:
        try:
            outcome = await runtime.run(
                request.agent,
                query,
                user=user,
                timeout=request.timeout_s,
                use_cache=request.cache,
            )
            error = outcome.error
        except PacelineError as exc:
            error = exc
    notices = _about(runtime.notices, _others(settings.fleets, request.agent))
    if isinstance(error, UnknownAgentError) and outcome is None:
        notices += _idle(settings.fleets, request.agent)
    return _Ran(outcome, error, notices)


def _idle(fleets: Mapping[str, FleetSettings], agent: str) -> list[str]:
    """What a fleet lacks to be the agent that is asked for."""
    if agent not in fleets:
        return []
    return [f"fleets.{agent} has no instances. Add [[fleets.{agent}.instances]]."]


def _others(fleets: Mapping[str, FleetSettings], agent: str) -> set[str]:
    """The fleets that have nothing to do with an agent, and which it does not fall back to."""
    steps = fallbacks_of(agent, fleets[agent].fallback) if agent in fleets else ()
    return {*fleets} - {agent, *(step.value for step in steps)}


def _about(notices: Sequence[str], others: Collection[str]) -> list[str]:
    """What is said of no other fleet: the list of agents says all of it."""
    of_others = [re.compile(rf"(instance .+ of )?fleets\.{re.escape(name)}: ") for name in others]
    return [text for text in notices if not any(of.match(text) for of in of_others)]


def system_user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "local"


def _data(agent: str, user: str, ran: _Ran) -> dict[str, object]:
    """The one object of `--json`."""
    known = ran.outcome or Outcome("", agent, source=None)  # type: ignore[arg-type]
    return {
        "value": plain(known.value),
        "error": problem_data(ran.error) if ran.error is not None else None,
        "instead_of": problem_data(known.instead_of) if known.instead_of is not None else None,
        "source": known.source,
        "agent": agent,
        "user": user,
        "instance": known.instance,
        "attempts": known.attempts,
        "queue_ms": known.queue_ns / _MS,
        "execute_ms": known.execute_ns / _MS,
        "total_ms": known.total_ns / _MS,
    }


def _error_text(error: PacelineError, query: str) -> str:
    # The output of a command that failed has a bound of its own.
    limit = None if isinstance(error, CommandFailedError) else LONGEST_ERROR
    return error_text(error, query, limit=limit)


def value_text(value: object) -> str:
    """A value for people: text as it is, data as indented JSON."""
    data = plain(value) if type(value) in (dict, list, tuple) else None
    if isinstance(data, (dict, list)):
        return msgspec.json.format(msgspec.json.encode(data)).decode()
    return as_text(value).rstrip("\n")
