"""The tools that a server lists, as tools of ours. Pure."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final, final

from paceline.call import UNKNOWN, Effect
from paceline.errors import AgentLoadError
from paceline.messages import ToolDefinition
from paceline.session_settings import McpSettings
from paceline.tools.mcp.schema import checker
from paceline.tools.mcp.sdk import types
from paceline.tools.spec import ToolSpec

__all__ = ["ToolSpecs", "effect_of", "needs_approval", "tool_names"]

_LOG: Final = logging.getLogger("paceline")
_LONGEST: Final = 64
_DIGEST: Final = 8
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]")


@final
class ToolSpecs:
    """Makes a tool of each that a server lists; the same one as long as the server says the same
    of it, so that what was learnt of it stays."""

    def __init__(
        self, server: str, settings: McpSettings, run: Callable[[types.Tool], Callable[..., object]]
    ) -> None:
        """`run` makes what runs a tool."""
        self._server = server
        self._settings = settings
        self._run = run
        self._made: dict[str, tuple[str, ToolSpec]] = {}

    def of(self, listed: Iterable[types.Tool], version: str) -> list[ToolSpec]:
        """Those that are used, in the server's order. One that cannot be used is logged and left
        out. `version` is the server's own."""
        used: dict[str, types.Tool] = {}
        for tool in listed:
            if any(fnmatchcase(tool.name, pattern) for pattern in self._settings.tools):
                used.setdefault(tool.name, tool)
        made: dict[str, tuple[str, ToolSpec]] = {}
        for name, called in tool_names(self._server, used).items():
            tool = used[name]
            digest = _digest(version, called, tool)
            old = self._made.get(name)
            if old is not None and old[0] == digest:
                made[name] = old
                continue
            try:
                made[name] = digest, self._make(tool, called, digest)
            except (ValueError, AgentLoadError) as exc:
                _LOG.warning(
                    "tool %r of MCP server %s is left out, as its schema cannot be used: %s",
                    name,
                    self._server,
                    exc,
                )
        self._made = made
        return [spec for _, spec in made.values()]

    def _make(self, tool: types.Tool, called: str, digest: str) -> ToolSpec:
        schema: Mapping[str, object] = {"type": "object", **tool.input_schema}
        effect = effect_of(self._server, tool, self._settings)
        return ToolSpec(
            definition=ToolDefinition(called, tool.description or tool.title or "", schema),
            run=self._run(tool),
            check=checker(called, schema),
            effect=effect,
            is_async=True,
            ttl_s=self._settings.ttl_s if effect.repeatable else 0.0,
            timeout_s=self._settings.timeout_s,
            approval=needs_approval(tool, self._settings),
            outside=_reaches_outside(tool, self._settings),
            version=digest,
            source="mcp",
        )


def effect_of(server: str, tool: types.Tool, settings: McpSettings) -> Effect:
    """What a call does, by what the server says of the tool, if that is believed.

    A tool that says no more than that it is not read-only is one of which nothing is known.
    """
    said = tool.annotations
    if said is None or not settings.trust:
        return UNKNOWN
    tag = f"mcp:{server}".replace("{", "{{").replace("}", "}}")
    if said.read_only_hint:
        return Effect.read(tag)
    if said.idempotent_hint is None and said.destructive_hint is None:
        return UNKNOWN
    return Effect.write(tag, idempotent=said.idempotent_hint is True)


def needs_approval(tool: types.Tool, settings: McpSettings) -> bool:
    """Whether a person is asked first. What may destroy something is, as the protocol has it, all
    of which the server does not say otherwise."""
    if settings.approve == "none":
        return False
    said = tool.annotations if settings.trust else None
    if said is None:
        return True
    if said.read_only_hint:
        return False
    return settings.approve == "all" or said.destructive_hint is not False


def _reaches_outside(tool: types.Tool, settings: McpSettings) -> bool:
    """Whether a call tells somebody else what is asked: a server elsewhere, or one that does not say
    that its tool keeps to itself; the protocol has it that they do not."""
    said = tool.annotations if settings.trust else None
    return bool(settings.url) or said is None or said.open_world_hint is not False


def tool_names(server: str, tools: Iterable[str]) -> dict[str, str]:
    """What a model calls each tool of the server by: `server_tool`, in the signs that models allow.

    A name that has others, or is too long, ends in a digest of what it was, so that no two are the
    same and none depends on which others there are.
    """
    names = list(dict.fromkeys(tools))
    before = _UNFIT.sub("_", server)
    plain = {name: f"{before}_{name}" for name in names}
    fit = {name: _UNFIT.sub("_", text) for name, text in plain.items()}
    called = {
        name: fit[name]
        if fit[name] == plain[name] and len(fit[name]) <= _LONGEST
        else _distinct(fit[name], name)
        for name in names
    }
    many = Counter(called.values())  # a tool may be called what the digest makes of another
    return {name: to if many[to] == 1 else _distinct(to, name) for name, to in called.items()}


def _distinct(text: str, name: str) -> str:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST // 2)
    return f"{text[: _LONGEST - _DIGEST - 1]}_{digest.hexdigest()}"


def _digest(version: str, called: str, tool: types.Tool) -> str:
    said = f"{version}\n{called}\n{tool.model_dump_json()}"
    return hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=16).hexdigest()
