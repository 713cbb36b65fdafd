"""`paceline instances`: how the instances of all running processes stand, and what is wanted of them.

What runs says so itself, in the roster of the state directory; what the settings state and nobody
runs is shown as not running.
"""

import asyncio
import contextlib
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final, final

import msgspec

from paceline.cli.live import WATCH_EVERY_S, frames, live
from paceline.cli.output import OK, json_line, line, note, table
from paceline.cli.place import Place
from paceline.cli.screen import Screen, can_move
from paceline.cli.views import Line, Shape, clipped, said
from paceline.clock import Clock, SystemClock
from paceline.errors import Category, ConfigError, PacelineError, UnknownAgentError, UsageError
from paceline.metrics.profile.waterfall import duration
from paceline.roster import Roster, State, Status, Wish, WishKind
from paceline.roster.process import pid_of
from paceline.settings import FleetSettings, Settings

__all__ = ["InstancesView", "drain", "eject", "restore", "show", "watched"]

_MS: Final = 1_000_000
_COLUMNS: Final = ("agent", "instance", "state", "load", "p95", "errors", "process")
_EMPTY: Final = "no instances; state some in [fleets] of the settings"
_WELL: Final = frozenset({State.UP, State.FULL})
_MEANT: Final = {
    WishKind.DRAINED: frozenset({State.DRAINED, State.DRAINING}),
    WishKind.EJECTED: frozenset({State.EJECTED}),
}
"""States in which what is wanted can be seen."""


class _Row(msgspec.Struct, frozen=True):
    """An instance, as one process has it if any does, and what is wanted of it."""

    agent: str
    instance: str
    capacity: int | None
    status: Status | None
    wish: Wish | None


def show(
    place: Place, agent: str | None = None, *, as_json: bool, clock: Clock | None = None
) -> int:
    """All instances, or those of an agent. Raises UnknownAgentError, StorageError."""
    clock = clock or SystemClock()
    settings = place.settings()
    with contextlib.closing(Roster(place.home.roster, clock)) as roster:
        rows = _rows(roster, settings.fleets, agent)
    now_ns = clock.wall_ns()
    if as_json:
        for row in rows:
            json_line(_data(row))
    else:
        cells = [_cells(row, now_ns) for row in rows]
        table(_COLUMNS, cells, empty=_EMPTY, whole=("agent", "instance", "state", "load"))
        _tell(settings, place, rows, agent)
    return OK


def _tell(settings: Settings, place: Place, rows: Sequence[_Row], agent: str | None) -> None:
    """Notes what the table does not say: which fleets are not in it, and what cannot be used."""
    fleets = settings.fleets
    idle = [name for name, fleet in fleets.items() if not fleet.instances]
    if idle and agent is None:
        note(f"note: no instances: {', '.join(idle)}. `paceline doctor` says more.")
    # Of what runs somewhere the process knows better: it may have another environment.
    resting = {row.agent for row in rows if row.status is None} & fleets.keys()
    if not resting:
        return
    from paceline.cli.stated import stated  # noqa: PLC0415 (it loads what instances are made of)

    of_them = {name: fleets[name] for name in sorted(resting)}
    try:
        troubles = stated(msgspec.structs.replace(settings, fleets=of_them), place).troubles
    except ConfigError as exc:
        troubles = [("settings", exc)]
    for what, trouble in troubles:
        note(f"note: {what}: {trouble}. {trouble.next_step}")


def watched(place: Place, agent: str | None, every_s: float, *, as_json: bool) -> int:
    """The same, refreshed in place every so many seconds (0: as often as is usual) until `q` or
    Ctrl-C. Raises UsageError for JSON, which cannot be."""
    if as_json:
        raise UsageError("JSON cannot be watched", next_step="Leave out --watch, or JSON.")
    clock = SystemClock()
    with contextlib.closing(Roster(place.home.roster, clock)) as roster:
        _rows(roster, place.settings().fleets, agent)  # what is wrong with the question is told
        view = InstancesView(roster, place.settings().fleets, agent, clock)
        try:
            if can_move(place.environ, sys.stdout):
                screen = Screen(place.environ, sys.stdout)
                return asyncio.run(live(view, screen, every_s or WATCH_EVERY_S))
            return asyncio.run(frames(view, sys.stdout, every_s or None))
        except KeyboardInterrupt:  # the ordinary end of it
            return OK


