"""`paceline doctor`: is everything as it should be here, and what to do where it is not."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from paceline.agents.registry import AgentRegistry
from paceline.cli.completed import completed
from paceline.cli.doctor_host import examine_host
from paceline.cli.doctor_shared import examine_shared
from paceline.cli.doctor_state import examine_state
from paceline.cli.finding import Finding, broken
from paceline.cli.output import FAILED, OK, json_line, table
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.config import PREFIX, shown_address
from paceline.errors import ConfigError, PacelineError
from paceline.path.jobs import HOST_EXEC
from paceline.redaction import MASK, Redactor
from paceline.served_models import with_served_models
from paceline.settings import SECRET, Settings

__all__ = ["doctor"]

_TOLD_OF: Final = ("fleets.", "models.", "mcp.")
_ADDRESSES: Final = frozenset({"cache.shared_url", "hostexec.url"})


def doctor(place: Place, dirs: Sequence[Path] | None, *, as_json: bool) -> int:
    """Looks at everything; 1 if something is broken."""
    findings = completed(_examine(place, dirs))
    if as_json:
        json_line({"home": str(place.home.path), "findings": findings})
    else:
        table(
            ("what", "state", "detail", "next step"),
            [(f.what, f.state, f.detail, f.next_step) for f in findings],
        )
    return FAILED if any(f.state == "broken" for f in findings) else OK


async def _examine(place: Place, chosen: Sequence[Path] | None) -> list[Finding]:
    settings, findings = _settings(place)
    findings += examine_state(place.home)
    findings += [found async for found in examine_shared(settings.cache)]
    dirs: list[Path] = []
    there: set[str] | None = None
    try:
        dirs = place.agent_dirs(settings, chosen)
        registry = _loaded(settings, dirs)
        agents = [*_agents(registry)]
        there = {*registry.snapshot(), *registry.broken}
        if settings.hostexec.mode != "off":
            there.add(HOST_EXEC)
    except PacelineError as exc:
        agents = [broken("agent modules", exc)]
    try:
        settings = with_served_models(settings)
    except ConfigError as exc:
        findings.append(broken("models", exc))
    if settings.models or settings.mcp or settings.chat.model:
        from paceline.cli.doctor_sessions import examine_sessions  # noqa: PLC0415 (most have none)

        findings += examine_sessions(settings, place)
    if settings.fleets:
        from paceline.cli.doctor_fleets import examine_fleets  # noqa: PLC0415 (most have none)

        findings += await examine_fleets(settings, place, there)
    findings += agents
    findings += [found async for found in examine_host(settings.hostexec, place, dirs)]
    return findings


def _settings(place: Place) -> tuple[Settings, list[Finding]]:
    """The settings, or the defaults where they cannot be used; and where values are from."""
    settings = Settings()
    try:
        settings = place.settings()
        source = str(place.config) if place.config else "defaults and environment"
        findings = [Finding("settings", "ok", source)]
    except PacelineError as exc:
        findings = [broken("settings", exc)]
    try:
        given = place.given()
    except PacelineError:
        return settings, findings  # whose error says the place already
    for name, (value, source) in given.items():
        variable = PREFIX + name.replace(".", "_").upper()
        where = variable if variable in place.environ else source
        shown = shown_address if name in _ADDRESSES else Redactor().text
        text = MASK if name in SECRET else shown(_brief(name, value))
        findings.append(Finding(name, "ok", f"{text} (from {where})"))
    return settings, findings


def _brief(name: str, value: object) -> str:
    """A value on a line; of what more is said of further down, its keys."""
    if isinstance(value, Mapping) and name.startswith(_TOLD_OF):
        return ", ".join(map(str, cast("Mapping[str, object]", value)))
    return str(value)  # pyright: ignore[reportUnknownArgumentType]


def _loaded(settings: Settings, dirs: Sequence[Path]) -> AgentRegistry:
    registry = AgentRegistry(
        dirs,
        import_timeout_s=settings.agents.import_timeout_s,
        legacy_default_cacheable=settings.agents.legacy_default_cacheable,
        clock=SystemClock(),
    )
    registry.reload()
    return registry


def _agents(registry: AgentRegistry) -> Iterator[Finding]:
    yield Finding("agent modules", "ok", ", ".join(registry.snapshot()) or "none")
    for name, error in registry.broken.items():
        yield broken(f"agent {name}", error)
    for text in registry.warnings:
        yield Finding("agent modules", "warning", text)
