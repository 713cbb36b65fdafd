"""`paceline cache ls, get, invalidate, clear`: results in a state directory, which other processes
may be using."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from paceline.cli.completed import completed
from paceline.cli.execute import value_text
from paceline.cli.output import FAILED, OK, json_line, line, note, plain, problem, table
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.disk_space import is_full
from paceline.errors import PacelineError, UsageError
from paceline.path import Identity
from paceline.redaction import Redactor
from paceline.results import Order, Results, StoredResult
from paceline.results.shelves import Shelves, the_result
from paceline.state import State

__all__ = ["Unwanted", "clear", "counted", "described", "get", "invalidate", "ls", "short_time"]

_KEY: Final = 12
"""Digits of a key that are shown: enough for millions of results."""
_SHOWN: Final = 60
_NOTHING: Final = "nothing is kept here"
_LEAST_S: Final = 0.9995
"""From here on three digits of milliseconds would be a thousand."""
_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_Work = Callable[[Results], Awaitable[tuple[list[str], int]]]


class Unwanted(msgspec.Struct, frozen=True):
    """What is to be made stale."""

    tags: Sequence[str]
    agents: Sequence[str]
    prefixes: Sequence[str]
    keys: Sequence[str]


def _shelves(place: Place) -> Shelves:
    """What is in the file; what processes have in memory only is not seen from here."""
    return Shelves(None, place.home.cache, clock=SystemClock())


def ls(place: Place, *, agent: str | None, limit: int, order: Order, as_json: bool) -> int:
    """Lists what is kept."""
    found = _shelves(place).entries(limit, order, name=agent)
    if as_json:
        for result in found:
            json_line(result)
        return OK
    table(
        ("key", "agent", "scope", "bytes", "age", "expires", "took", "input"),
        map(_row, found),
        empty=_NOTHING if agent is None else f"nothing of {agent} is kept here",
        whole=("key", "agent", "bytes", "age", "expires", "took"),
    )
    return OK


def get(place: Place, key: str, *, as_json: bool) -> int:
    """Shows one result; 1 if there is none, or more than one."""
    kept = _shelves(place)
    try:
        result = the_result(key, kept.find(key))
        value = kept.value(bytes.fromhex(result.key))
    except UsageError as exc:
        problem(exc)
        return FAILED
    if as_json:
        json_line(msgspec.structs.asdict(result) | {"value": plain(value)})
        return OK
    table(("field", "value"), described(result))
    line()
    line(value_text(value))
    return OK


def invalidate(place: Place, unwanted: Unwanted) -> int:
    """Makes results stale, and says which; 1 if a key is not clear, or not all could be told."""
    if not any(msgspec.structs.astuple(unwanted)):
        raise UsageError(
            "nothing to invalidate was named",
            next_step="Name tags, or use --agent, --prefix or --key; see --help.",
        )
    _named(*unwanted.tags, *unwanted.agents, *unwanted.prefixes, *unwanted.keys)
    return _done(place, lambda results: _invalidated(results, unwanted))


def clear(place: Place, agent: str | None) -> int:
    """Removes all results, or those of one agent."""
    _named(*([] if agent is None else [agent]))

    async def cleared(results: Results) -> tuple[list[str], int]:
        of = f" of {agent}" if agent is not None else ""
        return [f"{counted(await results.clear(agent), 'result')}{of} removed"], OK

    code = _done(place, cleared)
    file = place.home.cache
    if code != OK and is_full(file):
        note(f"note: {file} holds nothing but results, and may be removed with the files beside it")
    return code


def _named(*names: str) -> None:
    """Refuses an empty name: an unset variable of a script must not take everything away."""
    if "" in names:
        raise UsageError(
            "an empty name names nothing",
            next_step="Is a variable of your script not set? `paceline cache clear` removes all.",
        )


async def _invalidated(results: Results, unwanted: Unwanted) -> tuple[list[str], int]:
    said: list[str] = []
    code = OK
    if unwanted.tags:
        results.invalidate(*unwanted.tags)
        gone = counted(await results.free(*unwanted.tags), "result")
        said.append(f"stale: all that was read under {', '.join(unwanted.tags)}; {gone} removed")
    for agent in unwanted.agents:
        gone = counted(await results.clear(agent), "result")
        said.append(f"stale: all of {agent}; {gone} removed")
    for prefix in unwanted.prefixes:
        gone = counted(await results.remove(prefix=prefix), "result")
        said.append(f"stale: all of agents that begin with {prefix}; {gone} removed")
    for key in unwanted.keys:
        try:
            await results.remove(key=key)
        except UsageError as exc:
            problem(exc)
            code = FAILED
        else:
            said.append(f"removed: {key}; running processes let go of it within seconds")
    return said, code


def _done(place: Place, work: _Work) -> int:
    """Does something to the results of the state directory, and says what came of it."""
    if not place.home.path.is_dir():
        line(_NOTHING)
        return OK
    notices: list[str] = []
    said, code = completed(_worked(place, work, notices))
    for text in said:
        line(text)
    for text in notices:
        note(f"note: {text}")
    return FAILED if notices else code


async def _worked(place: Place, work: _Work, notices: list[str]) -> tuple[list[str], int]:
    """The same, with the files open; no agents are loaded."""
    clock = SystemClock()

    def notice(what: str, error: PacelineError) -> None:
        notices.append(f"{what}: {str(error).rstrip('.')}. {error.next_step}")

    state = State(
        place.settings({"cache": {"enabled": True}, "history": {"enabled": False}}),
        place.home,
        clock=clock,
        redactor=Redactor(),
        rng=random.Random(),  # noqa: S311 (guards nothing)
        notice=notice,
    )
    try:
        async with state:
            results = Results(state, Identity(state.generations, clock=clock), clock=clock)
            return await work(results)
    finally:
        state.generations.close()


def described(result: StoredResult) -> list[tuple[str, str]]:
    """What is known of a result, in units for people; what is not known is left out."""
    fields = {
        "key": result.key,
        "agent": result.name,
        "scope": result.scope,
        "input": result.summary,
        "tags": ", ".join(result.tags),
        "bytes": f"{result.size_bytes:,}",
        "age": "" if result.age_s is None else short_time(result.age_s),
        "expires": _expires(result.remaining_s),
        "took": short_time(result.cost_s),
        "cost": f"${result.cost_usd:.4g}" if result.cost_usd else "",
    }
    return [(name, text) for name, text in fields.items() if text]


def _row(result: StoredResult) -> tuple[str, ...]:
    text = result.summary
    return (
        result.key[:_KEY],
        result.name,
        result.scope,
        f"{result.size_bytes:,}",
        short_time(result.age_s or 0.0),
        _expires(result.remaining_s),
        short_time(result.cost_s),
        text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…",
    )


def _expires(remaining_s: float | None) -> str:
    if remaining_s is None:
        return "never"
    return short_time(remaining_s) if remaining_s > 0 else "stale"


def short_time(seconds: float) -> str:
    """A time in two or three digits and a unit."""
    if seconds < _LEAST_S:
        return f"{seconds * 1_000:.3g} ms"
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.3g} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:,.0f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:,.0f} d"


def counted(number: int, what: str) -> str:
    """So many of something."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
