"""The right to compute a result, held by one of all processes; and waiting for who holds it."""

import asyncio
import contextlib
from collections.abc import Callable, Generator
from typing import Any, Final, Self, final

from paceline.cache.redis.wire import Wire, is_error, pack_command

__all__ = ["Lease", "LeaseAsk", "Watchers"]

_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0"


@final
class Lease:
    """Held from when it was given until `release` or its end in time, whichever is first.

    Its random token makes sure that nobody releases a lease that has become another's.
    """

    __slots__ = ("_name", "_token", "_wire")

    def __init__(self, name: bytes, token: bytes, wire: Callable[[], Wire | None]) -> None:
        self._name = name
        self._token = token
        self._wire = wire

    def claim(self, ttl_s: float) -> bytes:
        """The command that asks for it."""
        lifetime_ms = max(1, round(ttl_s * 1_000))
        return pack_command(("SET", self._name, self._token, "NX", "PX", lifetime_ms))

    async def release(self) -> bool:
        """Gives it back; False if it had ended already or the server cannot be asked."""
        wire = self._wire()
        return wire is not None and bool(await wire.ask(*self._giving_back()) == 1)

    def give_back(self, wire: Wire) -> None:
        """The same, without waiting."""
        wire.send(pack_command(self._giving_back()), _Nobody())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        wire = self._wire()
        if wire is not None:
            self.give_back(wire)

    def _giving_back(self) -> tuple[str | bytes, ...]:
        return ("EVAL", _RELEASE, "1", self._name, self._token)


@final
class LeaseAsk:
    """Waits for a lease; one that is given too late, or to somebody who has gone, goes back."""

    __slots__ = ("_future", "_lease", "_wire")

    def __init__(self, loop: asyncio.AbstractEventLoop, lease: Lease, wire: Wire) -> None:
        self._future: asyncio.Future[bool] = loop.create_future()
        self._lease = lease
        self._wire = wire

    async def given(self) -> bool:
        """Whether it was, in time."""
        try:
            return await self._future
        except asyncio.CancelledError:
            if not self._future.cancelled() and self._future.result():
                self._lease.give_back(self._wire)  # it came while the caller was leaving
            raise

    def settle(self, reply: Any) -> None:
        given = reply == b"OK" and not is_error(reply)
        if not self._future.done():
            self._future.set_result(given)
        elif given:
            self._lease.give_back(self._wire)

    def late(self) -> None:
        if not self._future.done():
            self._future.set_result(False)


@final
class _Nobody:
    """Waits for a reply of which nothing is wanted."""

    __slots__ = ()

    def settle(self, reply: Any) -> None:
        """Nothing depends on it: what was not given back ends by itself."""

    def late(self) -> None:
        """As little."""


@final
class Watchers:
    """Who is to be woken when something about a key changes."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[bytes, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watching(self, key: bytes) -> Generator[asyncio.Event]:
        """An event that is set by every change."""
        event = asyncio.Event()
        self._by_key.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            events = self._by_key[key]
            events.discard(event)
            if not events:
                del self._by_key[key]

    def wake(self, key: bytes) -> None:
        """Something about this key changed."""
        for event in self._by_key.get(key, ()):
            event.set()

    def wake_all(self) -> None:
        """Nothing more will be heard of any key."""
        for events in self._by_key.values():
            for event in events:
                event.set()