def drain(place: Place, agent: str, instance: str, *, clock: Clock | None = None) -> int:
    """Nothing new for an instance. Raises UnknownAgentError, UsageError, StorageError."""
    clock = clock or SystemClock()
    wish = _wished(agent, instance, WishKind.DRAINED, clock)
    told = _wish(place, wish, clock)
    line(f"{agent} {instance} is drained: nothing new for it, what it has goes on. {told}")
    return OK


def eject(
    place: Place,
    agent: str,
    instance: str,
    for_ns: int | None = None,
    *,
    clock: Clock | None = None,
) -> int:
    """The same because it does harm, for a time. Raises as `drain` does."""
    clock = clock or SystemClock()
    wish = _wished(agent, instance, WishKind.EJECTED, clock)
    if for_ns is not None:
        wish = msgspec.structs.replace(wish, until_ns=wish.at_ns + for_ns)
    told = _wish(place, wish, clock)
    until = "until it is restored" if for_ns is None else f"for {_remaining(for_ns)}"
    line(f"{agent} {instance} is ejected {until}. {told}")
    return OK


def restore(place: Place, agent: str, instance: str, *, clock: Clock | None = None) -> int:
    """Takes back what was wanted of an instance. Raises as `drain` does."""
    clock = clock or SystemClock()
    with contextlib.closing(Roster(place.home.roster, clock)) as roster:
        rows = _named(roster, place, agent, instance)
        before = roster.withdraw(agent, instance)
    if before is None:
        line(f"{agent} {instance} is neither drained nor ejected by hand: nothing was changed.")
    else:
        line(f"{agent} {instance} is not {before.kind} any more. {_told(rows)}")
    return OK


@final
class InstancesView:
    """What `paceline instances --watch` shows."""

    def __init__(
        self,
        roster: Roster,
        fleets: dict[str, FleetSettings],
        agent: str | None,
        clock: Clock,
    ) -> None:
        self.problem: PacelineError | None = None
        """Why nothing could be read, the last time."""
        self._roster = roster
        self._fleets = fleets
        self._agent = agent
        self._clock = clock
        self._rows: list[_Row] = []

    def refresh(self) -> bool:
        """Reads how all stand; False, for that is all there is."""
        try:
            self._rows = _rows(self._roster, self._fleets, self._agent)
        except UnknownAgentError:  # the last of its instances is gone
            self._rows = []
        except PacelineError as exc:
            self.problem = exc
            return False
        self.problem = None
        return False

    def lines(self, shape: Shape) -> list[Line]:
        """The table, as much of it as there is room for."""
        rows, now_ns = self._rows, self._clock.wall_ns()
        found = [Line("paceline instances --watch   q quit", "dim")] if shape.keys else []
        if self.problem is not None:
            for text in (f"{self.problem}", f"next: {self.problem.next_step}"):
                found += [Line(part, "bad") for part in said(text, shape)]
        head, *cells = _aligned([_COLUMNS, *[_cells(row, now_ns) for row in rows]])
        styled = [Line(text, _style(row)) for text, row in zip(cells, rows, strict=True)]
        found += [Line(head.upper(), "head"), *styled] if rows else [Line(_EMPTY)]
        if shape.height is not None and len(found) > shape.height:
            hidden = len(found) - shape.height + 1
            found = [*found[: shape.height - 1], Line(f"and {hidden:,} more", "dim")]
        return [Line(clipped(one.text, shape), one.style) for one in found]

    def key(self, key: str) -> bool:  # noqa: ARG002 (there is none to be answered)
        """Answers no key."""
        return False


# --- what there is


def _rows(roster: Roster, fleets: dict[str, FleetSettings], agent: str | None) -> list[_Row]:
    """What runs, what the settings state, and what something is wanted of, in order."""
    wishes = {(wish.agent, wish.instance): wish for wish in roster.wishes()}
    stated = _stated(fleets)
    rows = [
        _Row(one.agent, one.instance, one.capacity, one, wishes.get((one.agent, one.instance)))
        for one in roster.statuses()
    ]
    running = {(row.agent, row.instance) for row in rows}
    rows += [
        _Row(*key, stated.get(key), None, wishes.get(key))
        for key in {**stated, **wishes}
        if key not in running
    ]
    if agent is not None:
        agents = sorted({row.agent for row in rows})
        if agent not in agents:
            step = f"Add [[fleets.{agent}.instances]] to the settings."
            raise UnknownAgentError(
                f"there is no instance of {agent!r}",
                next_step=step if agent in fleets else _near(agent, agents),
            )
        rows = [row for row in rows if row.agent == agent]
    return sorted(rows, key=lambda row: (row.agent, _natural(row.instance)))


