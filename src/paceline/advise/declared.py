"""What is known of those who are advised, beside their calls: declarations and settings."""

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from paceline.advise.advice import Change, Number
from paceline.call import EffectKind, Kind
from paceline.settings import Settings

__all__ = ["Declared", "Known", "Named"]

_OF_TOOL: Final = {
    "CACHE_TTL": "ttl_s",
    "EFFECT": "effect",
    "MAX_CONCURRENCY": "max_concurrency",
    "SCOPE": "scope",
    "TIMEOUT": "timeout_s",
}
"""What a tool's options are called that agents have as attributes."""
_OF_SERVER: Final = {"CACHE_TTL": "ttl_s", "TIMEOUT": "timeout_s"}
"""Those that the settings of a tool's server have in their place."""


class Named(Protocol):
    """Whatever says whom it is of."""

    @property
    def kind(self) -> Kind:
        """What it is."""
        ...

    @property
    def name(self) -> str:
        """What it is called."""
        ...


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent or tool declares, times in seconds.

    None is what it leaves to the settings or, for `max_concurrency`, does not limit. `per_call`
    says that it decides on caching anew for each call: then `effect`, `cacheable`, `ttl_s` and
    `timeout_s` say nothing of any one of them. `in_threads` is for synchronous agents. `server` is
    the MCP server that a tool is of. `whole` is False where only its effect is known: a tool of a
    program that does not run here.
    """

    effect: EffectKind = EffectKind.UNKNOWN
    cacheable: bool = False
    ttl_s: float | None = None
    timeout_s: float | None = None
    max_concurrency: int | None = None
    per_call: bool = False
    in_threads: bool = False
    server: str = ""
    whole: bool = True

    @property
    def repeatable(self) -> bool:
        """Whether running it twice does no harm."""
        return self.effect in (EffectKind.READ, EffectKind.PURE)

    @property
    def cached(self) -> bool:
        """Whether its results are cached, as long as the cache is on."""
        return self.repeatable and self.cacheable and self.ttl_s != 0


class Known(msgspec.Struct, frozen=True):
    """The settings, and what the agents and tools of now declare, by name. Of those that are
    recorded and not here nothing is known."""

    settings: Settings = Settings()
    agents: Mapping[str, Declared] = {}
    tools: Mapping[str, Declared] = {}

    def has(self, one: Named) -> bool:
        """Whether it is an agent or a tool of now."""
        return one.name in self._of_kind(one.kind)

    def of(self, one: Named) -> Declared:
        """What it declares; nothing where that is not known."""
        there = self._of_kind(one.kind).get(one.name)
        if there is None:
            return _TOOL if one.kind is Kind.TOOL else _NOTHING
        return there

    def ttl_s(self, one: Named) -> float:
        """How long its results are valid."""
        said = self.of(one).ttl_s
        return self.settings.cache.default_ttl_s if said is None else said

    def timeout_s(self, one: Named) -> float:
        """How long one execution may take."""
        settings = self.settings
        default_s = (
            settings.chat.tool_timeout_s if one.kind is Kind.TOOL else settings.run.timeout_s
        )
        return self.of(one).timeout_s or default_s

    def change(self, one: Named, name: str, value: str | bool | Number) -> Change:  # noqa: FBT001
        """What it would have to declare, by the name that an attribute of an agent has."""
        if one.kind is not Kind.TOOL:
            return Change("agent", name, value)
        server = self.of(one).server
        if server and name in _OF_SERVER:
            return Change("settings", f"mcp.{server}.{_OF_SERVER[name]}", value)
        return Change("tool", _OF_TOOL[name], value)

    def _of_kind(self, kind: Kind) -> Mapping[str, Declared]:
        if kind is Kind.TOOL:
            return self.tools
        return self.agents if kind is Kind.AGENT else {}


_NOTHING: Final = Declared()
_TOOL: Final = Declared(cacheable=True, ttl_s=0.0, whole=False)
"""A tool of which nothing is known declares what it says nothing of: to keep no results."""
