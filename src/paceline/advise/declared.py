"""What is known of those who are advised, beside their calls: declarations and settings."""

from collections.abc import Mapping

import msgspec

from paceline.call import EffectKind
from paceline.settings import Settings

__all__ = ["Declared", "Known"]


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent declares, times in seconds.

    None is what it leaves to the settings or, for `max_concurrency`, does not limit. `per_call`
    says that it decides on caching anew for each call: then `effect`, `cacheable`, `ttl_s` and
    `timeout_s` say nothing of any one of them. `in_threads` is for synchronous agents.
    """

    effect: EffectKind = EffectKind.UNKNOWN
    cacheable: bool = False
    ttl_s: float | None = None
    timeout_s: float | None = None
    max_concurrency: int | None = None
    per_call: bool = False
    in_threads: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether running it twice does no harm."""
        return self.effect in (EffectKind.READ, EffectKind.PURE)

    @property
    def cached(self) -> bool:
        """Whether its results are cached, as long as the cache is on."""
        return self.repeatable and self.cacheable and self.ttl_s != 0


class Known(msgspec.Struct, frozen=True):
    """The settings, and what the agents of now declare, by name. Of those that are recorded and
    not here nothing is known."""

    settings: Settings = Settings()
    agents: Mapping[str, Declared] = {}

    def has(self, name: str) -> bool:
        """Whether it is an agent of now."""
        return name in self.agents

    def of(self, name: str) -> Declared:
        """What an agent declares; nothing where it is not known."""
        return self.agents.get(name, Declared())

    def ttl_s(self, name: str) -> float:
        """How long its results are valid."""
        said = self.of(name).ttl_s
        return self.settings.cache.default_ttl_s if said is None else said

    def timeout_s(self, name: str) -> float:
        """How long one execution may take."""
        return self.of(name).timeout_s or self.settings.run.timeout_s
