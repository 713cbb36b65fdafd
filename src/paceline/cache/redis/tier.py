"""The cold tier: results in Redis or Valkey, which many hosts share.

All that may go wrong with a server (it is away, slow, full, or answers nonsense) is a miss within
the time budget, and nothing is asked of it for a while. One connection serves all callers of a
loop; what they ask in one turn of the loop travels together, reads as one command.
"""

import asyncio
import random
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Self, final

import msgspec

from paceline.cache.entry import PLAIN, About
from paceline.cache.redis.address import RedisAddress
from paceline.cache.redis.generations import RedisGenerations
from paceline.cache.redis.lease import Lease, LeaseAsk, Watchers
from paceline.cache.redis.link import RedisLink
from paceline.cache.redis.reads import Counts, Reads
from paceline.cache.redis.record import Found, Kept, pack, peek
from paceline.cache.redis.wire import LOST, Wire, is_error, items, pack_command
from paceline.clock import Clock
from paceline.errors import ConfigError, StorageError, UsageError

if TYPE_CHECKING:
    from paceline.cache.generations import Generations

__all__ = ["RedisStats", "RedisTier"]

_MAX_VALUE: Final = 32 * 1024 * 1024
_MAX_KEYS: Final = 256  # of one read, so that the server has time for others in between
_MAX_OWED: Final = 10_000
_LONGEST_NS: Final = 2**62
_LOOK_AGAIN_S: Final = 0.1
_PEEK: Final = 8_192
_PAGE: Final = "250"
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_READY_IN_BUDGETS: Final = 4


class RedisStats(msgspec.Struct, frozen=True):
    """What a cold tier has done.

    `misses` is all that was not found, for whatever reason; `refused` what was not sent or not
    stored, for want of a connection or because of its size; `errors` and `timeouts` are commands;
    `owed` are removals that the server has yet to be told of.
    """

    hits: int = 0
    misses: int = 0
    errors: int = 0
    timeouts: int = 0
    refused: int = 0
    foreign: int = 0
    damaged: int = 0
    batches: int = 0
    invalidations: int = 0
    connections: int = 0
    owed: int = 0
    connected: bool = False