def _stated(fleets: dict[str, FleetSettings]) -> dict[tuple[str, str], int]:
    """The instances in the settings, by the names that a runtime gives them, with capacities."""
    return {
        (name, one.named(number)): one.capacity
        for name, fleet in fleets.items()
        for number, one in enumerate(fleet.instances, 1)
    }


def _named(roster: Roster, place: Place, agent: str, instance: str) -> list[_Row]:
    """The rows of one instance. Raises UnknownAgentError, UsageError."""
    rows = _rows(roster, place.settings().fleets, agent)
    found = [row for row in rows if row.instance == instance]
    if not found:
        raise UsageError(
            f"{agent} has no instance {instance!r}",
            next_step=_near(instance, [row.instance for row in rows]),
            category=Category.NOT_FOUND,
        )
    return found


def _near(name: str, known: Iterable[str]) -> str:
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, known, 3)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"There are: {', '.join(known)}." if known else f"There are {_EMPTY}."


def _natural(name: str) -> list[tuple[int, str]]:
    """So that 10 comes after 9."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]


# --- what is wanted


def _wished(agent: str, instance: str, kind: WishKind, clock: Clock) -> Wish:
    from paceline.cli.execute import system_user  # noqa: PLC0415 (who only looks needs no runtime)

    return Wish(agent=agent, instance=instance, kind=kind, by=system_user(), at_ns=clock.wall_ns())


def _wish(place: Place, wish: Wish, clock: Clock) -> str:
    """Wants it, and says who is going to do it."""
    with contextlib.closing(Roster(place.home.roster, clock)) as roster:
        rows = _named(roster, place, wish.agent, wish.instance)
        roster.wish(wish)
    return _told(rows)


def _told(rows: Sequence[_Row]) -> str:
    running = sum(row.status is not None for row in rows)
    if not running:
        return "No process runs it now; this holds for those that start."
    return f"{running} running process{'' if running == 1 else 'es'} will do so within 2 s."


# --- how it is shown


def _cells(row: _Row, now_ns: int) -> tuple[str, ...]:
    one = row.status
    if one is None:
        load = "-" if row.capacity is None else f"-/{row.capacity}"
        return row.agent, row.instance, _state(row, now_ns), load, "-", "-", "-"
    return (
        row.agent,
        row.instance,
        _state(row, now_ns),
        f"{one.in_flight}/{one.limit}",
        "-" if one.p95_ms is None else duration(round(one.p95_ms * _MS)),
        "-" if one.error_rate is None else f"{one.error_rate:.0%}",
        pid_of(one.process),
    )


def _state(row: _Row, now_ns: int) -> str:
    """How it stands; and what is wanted of it, where that cannot be seen from it."""
    one, wish = row.status, row.wish
    state = "not running" if one is None else _until(one.state, one.opens_ns, now_ns)
    if wish is None or (one is not None and one.state in _MEANT[wish.kind]):
        return state
    return f"{state}, {_until(wish.kind, wish.until_ns, now_ns)}"


def _until(what: str, moment_ns: int | None, now_ns: int) -> str:
    return what if moment_ns is None else f"{what} {_remaining(moment_ns - now_ns)}"


def _remaining(ns: int) -> str:
    """A time that is left, rounded up, in the largest unit that says enough."""
    seconds = -(-max(0, ns) // 1_000_000_000)
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3_600, 48)):
        if seconds < most * size:
            return f"{-(-seconds // size)} {unit}"
    return f"{-(-seconds // 86_400)} d"


def _style(row: _Row) -> str:
    if row.status is None:
        return "dim"
    return "" if row.status.state in _WELL else "bad"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _data(row: _Row) -> dict[str, object]:
    one, wish = row.status, row.wish
    return {
        "agent": row.agent,
        "instance": row.instance,
        "state": "not running" if one is None else one.state,
        "in_flight": None if one is None else one.in_flight,
        "capacity": row.capacity,
        "limit": None if one is None else one.limit,
        "p95_ms": None if one is None else one.p95_ms,
        "error_rate": None if one is None else one.error_rate,
        "circuit": None if one is None else one.circuit,
        "opens_ns": None if one is None else one.opens_ns,
        "process": None if one is None else pid_of(one.process),
        "wish": None if wish is None else _wish_data(wish),
    }


def _wish_data(wish: Wish) -> dict[str, object]:
    return {name: getattr(wish, name) for name in ("kind", "by", "at_ns", "until_ns")}
