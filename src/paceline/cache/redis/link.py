"""A connection to a Redis server that is kept: opened in the background, watched, opened anew.

While there is none, nobody waits for one: `wire` is None. A breaker decides when to try again.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, Protocol, final

from paceline.breaker import Breaker, BreakerState
from paceline.cache.redis.address import RedisAddress
from paceline.cache.redis.wire import LOST, Wire, is_error
from paceline.clock import Clock
from paceline.errors import Category, ConfigError, StorageError

__all__ = ["Listener", "RedisLink"]

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 1.0  # for what is asked before the connection is used
_HEARTBEAT_S: Final = 0.5
_LATE_IN_A_ROW: Final = 4
_WAIT_S, _LONGEST_WAIT_S = 0.05, 5.0


class Listener(Protocol):
    """A part that uses the connection. All of this happens in the loop."""

    def greet(self, wire: Wire) -> None:
        """A new connection: send what has to come before all else."""
        ...

    def push(self, message: list[Any]) -> None:
        """The server told something."""
        ...

    def beat(self, wire: Wire) -> None:
        """About half a second has passed."""
        ...

    def lost(self) -> None:
        """There is no connection. May be told more than once, and before the first one."""
        ...


@final
class RedisLink:
    """Keeps one connection to `address` on the running loop from `open` to `close`.

    `tracked` are the prefixes of keys whose changes by others are pushed. Commands are to be
    answered within `budget_s` seconds: late ones in a row end the connection. `on_trouble` is
    told once for every time without a connection.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        clock: Clock,
        budget_s: float,
        tracked: tuple[bytes, ...],
        on_trouble: Callable[[StorageError], None],
        dice: random.Random | None,
    ) -> None:
        self.address = address
        self.wire: Wire | None = None
        self.listeners: list[Listener] = []
        self.connections = 0
        self.late = 0
        self._clock = clock
        self._budget_s = budget_s
        self._tracked = tracked
        self._on_trouble = on_trouble
        self._breaker = Breaker(
            clock,
            failures=_LATE_IN_A_ROW,
            wait_s=_WAIT_S,
            longest_wait_s=_LONGEST_WAIT_S,
            dice=dice,
        )
        self._permit = 0
        self._late_before_reply = False
        self._late_ns = 0
        self._troubled = False
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    @property
    def state(self) -> BreakerState:
        """Of the breaker."""
        return self._breaker.state

    async def open(self, patience_s: float) -> None:
        """Starts connecting, and waits for the first try to end, so many seconds at most."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="redis link")
        try:
            async with asyncio.timeout(patience_s):
                await self._tried.wait()
        except TimeoutError:
            return
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends the connection; whoever waits for a reply is told at once."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            permit = self._breaker.admit()
            if not permit:
                await asyncio.sleep(self._breaker.remaining_ns() / 1e9)
                continue
            wire = await self._try()
            self._tried.set()
            if wire is None:
                self._breaker.trip()
                continue
            self._breaker.succeeded(permit)
            self._permit = self._breaker.admit()
            self._troubled = False
            try:
                await self._watch(wire)
            finally:
                self.wire = None
                wire.close()
                for listener in self.listeners:
                    listener.lost()
            self._breaker.trip()
            self._tell("the connection was lost")

    async def _try(self) -> Wire | None:
        wire: Wire | None = None
        try:
            async with asyncio.timeout(_CONNECT_S):
                wire = await self._connect()
                refusal = await self._greet(wire)
        except TimeoutError:
            refusal = "it does not answer"
        except ConfigError as exc:
            refusal = exc.message
        except (OSError, ValueError) as exc:
            refusal = getattr(exc, "strerror", None) or type(exc).__name__
        finally:
            if wire is not None and self.wire is not wire:
                wire.close()
        if refusal is None:
            return wire
        for listener in self.listeners:
            listener.lost()
        self._tell(refusal)
        return None

    async def _connect(self) -> Wire:
        loop, address = asyncio.get_running_loop(), self.address

        def make() -> Wire:
            return Wire(
                loop,
                patience_s=_ANSWER_S,
                on_push=self._push,
                on_late=self._count_late,
                on_reply=self._count_reply,
            )

        # Read anew each time: certificates are renewed while processes run.
        tls = address.tls_context()
        if address.path:
            _, wire = await loop.create_unix_connection(make, address.path)
        else:
            _, wire = await loop.create_connection(make, address.host, address.port, ssl=tls)
        return wire

    async def _greet(self, wire: Wire) -> str | None:
        """Makes a new connection ready for use; why it cannot be used, or None."""
        commands: list[tuple[str | bytes, ...]] = [self.address.hello()]
        if self.address.db:
            commands.append(("SELECT", str(self.address.db)))
        prefixes = [part for prefix in self._tracked for part in ("PREFIX", prefix)]
        commands.append(("CLIENT", "TRACKING", "ON", "BCAST", *prefixes, "NOLOOP"))
        for reply in await asyncio.gather(*(wire.ask(*command) for command in commands)):
            if reply is None or reply is LOST:
                return "it does not answer"
            if is_error(reply):
                said = self.address.without_secrets(str(reply))[:200]
                return f"it says {said!r} (Redis 6 or later, or Valkey, is needed)"
        for listener in self.listeners:
            listener.greet(wire)
        if await wire.ask("PING") != b"PONG":  # behind whatever the greetings asked
            return "it does not answer"
        wire.expect(self._budget_s)
        if await wire.ask("PING") != b"PONG":
            return "it answers too slowly"
        self.wire = wire
        self.connections += 1
        return None

    async def _watch(self, wire: Wire) -> None:
        while not wire.closed.done():
            await asyncio.wait([wire.closed], timeout=_HEARTBEAT_S)
            if wire.usable:
                for listener in self.listeners:
                    listener.beat(wire)
                await wire.ask("PING")

    def _push(self, message: list[Any]) -> None:
        for listener in self.listeners:
            listener.push(message)

    def _count_reply(self) -> None:
        if self._late_before_reply:
            self._late_before_reply = False
            self._breaker.succeeded(self._permit)

    def _count_late(self) -> None:
        self.late += 1
        self._late_before_reply = True
        # Many that wait for the same hiccup of the server are one failure.
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._late_ns >= self._budget_s * 1e9:
            self._late_ns = now_ns
            self._breaker.failed(self._permit)
        if self.wire is not None and self._breaker.state is not BreakerState.CLOSED:
            self.wire.close()

    def _tell(self, reason: str) -> None:
        if self._troubled:
            return
        self._troubled = True
        self._on_trouble(
            StorageError(
                f"the Redis server at {self.address} is not used: {reason}",
                category=Category.UNAVAILABLE,
                next_step="Results are computed or found elsewhere meanwhile; check the server "
                "and its address. It is tried again by itself.",
            )
        )
