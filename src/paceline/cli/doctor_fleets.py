"""`paceline doctor` on the instances of agents: can they be used as they are set, and do they answer."""

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final, cast

from msgspec.structs import replace

from paceline.balance.fallback import Answer, fallbacks_of
from paceline.cli.finding import Finding, broken
from paceline.cli.place import Place
from paceline.cli.stated import stated
from paceline.clock import SystemClock
from paceline.config import shown_address
from paceline.errors import CallTimeoutError, ConfigError, PacelineError
from paceline.settings import FleetSettings, InstanceSettings, Settings

if TYPE_CHECKING:
    from paceline.instances.protocol import Target

__all__ = ["examine_fleets"]

_PATIENCE_S: Final = 10.0
_MS: Final = 1e6
_ADD: Final = "Add a module {0}, or register the agent before it is called."
_SPREADING: Final = ("strategy", "concurrency", "hedge")
_DESCRIBING: Final = ("description", "effect", "cache_ttl_s", "timeout_s")


async def examine_fleets(
    settings: Settings, place: Place, there: Collection[str] | None
) -> list[Finding]:
    """Each instance: whether its settings and its token are there, and how long it takes to say
    that it is. No agent and no model is given work. Takes some ten seconds at most.

    `there` are the agents that are no fleets; None where nobody knows."""
    found = [*_chains(settings), *(() if there is None else _agents(settings, there))]
    looks = [
        _looked_at(settings, place, name, replace(one, id=one.named(number)))
        if one.kind != "local"
        else _done_by(name, replace(one, id=one.named(number)), there)
        for name, fleet in settings.fleets.items()
        for number, one in enumerate(fleet.instances, 1)
    ]
    return [*found, *await asyncio.gather(*looks)]


def _chains(settings: Settings) -> list[Finding]:
    """What is wrong with fleets as a whole."""
    found: list[Finding] = []
    for name, fleet in settings.fleets.items():
        ids = [one.named(number) for number, one in enumerate(fleet.instances, 1)]
        twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
        if twice:
            error = ConfigError(f"there are two instances with the id {twice[0]}")
            found.append(broken(f"fleet {name}", error))
        try:
            fallbacks_of(name, fleet.fallback)
        except ConfigError as exc:
            found.append(broken(f"fleet {name}", exc))
    return found


def _agents(settings: Settings, there: Collection[str]) -> Iterator[Finding]:
    """What fleets rely on that is not there, and what of them nothing relies on. Programs may
    register agents and instances of their own, so it may be right nevertheless."""
    fleets = settings.fleets
    known = {*there, *(name for name, fleet in fleets.items() if fleet.instances)}
    for name, fleet in fleets.items():
        what = f"fleet {name}"
        if name not in known:
            step = f"Add [[fleets.{name}.instances]], or a module {name}; or remove it."
            said = f"it has no instances, and there is no agent {name}: nothing heeds it"
            yield Finding(what, "warning", said, step)
            continue
        with contextlib.suppress(ConfigError):  # which was said before
            for other in fallbacks_of(name, fleet.fallback):
                if other.answer is Answer.AGENT and other.value not in known:
                    said = f'its fallback is "{other}", and there is no agent {other.value}'
                    yield Finding(what, "warning", said, _ADD.format(other.value))
        yield from _unheeded(what, fleet, there=name in there)


def _unheeded(what: str, fleet: FleetSettings, *, there: bool) -> Iterator[Finding]:
    """Settings of a fleet that have no effect."""
    plain = FleetSettings()
    for keys, idle, why, step in (
        (_SPREADING, not fleet.instances, "without instances", "Add instances"),
        (_DESCRIBING, there, "as the agent has a module", "Say it in the module"),
    ):
        given = [key for key in keys if getattr(fleet, key) != getattr(plain, key)]
        if idle and given:
            have = "has" if len(given) == 1 else "have"
            said = f"{', '.join(given)} {have} no effect: {why}"
            yield Finding(what, "warning", said, f"{step}, or leave it out.")


async def _done_by(name: str, wanted: InstanceSettings, there: Collection[str] | None) -> Finding:
    """Whether there is an agent to do the work of a local instance."""
    what = f"instance {name}/{wanted.id}"
    if there is None or name in there:
        return Finding(what, "ok", "done here")
    said = f"it is of the kind local, and there is no agent {name} to do it"
    return Finding(what, "warning", said, _ADD.format(name))


async def _looked_at(
    settings: Settings, place: Place, name: str, wanted: InstanceSettings
) -> Finding:
    what = f"instance {name}/{wanted.id}"
    fleet = replace(settings.fleets[name], instances=(wanted,))
    clock = SystemClock()
    try:
        fleets = stated(replace(settings, fleets={name: fleet}), place)
        for _, trouble in fleets.troubles:
            return broken(what, trouble)
        (instance,) = fleets.balancer.instances[name]
        target = cast("Target", instance.target)
        async with asyncio.timeout(_PATIENCE_S), contextlib.AsyncExitStack() as parts:
            await parts.enter_async_context(target)
            start_ns = clock.monotonic_ns()
            await target.probe()
            took_ms = (clock.monotonic_ns() - start_ns) / _MS
    except PacelineError as exc:
        return broken(what, exc)
    except TimeoutError:
        return broken(what, CallTimeoutError(f"{what} does not answer in {_PATIENCE_S:g} s"))
    token = f", with the token of {wanted.token_env}" if wanted.token_env else ""
    return Finding(what, "ok", f"{_where(wanted)}: answers in {took_ms:.3g} ms{token}")


def _where(wanted: InstanceSettings) -> str:
    place = shown_address(wanted.url) if wanted.url else wanted.function
    return f"{wanted.model} at {place}" if wanted.model else place
