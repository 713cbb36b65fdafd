"""What is known here of those whom `paceline advise` advises: what they declare, and what was learnt
and kept of sessions."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from paceline.advise.answers import Event
from paceline.advise.declared import Declared, Known
from paceline.advise.side_by_side import Group
from paceline.agents.spec import AgentSpec
from paceline.call import Effect, EffectKind
from paceline.cli.output import note
from paceline.cli.place import Place
from paceline.errors import StorageError
from paceline.history.sessions import SessionReader
from paceline.session_settings import McpSettings
from paceline.settings import Settings

__all__ = ["Habits", "habits_of", "kept_sessions", "known_agents", "known_tools"]

_MOST_SESSIONS: Final = 2_000
"""Kept sessions that are looked at, the latest."""
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]")


class Habits(msgspec.Struct, frozen=True):
    """What was learnt of sessions: the effects of tools by name, and which never needed one another,
    most often used together first."""

    effects: Mapping[str, EffectKind] = {}
    groups: tuple[Group, ...] = ()


async def known_agents(place: Place, settings: Settings, dirs: Sequence[Path] | None) -> Known:
    """What the agents there are declare; one that cannot be loaded is told of."""
    runtime = place.runtime(settings, dirs, persist=False)
    async with runtime:
        specs = runtime.registry.snapshot()
        for name in runtime.registry.broken:
            note(f"note: {name} cannot be loaded, so its declarations are not known")
    return Known(settings, {name: _declared(spec) for name, spec in specs.items()})


def known_tools(
    names: Collection[str], effects: Mapping[str, EffectKind], settings: Settings
) -> dict[str, Declared]:
    """What is known of these tools, without starting a server or a program: of those of an MCP server
    what its settings say, of others their effect, if it was learnt."""
    found: dict[str, Declared] = {}
    # A server's tools are called as it is, and then as themselves.
    servers = sorted(settings.mcp, key=len, reverse=True)
    for name in names:
        effect = effects.get(name, EffectKind.UNKNOWN)
        server = next((one for one in servers if name.startswith(f"{_fit(one)}_")), None)
        if server is not None:
            found[name] = _served(server, settings.mcp[server], effect)
        elif name in effects:
            found[name] = Declared(effect=effect, cacheable=True, ttl_s=0.0, whole=False)
    return found


def habits_of(place: Place, known: Known) -> Habits:
    """What was learnt; nothing where there is no file, or one that cannot be read, which is told.
    Groups are of tools that change nothing, by what agents declare and programs knew."""
    if not place.home.predictions.exists():
        return Habits()
    from paceline.cli.predict_show import predictor_of  # noqa: PLC0415 (only where there is a file)
    from paceline.speculation.kept import peek  # noqa: PLC0415 (as above)
    from paceline.speculation.learnt import learnt_of  # noqa: PLC0415 (as above)

    try:
        learnt = peek(place.home.predictions)
        if learnt is None:
            return Habits()
        predictor = predictor_of(learnt)
        circles = [one.circle for one in learnt_of(learnt.predictor)]
    except StorageError as exc:
        note(f"note: what was learnt cannot be read: {exc}")
        return Habits()
    declared = {name: one.effect for name, one in known.agents.items()}
    effects = {**learnt.effects, **declared}
    read = [name for name, kind in effects.items() if Effect(kind).repeatable]
    groups = [group for circle in circles for group in predictor.parallel_groups(circle, read)]
    return Habits(learnt.effects, tuple(dict.fromkeys(groups)))


def kept_sessions(place: Place, since_ns: int) -> list[list[Event]]:
    """What models asked for in the sessions that are kept and were used since then; those that cannot
    be read are told of."""
    if not place.home.sessions.exists():
        return []
    from paceline.sessions.recorded import answers_of  # noqa: PLC0415 (only where there is a file)

    reader = SessionReader(place.home.sessions)
    found: list[list[Event]] = []
    unread = 0
    try:
        listed = reader.listed(limit=_MOST_SESSIONS)
    except StorageError as exc:
        note(f"note: the kept sessions cannot be read: {exc}")
        return []
    for kept in listed:
        if kept.at_ns < since_ns:
            continue
        try:
            found.append(list(answers_of(reader.load(kept.id))))
        except StorageError:
            unread += 1
    if unread:
        note(f"note: {unread} of the kept sessions cannot be read, and are left out")
    if len(found) + unread == _MOST_SESSIONS:
        note(f"note: of the sessions in that time, the latest {_MOST_SESSIONS:,} are looked at")
    return found


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


def _served(server: str, settings: McpSettings, effect: EffectKind) -> Declared:
    return Declared(
        effect=effect,
        cacheable=True,
        ttl_s=settings.ttl_s,
        timeout_s=settings.timeout_s,
        server=server,
    )


def _fit(server: str) -> str:
    """The name of a server in the signs that names of tools may have."""
    return _UNFIT.sub("_", server)
