"""`paceline advise`: what to change, by what was recorded and what was learnt."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from paceline.advise.advice import LEAST, Advice, Change
from paceline.advise.advisor import Advised, advise
from paceline.advise.declared import Declared, Known
from paceline.agents.spec import AgentSpec
from paceline.call import Effect
from paceline.cli.cache import counted, short_time
from paceline.cli.completed import completed
from paceline.cli.output import OK, json_line, line, note
from paceline.cli.place import Place
from paceline.clock import Clock, SystemClock
from paceline.errors import StorageError
from paceline.history.sqlite import SqliteReader
from paceline.settings import Settings

__all__ = ["Wanted", "known_agents", "show_advice"]

_NS: Final = 1_000_000_000
_MOST: Final = 50_000
"""Calls that are looked at, the newest."""
_MOST_GROUPS: Final = 5
_WIDTH: Final = 80
_INDENT: Final = 3
_LABEL: Final = 7


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
    found = advise(records, known, agent=wanted.agent)
    if len(records) == _MOST:
        note(f"note: of the calls in that time, the latest {_MOST:,} are looked at")
    reason = "" if found.advice else _reason(found, wanted, settings)
    side_by_side = [] if wanted.agent is not None else _side_by_side(place, known)
    if wanted.form == "json":
        json_line(
            {
                "version": 1,
                "last_s": wanted.last_s,
                "calls": found.calls,
                "agents": found.agents,
                "least_calls": LEAST,
                "advice": found.advice,
                "nothing": reason or None,
                "side_by_side": side_by_side,
            }
        )
        return OK
    for text in _text(found, wanted, reason):
        line(text)
    if side_by_side:
        line()
        line("Never needed one another in any session, so a model may ask for them in one answer:")
        for group in side_by_side:
            for text in _wrapped("- ", ", ".join(dict.fromkeys(group))):
                line(text)
    return OK


def _side_by_side(place: Place, known: Known) -> list[tuple[str, ...]]:
    """Tools that change nothing and were learnt never to need one another, by group."""
    if not place.home.predictions.exists():
        return []
    from paceline.cli.predict_show import predictor_of  # noqa: PLC0415 (only where there is a file)
    from paceline.speculation.kept import peek  # noqa: PLC0415 (as above)
    from paceline.speculation.learnt import learnt_of  # noqa: PLC0415 (as above)

    try:
        learnt = peek(place.home.predictions)
        if learnt is None:
            return []
        predictor = predictor_of(learnt)
        circles = [one.circle for one in learnt_of(learnt.predictor)]
    except StorageError as exc:
        note(f"note: what was learnt cannot be read: {exc}")
        return []
    declared = {name: one.effect for name, one in known.agents.items()}
    effects = {**learnt.effects, **declared}
    read = [name for name, kind in effects.items() if Effect(kind).repeatable]
    found = [group for circle in circles for group in predictor.parallel_groups(circle, read)]
    return list(dict.fromkeys(found))[:_MOST_GROUPS]


async def known_agents(place: Place, settings: Settings, dirs: Sequence[Path] | None) -> Known:
    """What the agents there are declare; one that cannot be loaded is told of."""
    runtime = place.runtime(settings, dirs, persist=False)
    async with runtime:
        specs = runtime.registry.snapshot()
        for name in runtime.registry.broken:
            note(f"note: {name} cannot be loaded, so its declarations are not known")
    return Known(settings, {name: _declared(spec) for name, spec in specs.items()})


def _declared(spec: AgentSpec) -> Declared:
    return Declared(
        effect=spec.effect.kind,
        cacheable=spec.cacheable,
        ttl_s=spec.ttl_s,
        timeout_s=spec.timeout_s,
        max_concurrency=spec.max_concurrency,
        per_call=spec.planner is not None or bool(spec.ttl_rules),
        in_threads=not spec.is_async,
    )


def _text(found: Advised, wanted: Wanted, reason: str) -> Iterator[str]:
    if reason:
        yield from textwrap.wrap(f"Nothing to advise: {reason}.", _WIDTH)
        return
    yield f"{counted(len(found.advice), 'suggestion')} from {_seen(found, wanted)}"
    for number, advice in enumerate(found.advice, start=1):
        yield ""
        yield from _lines(number, advice)


def _lines(number: int, advice: Advice) -> Iterator[str]:
    about = "" if advice.agent is None else f"{advice.agent}: "
    yield from _wrapped(f"{number}.".ljust(_INDENT), f"{about}{advice.what}")
    for change in advice.changes:
        yield from _labelled("set", _setting(change))
    if advice.first:
        yield from _labelled("but", advice.first)
    yield from _labelled("why", advice.why)
    if saved := _saved(advice):
        yield from _labelled("saves", saved)
    yield from _labelled("sure", advice.confidence.value)


def _labelled(label: str, text: str) -> list[str]:
    return _wrapped(" " * _INDENT + label.ljust(_LABEL), text)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def _setting(change: Change) -> str:
    value = change.value
    if isinstance(value, bool):
        shown = str(value) if change.where == "agent" else str(value).lower()
    elif isinstance(value, str):
        shown = f'"{value}"'
    else:
        shown = str(int(value)) if value == int(value) else f"{value:g}"
    if change.where == "agent":
        return f"{change.name} = {shown} in the agent"
    section, _, key = change.name.partition(".")
    return f"{key} = {shown} in [{section}] of the settings"


def _saved(advice: Advice) -> str:
    """What it would have saved in the time that was looked at."""
    parts = [short_time(advice.saved_s)] if advice.saved_s else []
    parts += [f"${advice.saved_usd:.2f}"] if advice.saved_usd else []
    return f"about {' and '.join(parts)} in that time" if parts else ""


def _seen(found: Advised, wanted: Wanted) -> str:
    return (
        f"{counted(found.calls, 'call')} of {counted(found.agents, 'agent')}"
        f" in the last {short_time(wanted.last_s)}"
    )


def _reason(found: Advised, wanted: Wanted, settings: Settings) -> str:
    if not settings.history.enabled and not found.calls:
        return "calls are not recorded (history.enabled is off)"
    if not found.calls:
        of = f" of {wanted.agent}" if wanted.agent else ""
        return f"no calls{of} are recorded in the last {short_time(wanted.last_s)}"
    if found.too_few == found.agents:
        return f"{_seen(found, wanted)}, fewer than the {LEAST} of one agent that any rule needs"
    return f"no rule found enough in {_seen(found, wanted)}"
