"""What a chat can be had with: sessions to go on with, models, tools."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from paceline.agents.spec import AgentSpec
from paceline.call import Effect
from paceline.cli.chat.session import named, opened, user_of
from paceline.cli.completed import completed
from paceline.cli.output import OK, json_line, note, table
from paceline.cli.place import Place
from paceline.errors import ConfigError
from paceline.history.sessions import SessionSummary
from paceline.sessions.sessions import Sessions
from paceline.settings import Settings
from paceline.tools.spec import ToolSpec

if TYPE_CHECKING:
    from paceline.cli.chat.commands import Options

__all__ = ["What", "show"]

What = Literal["sessions", "models", "tools"]
Row = dict[str, object]

_COLUMNS: Final[Mapping[What, tuple[str, ...]]] = {
    "sessions": ("id", "when", "title"),
    "models": ("model", "kind", "default"),
    "tools": ("tool", "source", "effect", "asks", "description"),
}
_EMPTY: Final[Mapping[What, str]] = {
    "sessions": "no sessions; begin one with `paceline chat`",
    "models": "no models",
    "tools": "no tools; put agents into ./agents, or name MCP servers in [mcp]",
}


def show(place: Place, what: What, options: "Options") -> int:
    """Lists it; of tools, those that are asked for, if any are."""
    rows, notices = completed(_found(place, what, options))
    if options.as_json:
        json_line({what: rows})
    else:
        columns = _COLUMNS[what]
        cells = [[_cell(row[column]) for column in columns] for row in rows]
        table(columns, cells, empty=_EMPTY[what], whole=columns[:-1])
        if what == "sessions":
            note(f"note: those of {user_of(options.user)}; --user NAME lists another's")
    for notice in notices:
        note(f"note: {notice}")
    return OK


async def _found(place: Place, what: What, options: "Options") -> tuple[list[Row], list[str]]:
    settings, runtime = opened(place, options.agents)
    async with runtime:
        sessions = runtime.sessions
        if what == "sessions":
            rows = [_session(one) for one in await sessions.stored(user=user_of(options.user))]
        elif what == "models":
            default = _default(sessions)
            rows = [_model(name, settings, default) for name in sessions.models()]
        else:
            there = await sessions.tools()
            tools = named(there, options.tool) if options.tool else there
            rows = [_tool(tool) for _, tool in sorted(tools.items())]
    return rows, runtime.notices


def _session(one: SessionSummary) -> Row:
    at = datetime.fromtimestamp(one.at_ns / 1e9, UTC).astimezone()
    return {"id": one.id, "when": f"{at:%Y-%m-%d %H:%M}", "title": one.title}


def _default(sessions: Sessions) -> str:
    """The model of a session that names none, if there is one."""
    try:
        return sessions.default_model()
    except ConfigError:  # there are several
        return ""


def _model(name: str, settings: Settings, default: str) -> Row:
    known = settings.models.get(name)
    kind = known.kind if known is not None else "embedded" if name == "embedded" else ""
    return {"model": name, "kind": kind or "fleet", "default": name == default}


def _tool(tool: ToolSpec | AgentSpec) -> Row:
    if isinstance(tool, ToolSpec):
        asks, description = tool.approval, tool.definition.description
    else:
        asks, description = False, tool.description
    return {
        "tool": tool.name,
        "source": tool.source,
        "effect": _effect(tool.effect),
        "asks": asks,
        "description": description,
    }


def _effect(effect: Effect) -> str:
    kind = f"idempotent {effect.kind}" if effect.idempotent else effect.kind
    return kind + (f" {', '.join(effect.tags)}" if effect.tags else "")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return str(value)