@final
class RedisTier:
    """Results under `namespace` in the server at `url`; see `RedisAddress.parse`.

    To be opened by `async with` on the loop it is used on. Opening does not fail because the
    server is away, and waits for it for a few budgets at most. From then on no method raises
    but CancelledError, and each is answered within about `budget_s` seconds.

    `on_invalidated(key)` is called in the loop when another process stored, removed or lost the
    result under a key, and with None when anything may have changed: after the connection was
    lost, or all was removed. Who keeps what `get` returned has to do so before it next awaits.

    A removal or replacement that the server was not told of is made good before anything is
    read from it again. With `generations`, its stamps are those of all hosts as long as there
    is a connection.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        budget_s: float = 0.05,
        namespace: str = "paceline",
        on_trouble: Callable[[StorageError], None],
        on_invalidated: Callable[[bytes | None], None],
        generations: "Generations | None" = None,
        dice: random.Random | None = None,
    ) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigError(f"{namespace!r} is no namespace: letters, digits, '_', '.', '-'")
        if not 0 < budget_s <= 60:  # noqa: PLR2004 (a minute)
            raise ConfigError("the time budget of the shared cache is over 0 and up to 60 s")
        self.address = RedisAddress.parse(url)
        self._clock = clock
        self._budget_s = budget_s
        self._on_trouble = on_trouble
        self._on_invalidated = on_invalidated
        self._dice = dice
        self._values = f"{namespace}:v:".encode()
        self._leases = f"{namespace}:l:".encode()
        self._generations = generations
        self._stamps = f"{namespace}:g".encode()
        self._mirror: RedisGenerations | None = None
        self._link: RedisLink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = False
        self._watchers = Watchers()
        self._owed: dict[bytes, None] = {}  # removals the server was not told of
        self._owes_all = False
        self._sweep: asyncio.Task[bool] | None = None  # nothing yet
        self._count = Counts()
        self._reads = Reads(self._wire, clock=clock, prefix=self._values, count=self._count)

    async def __aenter__(self) -> Self:
        if self._link is not None:
            raise UsageError("this shared cache is open already")
        self._loop = loop = asyncio.get_running_loop()
        self._link = link = RedisLink(
            self.address,
            clock=self._clock,
            budget_s=self._budget_s,
            tracked=(self._values, self._leases),
            on_trouble=self._on_trouble,
            dice=self._dice,
        )
        link.listeners.append(self)
        if self._generations is not None:
            self._mirror = RedisGenerations(self._generations, key=self._stamps, loop=loop)
            link.listeners.append(self._mirror)
            self._mirror.open()
        try:
            await link.open(self._budget_s * _READY_IN_BUDGETS)
        except asyncio.CancelledError:
            await self.__aexit__()
            raise
        self._ready = True
        return self

    async def __aexit__(self, *_: object) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        self._ready = False
        try:
            if self._sweep is not None:
                self._sweep.cancel()
            if self._mirror is not None:
                await self._mirror.settled()
        finally:
            if self._mirror is not None:
                self._mirror.close()
            await link.close()

    @property
    def connected(self) -> bool:
        """Whether requests are sent at present."""
        wire = self._wire_now()
        return wire is not None and wire.usable

    @property
    def shares_stamps(self) -> bool:
        """Whether the generations given are at present those of all hosts."""
        return self._mirror is not None and self._mirror.shared

    def snapshot(self) -> RedisStats:
        """What this tier has done so far."""
        link = self._link
        return RedisStats(
            **msgspec.structs.asdict(self._count),
            connections=0 if link is None else link.connections,
            owed=len(self._owed),
            connected=self.connected,
        )

    async def get(self, key: bytes, scope: str | None = None) -> Found | None:
        """The valid value under this key, or None. With `scope`, only one that belongs to it."""
        asked = self._reads.ask(key)
        found = None if asked is None else await asked
        if found is None:
            self._count.misses += 1
            return None
        if scope is not None and found.about.scope != scope:
            self._count.foreign += 1
            self._count.misses += 1
            return None
        self._count.hits += 1
        return found

    async def put(self, key: bytes, payload: bytes, ttl_ns: int, about: About = PLAIN) -> bool:
        """Stores a value for `ttl_ns` nanoseconds, in place of what was there; whether it did.

        If it did not, because of the server, its size (over 32 MiB) or a lifetime of 0, what was
        there is removed.
        """
        if ttl_ns <= 0:
            await self.delete(key)
            return False
        ttl_ns = min(ttl_ns, _LONGEST_NS)
        try:
            record = pack(key, payload, ttl_ns, about, self._clock.wall_ns())
        except ValueError:  # text that is no text
            record = None
        if record is None or len(record) > _MAX_VALUE:
            self._count.refused += 1
            await self.delete(key)
            return False
        lifetime_ms = -(-ttl_ns // 1_000_000)
        reply = await self._write(key, ("SET", self._values + key, record, "PX", lifetime_ms))
        return bool(reply == b"OK")

    async def delete(self, key: bytes) -> bool:
        """Removes a value, for all reads from now on; whether the server knows already."""
        return isinstance(await self._write(key, ("UNLINK", self._values + key)), int)

    async def clear(self) -> bool:
        """Removes all values of the namespace, for all reads from now on; whether the server
        did. Takes a round trip for every 250 of them; what is stored meanwhile may stay."""
        self._reads.since_ns = self._clock.wall_ns()
        self._owes_all = True
        return await self._clear()

    async def entries(self) -> list[Kept]:
        """What is stored, in no order, as far as the server can be asked. A round trip for every
        250 of them."""
        found: dict[bytes, Kept] = {}
        now_ns = self._clock.wall_ns()

        async def look(wire: Wire, names: list[bytes]) -> None:
            sizes = [wire.ask("STRLEN", name) for name in names]
            starts = [wire.ask("GETRANGE", name, "0", str(_PEEK - 1)) for name in names]
            replies = await asyncio.gather(*sizes, *starts)
            for name, size, start in zip(names, replies, replies[len(names) :], strict=False):
                kept = peek(start, size, now_ns) if isinstance(start, bytes) else None
                if kept is not None and self._values + kept.key == name and kept.remaining_ns > 0:
                    found[kept.key] = kept

        await self._scan(look)
        return list(found.values())

    async def lease(self, key: bytes, ttl_s: float) -> Lease | None:
        """The sole right to compute the value of this key, for `ttl_s` seconds at most; None if
        another holds it, or the server cannot be asked."""
        wire = self._wire()
        if wire is None:
            return None
        lease = Lease(self._leases + key, secrets.token_bytes(16), self._wire)
        waiting = LeaseAsk(asyncio.get_running_loop(), lease, wire)
        wire.send(lease.claim(ttl_s), waiting)
        return lease if await waiting.given() else None

    async def wait(self, key: bytes, timeout_s: float) -> Found | None:
        """The value that the holder of the lease stores; None if it ends without one, the time
        is up, or the server cannot be asked. At once if nobody holds it."""
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout_s
        with self._watchers.watching(key) as changed:
            while True:
                changed.clear()
                found, wire = await self.get(key), self._wire()
                if found is not None or wire is None:
                    return found
                if await wire.ask("EXISTS", self._leases + key) != 1:
                    return await self.get(key)  # stored just before it ended
                rest_s = min(due - loop.time(), _LOOK_AGAIN_S)
                if rest_s <= 0:
                    return None
                try:
                    async with asyncio.timeout(rest_s):
                        await changed.wait()
                except TimeoutError:
                    continue  # a lease that ran out is told of late

    # ---- what the connection tells

    def greet(self, wire: Wire) -> None:
        """Makes good what the server was not told, before anything is read."""
        owed, self._owed = list(self._owed), {}
        for start in range(0, len(owed), _MAX_KEYS):
            keys = owed[start : start + _MAX_KEYS]
            names = [self._values + key for key in keys]
            wire.send(pack_command(("UNLINK", *names)), _Removal(self, keys))
        if self._ready:
            # From here on changes are pushed; what was changed before is not known.
            asyncio.get_running_loop().call_soon(self._on_invalidated, None)

    def push(self, message: list[Any]) -> None:
        """Passes on what others changed, after the replies that came before it."""
        if message[0] == b"invalidate":
            told: Any = message[1]
            names: list[Any] | None = told if type(told) is list else None  # pyright: ignore[reportUnknownVariableType]
            asyncio.get_running_loop().call_soon(self._pass_on, names)

    def beat(self, wire: Wire) -> None:  # noqa: ARG002 (a Listener's)
        """Removes what is still there of all that was to be removed."""
        if self._owes_all and (self._sweep is None or self._sweep.done()):
            self._sweep = asyncio.get_running_loop().create_task(self._clear())

    def lost(self) -> None:
        """Nobody who waits will hear any more."""
        self._watchers.wake_all()

    def owe(self, keys: Iterable[bytes]) -> None:
        """These are to be removed as soon as the server can be asked."""
        self._owed.update(dict.fromkeys(keys))
        if len(self._owed) > _MAX_OWED:
            self._owed.clear()
            self._owes_all = True
            self._reads.since_ns = self._clock.wall_ns()

    # ---- what commands are told

    def settle_write(self, keys: Iterable[bytes], reply: Any) -> None:
        """What became of a command that stores or removes."""
        if reply is LOST or is_error(reply):
            self._count.errors += 1
            self.owe(keys)
        for key in keys:
            self._watchers.wake(key)

    def late_write(self) -> None:
        """It did not come in time."""
        self._count.timeouts += 1

    def _wire(self) -> Wire | None:
        link = self._link
        if link is None or (wire := link.wire) is None or not wire.usable:
            self._count.refused += 1
            return None
        if self._loop is not asyncio.get_running_loop():
            raise UsageError("a shared cache is used on the event loop it was opened on")
        return wire

    def _wire_now(self) -> Wire | None:
        return None if self._link is None else self._link.wire

    async def _write(self, key: bytes, command: tuple[Any, ...]) -> Any:
        wire = self._wire()
        if wire is None:
            self.owe((key,))
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        wire.send(pack_command(command), _Removal(self, (key,), future))
        reply: Any = await future
        if is_error(reply) and self._owed.pop(key, self) is None:
            # A full server refuses to store, and still has what was there before.
            wire.send(pack_command(("UNLINK", self._values + key)), _Removal(self, (key,)))
        return reply

    async def _clear(self) -> bool:
        async def remove(wire: Wire, names: list[bytes]) -> None:
            await wire.ask("UNLINK", *names)

        if await self._scan(remove):
            self._owes_all = False
        self._watchers.wake_all()
        return not self._owes_all

    async def _scan(self, work: Callable[[Wire, list[bytes]], Awaitable[None]]) -> bool:
        """Does something with all names of values, page by page; whether it got to the end."""
        cursor: str | bytes = "0"
        pattern = self._values + b"*"
        while (wire := self._wire()) is not None:
            reply = await wire.ask("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE)
            page = items(reply, 2)
            if page is None or not isinstance(page[0], bytes) or type(page[1]) is not list:
                return False
            cursor = page[0]
            told: list[Any] = page[1]  # pyright: ignore[reportUnknownVariableType]
            names = [name for name in told if isinstance(name, bytes)]
            if names:
                await work(wire, names)
            if cursor == b"0":
                return True
        return False

    def _pass_on(self, names: list[Any] | None) -> None:
        if names is None:
            self._watchers.wake_all()
            self._on_invalidated(None)
            return
        for name in names:
            if not isinstance(name, bytes):
                continue
            if name.startswith(self._leases):
                self._watchers.wake(name[len(self._leases) :])
            elif name.startswith(self._values):
                key = name[len(self._values) :]
                self._count.invalidations += 1
                self._watchers.wake(key)
                self._on_invalidated(key)


@final
class _Removal:
    """Values that are stored or removed, and whoever waits for it."""

    __slots__ = ("_keys", "_tier", "future")

    def __init__(
        self, tier: RedisTier, keys: Iterable[bytes], future: asyncio.Future[Any] | None = None
    ) -> None:
        self._tier = tier
        self._keys = keys
        self.future = future

    def settle(self, reply: Any) -> None:
        self._tier.settle_write(self._keys, reply)
        self._tell(reply)

    def late(self) -> None:
        self._tier.late_write()
        self._tell(None)

    def _tell(self, reply: Any) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(reply)
