"""Tiers on a test's server, and what they told."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paceline.cache.redis.tier import RedisTier
from paceline.clock import Clock, SystemClock

if TYPE_CHECKING:
    from paceline.errors import StorageError

__all__ = ["HOUR_NS", "Told", "key", "open_tier", "until"]

HOUR_NS = 3_600_000_000_000


def key(number: int) -> bytes:
    """A key of the usual length."""
    return number.to_bytes(32, "big")


class Told:
    """What a tier said: keys that others changed (None: all may have), and troubles."""

    def __init__(self) -> None:
        self.keys: list[bytes | None] = []
        self.troubles: list[StorageError] = []


def open_tier(
    url: str, *, clock: Clock | None = None, told: Told | None = None, **options: Any
) -> RedisTier:
    """A tier with a budget that a busy machine keeps, unless told otherwise."""
    told = told or Told()
    return RedisTier(
        url,
        clock=clock or SystemClock(),
        on_trouble=told.troubles.append,
        on_invalidated=told.keys.append,
        **{"budget_s": 2.0, **options},
    )


async def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    """Lets the loop run until it is so."""
    loop = asyncio.get_running_loop()
    due = loop.time() + within_s
    while not condition():
        assert loop.time() < due, "it never came to that"
        await asyncio.sleep(0)
