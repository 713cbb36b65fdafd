"""`paceline doctor` on the tier that machines share: is its server there, which, how fast."""

import random
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from paceline.cli.finding import Finding, broken
from paceline.clock import SystemClock
from paceline.errors import PacelineError, StorageError
from paceline.settings import CacheSettings
from paceline.state import shared_address

if TYPE_CHECKING:
    from paceline.cache.redis.wire import Wire

__all__ = ["examine_shared"]

_WHAT: Final = "shared tier"
_PATIENCE_S: Final = 2.0
_ROUNDS: Final = 5
_MS: Final = 1e6
_VERSION: Final = re.compile(rb"^(valkey|redis)_version:([0-9.]+)", re.MULTILINE)
_CHECK: Final = (
    "Start it, or correct cache.shared_url; meanwhile each machine keeps its own results."
)


async def examine_shared(settings: CacheSettings) -> AsyncIterator[Finding]:
    """The server of `cache.shared_url`, if one is set; takes some two seconds at most."""
    if not settings.shared_url:
        return
    if not settings.enabled:
        yield Finding(_WHAT, "ok", "not used: cache.enabled is off")
        return
    try:
        yield await _tried(settings)
    except PacelineError as exc:
        yield broken(_WHAT, exc)


async def _tried(settings: CacheSettings) -> Finding:
    from paceline.cache.redis.link import RedisLink  # noqa: PLC0415 (needs the extra)

    address = shared_address(settings)
    troubles: list[StorageError] = []
    link = RedisLink(
        address,
        clock=SystemClock(),
        budget_s=_PATIENCE_S,
        tracked=(settings.shared_namespace.encode(),),
        on_trouble=troubles.append,
        dice=random.Random(),  # noqa: S311 (guards nothing)
    )
    try:
        await link.open(_PATIENCE_S)
        if link.wire is None:
            said = troubles[0].message if troubles else f"{address} does not answer"
            raise StorageError(said, next_step=_CHECK)
        return await _looked_at(link.wire, str(address), settings.shared_budget_s)
    finally:
        await link.close()


async def _looked_at(wire: "Wire", address: str, budget_s: float) -> Finding:
    """Which server it is, and the best time of a few answers."""
    told = await wire.ask("INFO", "server")
    # Valkey tells a version of Redis too, which it is compatible with.
    found = max(_VERSION.findall(told), default=None) if isinstance(told, bytes) else None
    server = "version unknown"
    if found is not None:
        server = f"{found[0].decode().capitalize()} {found[1].decode()}"
    clock = SystemClock()
    took_ns: list[int] = []
    for _ in range(_ROUNDS):
        start_ns = clock.monotonic_ns()
        if await wire.ask("PING") != b"PONG":
            raise StorageError(f"{address} stopped to answer", next_step=_CHECK)
        took_ns.append(clock.monotonic_ns() - start_ns)
    best_ns = min(took_ns)
    detail = f"{address}: {server}, answers in {best_ns / _MS:.3g} ms"
    if best_ns <= budget_s * 1e9:
        return Finding(_WHAT, "ok", detail)
    advice = f"Raise cache.shared_budget_s ({budget_s:g}), or use a nearer server: all is a miss."
    return Finding(_WHAT, "warning", detail, advice)
