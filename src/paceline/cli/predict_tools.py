"""What is known of tools by name, where nothing of theirs is run."""

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from paceline.agents.spec import AgentSpec
from paceline.call import Effect, EffectKind
from paceline.cli.completed import completed
from paceline.cli.output import note
from paceline.cli.place import Place
from paceline.errors import InvalidInputError
from paceline.runtime import Runtime
from paceline.tools.spec import ToolSpec

__all__ = ["KnownTools", "Tool", "known_tools", "matching"]

Tool = ToolSpec | AgentSpec


class KnownTools(msgspec.Struct, frozen=True):
    """Agents and tools of MCP servers there are, and the effects that running programs knew of
    theirs."""

    there: Mapping[str, Tool]
    effects: Mapping[str, EffectKind] = {}

    def effect(self, name: str) -> EffectKind | None:
        """What a tool does; None where nothing is known of it here."""
        tool = self.there.get(name)
        return self.effects.get(name) if tool is None else tool.effect.kind

    def read_only(self, names: Collection[str]) -> frozenset[str]:
        """Those of them that are known to change nothing."""
        return frozenset(
            name
            for name in names
            if (kind := self.effect(name)) is not None and Effect(kind).repeatable
        )

    def unknown(self, names: Collection[str]) -> list[str]:
        """Those of them of whose effect nothing is known."""
        return sorted(name for name in names if self.effect(name) in {None, EffectKind.UNKNOWN})

    def schemas(self) -> dict[str, Mapping[str, object]]:
        """Of the parameters of tools, by name."""
        return {
            name: tool.definition.parameters
            for name, tool in self.there.items()
            if isinstance(tool, ToolSpec)
        }


def known_tools(
    place: Place, dirs: Sequence[Path] | None, effects: Mapping[str, EffectKind]
) -> KnownTools:
    """Loads the agents there are, and asks the MCP servers in the settings for their tools; one that
    cannot be used is told of."""
    settings = place.settings({"agents": {"watch": False}})
    runtime = place.runtime(settings, dirs, persist=False)
    tools = completed(_there(runtime))
    for notice in runtime.notices:
        note(f"note: {notice}")
    return KnownTools(tools, effects)


async def _there(runtime: Runtime) -> Mapping[str, Tool]:
    async with runtime:
        return await runtime.sessions.tools()


def matching(names: Collection[str], patterns: Sequence[str]) -> frozenset[str]:
    """The names that one of the patterns means. Raises InvalidInputError for a pattern that means
    none: with it the figures would be of something else."""
    found: set[str] = set()
    for pattern in patterns:
        meant = fnmatch.filter(names, pattern)
        if not meant:
            raise InvalidInputError(
                f"no tool that was called is meant by {pattern}",
                next_step=f"Give one name or pattern at a time, the option again for the next. There"
                f" are: {', '.join(sorted(names)) or 'none'}.",
            )
        found.update(meant)
    return frozenset(found)
