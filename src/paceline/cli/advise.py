"""`paceline advise`: what to change, by what was recorded and what was learnt."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from paceline.advise.advice import LEAST, Advice, Change
from paceline.advise.advisor import Advised, advise
from paceline.advise.answers import asked_for
from paceline.advise.side_by_side import Group
from paceline.call import Kind
from paceline.cli.advise_known import habits_of, kept_sessions, known_agents, known_tools
from paceline.cli.cache import counted, short_time
from paceline.cli.completed import completed
from paceline.cli.output import OK, json_line, line, note, paragraph
from paceline.cli.place import Place
from paceline.clock import Clock, SystemClock
from paceline.history.sqlite import SqliteReader
from paceline.settings import Settings

__all__ = ["Wanted", "show_advice"]

_NS: Final = 1_000_000_000
_MOST: Final = 50_000
"""Calls that are looked at, the newest."""
_MOST_GROUPS: Final = 5
_INDENT: Final = 3
_LABEL: Final = 7
_MAY_ASK: Final = (
    "Never needed one another in any session, so a model may ask for them in one answer:"
)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
"""A name that needs no quotes in TOML."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Of whom, and of how long ago (seconds), advice is wanted, and in which form."""

    agent: str | None = None
    last_s: float = 7 * 86_400.0
    agents: Sequence[Path] | None = None
    form: Literal["text", "json"] = "text"


def show_advice(place: Place, wanted: Wanted, *, clock: Clock | None = None) -> int:
    """Shows the advice that the history of calls gives, or why there is none."""
    settings = place.settings({"agents": {"watch": False}})
    since_ns = (clock or SystemClock()).wall_ns() - round(wanted.last_s * _NS)
    records = SqliteReader(place.home.history).query(since_ns=since_ns, limit=_MOST)
    known = completed(known_agents(place, settings, wanted.agents))
    habits = habits_of(place, known)
    sessions = kept_sessions(place, since_ns)
    names = {record.name for record in records if record.kind is Kind.TOOL} | asked_for(sessions)
    known = replace(known, tools=known_tools(names, habits.effects, settings))
    found = advise(records, known, agent=wanted.agent, sessions=sessions, groups=habits.groups)
    seen = _Seen(found, len(sessions), wanted)
    if len(records) == _MOST:
        note(f"note: of the calls in that time, the latest {_MOST:,} are looked at")
    reason = "" if found.advice else _reason(seen, settings)
    side_by_side = [] if wanted.agent is not None else _not_timed(habits.groups, found)
    if wanted.form == "json":
        json_line(
            {
                "version": 1,
                "last_s": wanted.last_s,
                "calls": found.calls,
                "agents": found.agents,
                "tools": found.tools,
                "sessions": len(sessions),
                "least_calls": LEAST,
                "advice": found.advice,
                "nothing": reason or None,
                "side_by_side": side_by_side,
            }
        )
        return OK
    for text in _text(seen, reason):
        line(text)
    if side_by_side:
        line()
        for text in paragraph(_MAY_ASK):
            line(text)
        for group in side_by_side:
            for text in paragraph(", ".join(dict.fromkeys(group)), "- "):
                line(text)
    return OK


class _Seen(msgspec.Struct, frozen=True):
    """What was found in what, and what was wanted."""

    found: Advised
    sessions: int
    wanted: Wanted

    def __str__(self) -> str:
        """The calls and sessions that were looked at."""
        found = self.found
        of = [(found.agents, "agent"), (found.tools, "tool")]
        of = [one for one in of if one[0]] or of[:1]
        callees = " and ".join(counted(number, what) for number, what in of)
        kept = f" and {counted(self.sessions, 'kept session')}" if self.sessions else ""
        last = short_time(self.wanted.last_s)
        return f"{counted(found.calls, 'call')} of {callees}{kept} in the last {last}"


def _not_timed(groups: Sequence[Group], found: Advised) -> list[Group]:
    """Those of which no advice tells what they would save, or not of all members."""
    told = [frozenset(one.tools) for one in found.advice if one.tools]
    left = [
        group
        for group in groups
        if not set(group) <= {name for names in told if names <= set(group) for name in names}
    ]
    return left[:_MOST_GROUPS]


def _text(seen: _Seen, reason: str) -> Iterator[str]:
    if reason:
        yield from paragraph(f"Nothing to advise: {reason}.")
        return
    advice = seen.found.advice
    yield from paragraph(f"{counted(len(advice), 'suggestion')} from {seen}")
    for number, one in enumerate(advice, start=1):
        yield ""
        yield from _lines(number, one)


def _lines(number: int, advice: Advice) -> Iterator[str]:
    about = "" if advice.agent is None else f"{advice.agent}: "
    yield from paragraph(f"{about}{advice.what}", f"{number}.".ljust(_INDENT))
    for change in advice.changes:
        yield from _labelled("set", _setting(change))
    if advice.first:
        yield from _labelled("but", advice.first)
    yield from _labelled("why", advice.why)
    if saved := _saved(advice):
        yield from _labelled("saves", saved)
    yield from _labelled("sure", advice.confidence.value)


def _labelled(label: str, text: str) -> list[str]:
    return paragraph(text, " " * _INDENT + label.ljust(_LABEL))


def _setting(change: Change) -> str:
    value = change.value
    if isinstance(value, bool):
        shown = str(value).lower() if change.where == "settings" else str(value)
    elif isinstance(value, str):
        shown = f'"{value}"'
    else:
        shown = str(int(value)) if value == int(value) else f"{value:g}"
    if change.where != "settings":
        return f"{change.name} = {shown} in the {change.where}"
    section, _, key = change.name.rpartition(".")
    table, dot, name = section.partition(".")
    if dot and not _BARE.fullmatch(name):
        section = f"{table}.{json.dumps(name, ensure_ascii=False)}"  # as TOML writes it
    return f"{key} = {shown} in [{section}] of the settings"


def _saved(advice: Advice) -> str:
    """What it would have saved in the time that was looked at."""
    parts = [short_time(advice.saved_s)] if advice.saved_s else []
    parts += [f"${advice.saved_usd:.2f}"] if advice.saved_usd else []
    return f"about {' and '.join(parts)} in that time" if parts else ""


def _reason(seen: _Seen, settings: Settings) -> str:
    found, wanted = seen.found, seen.wanted
    if not settings.history.enabled and not found.calls:
        return "calls are not recorded (history.enabled is off)"
    if not found.calls:
        of = f" of {wanted.agent}" if wanted.agent else ""
        return f"no calls{of} are recorded in the last {short_time(wanted.last_s)}"
    if found.too_few == found.agents + found.tools:
        return f"{seen}, fewer than the {LEAST} of one agent or tool that any rule needs"
    return f"no rule found enough in {seen}"
