"""`paceline agents` and `paceline reload`: which agents there are, and which cannot be used."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from paceline.agents.spec import AgentSpec
from paceline.cli.completed import completed
from paceline.cli.output import FAILED, OK, json_line, line, note, problem, problem_data, table
from paceline.cli.place import Place
from paceline.disk_space import storage_error
from paceline.runtime import Runtime
from paceline.settings import FleetSettings

__all__ = ["list_agents", "reload"]


def list_agents(place: Place, dirs: Sequence[Path] | None, *, as_json: bool) -> int:
    """Shows every agent; 1 if a module cannot be used."""
    runtime = completed(_loaded(place, dirs))
    specs = sorted(runtime.registry.snapshot().values(), key=lambda spec: spec.name)
    broken = runtime.registry.broken
    fleets = runtime.settings.fleets
    if as_json:
        json_line(
            {
                "agents": [_data(spec, fleets) for spec in specs],
                "broken": {name: problem_data(error) for name, error in broken.items()},
                "notices": runtime.notices,
            }
        )
        return FAILED if broken else OK
    table(
        ("agent", "cached", "source", *(("instances",) if fleets else ()), "description"),
        [
            (
                spec.name,
                _cached(spec),
                spec.source,
                *((_kinds(fleets, spec.name),) if fleets else ()),
                spec.description,
            )
            for spec in specs
        ],
        empty="no agents; put modules into ./agents, or name a directory with --agents",
    )
    for notice in runtime.notices:
        note(f"note: {notice}")
    for name, error in broken.items():
        problem(error, f"broken: {name}")
    return FAILED if broken else OK


def reload(place: Place, dirs: Sequence[Path] | None) -> int:
    """Loads every module afresh, says what came of it, and signals running processes."""
    runtime = completed(_loaded(place, dirs))
    _signal(place)
    line(f"{len(runtime.registry.snapshot())} agents loaded; running processes are told")
    for name, error in runtime.registry.broken.items():
        problem(error, f"broken: {name}")
    return FAILED if runtime.registry.broken else OK


def _signal(place: Place) -> None:
    try:
        place.home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.home.reload_stamp.touch()
    except OSError as exc:
        stamp = place.home.reload_stamp
        raise storage_error(
            f"running processes cannot be told: {stamp}: {exc.strerror}", exc, stamp.parent
        ) from exc


async def _loaded(place: Place, dirs: Sequence[Path] | None) -> Runtime:
    """A runtime that has loaded its agents, closed again: its registry stays readable."""
    settings = place.settings({"agents": {"watch": False}})
    runtime = place.runtime(settings, dirs, persist=False)
    async with runtime:
        return runtime


def _cached(spec: AgentSpec) -> str:
    if spec.planner is not None:
        return "by call"
    if not spec.cacheable:
        return "no"
    return "default time" if spec.ttl_s is None else f"{spec.ttl_s:g} s"


def _kinds(fleets: Mapping[str, FleetSettings], name: str) -> str:
    """How many instances there are, and of which kinds, such as "2 http, 1 local"."""
    fleet = fleets.get(name)
    counts = Counter(one.kind for one in fleet.instances) if fleet is not None else Counter[str]()
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "-"


def _data(spec: AgentSpec, fleets: Mapping[str, FleetSettings]) -> dict[str, object]:
    fleet = fleets.get(spec.name, FleetSettings())
    return {
        "name": spec.name,
        "description": spec.description,
        "source": spec.source,
        "cached": _cached(spec),
        "effect": spec.effect.kind,
        "scope": spec.scope,
        "timeout_s": spec.timeout_s,
        "max_concurrency": spec.max_concurrency,
        "capabilities": spec.capabilities,
        "tools": sorted(spec.tools),
        "version": spec.version,
        "warnings": spec.warnings,
        "instances": [
            {"id": one.named(number), "kind": one.kind}
            for number, one in enumerate(fleet.instances, 1)
        ],
    }
