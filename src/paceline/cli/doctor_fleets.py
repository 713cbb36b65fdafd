"""`paceline doctor` on the instances of agents: can they be used as they are set, and do they answer."""

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final, cast

from msgspec.structs import replace

from paceline.balance.fallback import fallbacks_of
from paceline.call import Call
from paceline.cli.finding import Finding, broken
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.config import shown_address
from paceline.errors import CallTimeoutError, ConfigError, PacelineError
from paceline.fleets import Fleets
from paceline.settings import InstanceSettings, Settings

if TYPE_CHECKING:
    from paceline.instances.protocol import Target

__all__ = ["examine_fleets"]

_PATIENCE_S: Final = 10.0
_MS: Final = 1e6


async def examine_fleets(settings: Settings, place: Place) -> list[Finding]:
    """Each instance: whether its settings and its token are there, and how long it takes to say
    that it is. No agent and no model is given work. Takes some ten seconds at most."""
    found = [*_chains(settings)]
    looks = [
        _looked_at(settings, place, name, replace(one, id=one.named(number)))
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


async def _looked_at(
    settings: Settings, place: Place, name: str, wanted: InstanceSettings
) -> Finding:
    what = f"instance {name}/{wanted.id}"
    fleet = replace(settings.fleets[name], instances=(wanted,))
    clock = SystemClock()
    try:
        fleets = Fleets(
            replace(settings, fleets={name: fleet}),
            clock=clock,
            rng=random.Random(),  # noqa: S311 (guards nothing)
            environ=place.environ,
            local=_done_here,
        )
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
    if wanted.kind == "local":
        return Finding(what, "ok", "done here")
    token = f", with the token of {wanted.token_env}" if wanted.token_env else ""
    return Finding(what, "ok", f"{_where(wanted)}: answers in {took_ms:.3g} ms{token}")


def _where(wanted: InstanceSettings) -> str:
    place = shown_address(wanted.url) if wanted.url else wanted.function
    return f"{wanted.model} at {place}" if wanted.model else place


async def _done_here(call: Call) -> object:
    """Nothing is run to see whether it could be."""
    raise AssertionError(call)
