"""Stamps that all hosts share: kept in one Redis string, told of by pushes.

The string holds which server made it, the latest stamp given out, and the stamp of every slot.
A server that is not the one that made it (it was restarted from an old copy, or a replica took
over), or that knows less than a host, may have forgotten writes: so a new one is made, and nothing
of before is found any more. Stamps follow the microseconds of the server's clock and are higher
than any that a host which connects has seen, so they rise even if the string is lost.
"""

import asyncio
import contextlib
import functools
import re
from collections.abc import Callable
from typing import Any, Final, final

from paceline.cache.generations import SLOTS, STAMP, Generations
from paceline.cache.redis.wire import LOST, Wire, is_error, pack_command

__all__ = ["RedisGenerations"]

_SERVER: Final = 40  # bytes that name a server
_HEAD: Final = _SERVER + STAMP
_CLOCK: Final = """
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
"""
_LOAD: Final = (
    _CLOCK
    + """
local held = redis.call('GET', KEYS[1])
local known = tonumber(ARGV[4])
if not held or #held ~= tonumber(ARGV[2]) or string.sub(held, 1, 40) ~= ARGV[1]
    or struct.unpack('>I8', string.sub(held, 41, 48)) < known then
  local stamp = struct.pack('>I8', math.max(known + 1, clock()))
  held = ARGV[1] .. string.rep(stamp, tonumber(ARGV[3]) + 1)
  redis.call('SET', KEYS[1], held)
  redis.call('PUBLISH', KEYS[1], 'new')
end
return held
"""
)
_TELL: Final = (
    _CLOCK
    + """
if redis.call('STRLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return false end
local last = struct.unpack('>I8', redis.call('GETRANGE', KEYS[1], 40, 47))
local stamp = struct.pack('>I8', math.max(last + 1, clock()))
redis.call('SETRANGE', KEYS[1], 40, stamp)
for place = 2, #ARGV do
  redis.call('SETRANGE', KEYS[1], 48 + ARGV[place] * 8, stamp)
end
redis.call('PUBLISH', KEYS[1], stamp .. table.concat(ARGV, ',', 2))
return stamp
"""
)
_PLACES: Final = re.compile(rb"\d+(,\d+)*")
_RUN_ID: Final = re.compile(rb"^run_id:([0-9a-f]{40})\r?$", re.MULTILINE)


@final
class RedisGenerations:
    """Keeps the stamps of `generations` the same as those of every host that does so too.

    A `Listener` of a `RedisLink`. Writes of this host are told to the server in the turn of the
    loop that follows them; those of others are known when the server's push arrives. While there
    is no connection the stamps are this host's own, and no result of before or after is found
    under them.
    """

    def __init__(
        self, generations: Generations, *, key: bytes, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._generations = generations
        self._key = key
        self._size = _HEAD + SLOTS * STAMP
        self._loop = loop
        self._wire: Wire | None = None
        self._shared = False  # whether the stamps are those of the server
        self._greeted: Wire | None = None
        self._server = b""
        self._telling: dict[int, bytes] = {}  # slots, and stamps the server is being told of
        self._due = False
        self.told = 0
        self.learned = 0

    @property
    def shared(self) -> bool:
        """Whether the stamps are at present those of all hosts."""
        return self._shared

    def open(self) -> None:
        """From now on writes are told."""
        self._generations.attach(self._bumped)

    def close(self) -> None:
        """No more of them are; those that were not stay to be told by others of this host."""
        self._generations.attach(None)
        self.lost()

    async def settled(self) -> None:
        """Waits until the server knows all that was written so far, or the connection is lost."""
        self.tell()
        while (wire := self._wire) is not None and self._telling:
            await wire.ask("PING")  # behind what it is told

    def greet(self, wire: Wire) -> None:
        self._greeted = wire
        wire.send(pack_command(("SUBSCRIBE", self._key)), None)
        wire.send(pack_command(("INFO", "server")), _Then(functools.partial(self._load, wire)))

    def push(self, message: list[Any]) -> None:
        if message[0] != b"message" or message[1] != self._key or self._wire is None:
            return  # what is older than the stamps that are being loaded is in them
        stamp, places = message[2][:STAMP], message[2][STAMP:]
        if not _PLACES.fullmatch(places):  # the stamps are new altogether, or this is not ours
            self._reload(self._wire)
            return
        self.learned += 1
        # A slot that was written here, by a process that did not tell it yet, is told at once.
        heard = [self._generations.learn(int(at) % SLOTS, stamp) for at in places.split(b",")]
        if not all(heard):
            self._loop.call_soon(self.tell)

    def beat(self, wire: Wire) -> None:
        if not self._shared:
            return
        if self._generations.unknown():  # a process of this host lost its connection
            self._reload(wire)
        self.tell()  # what a process without a connection wrote

    def lost(self) -> None:
        self._wire = self._greeted = None
        self._telling.clear()
        if self._shared:
            self._shared = False
            self._generations.forget()

    def tell(self) -> None:
        """Tells the server of everything written on this host that it was not told of."""
        self._due = False  # first: what is written from here on is due again
        wire = self._wire
        if wire is None or not wire.usable:
            return
        news = {
            slot: stamp
            for slot, stamp in self._generations.written()
            if self._telling.get(slot) != stamp
        }
        if not news:
            return
        self._telling.update(news)
        self.told += len(news)
        command = ("EVAL", _TELL, "1", self._key, str(self._size), *map(str, news))
        wire.send(pack_command(command), _Then(functools.partial(self._was_told, wire, news)))
        wire.flush()

    def _bumped(self) -> None:
        if self._wire is not None and not self._due:
            self._due = True
            with contextlib.suppress(RuntimeError):  # the loop has ended: others will tell
                self._loop.call_soon_threadsafe(self.tell)

    def _load(self, wire: Wire, info: Any) -> None:
        """Asks for the stamps as soon as it is known which server this is."""
        if info is LOST or wire is not self._greeted:
            return
        text = getattr(info, "data", info)
        found = _RUN_ID.search(text) if isinstance(text, bytes) else None
        self._server = found[1] if found else b"?" * _SERVER
        self._reload(wire)

    def _reload(self, wire: Wire) -> None:
        sizes = (str(self._size), str(SLOTS), str(self._generations.latest()))
        command = ("EVAL", _LOAD, "1", self._key, self._server, *sizes)
        wire.send(pack_command(command), _Then(functools.partial(self._loaded, wire)))

    def _loaded(self, wire: Wire, reply: Any) -> None:
        if wire is not self._greeted or reply is LOST:
            return
        if not isinstance(reply, bytes) or len(reply) != self._size:
            wire.close()
            return
        self._generations.learn_all(reply[_HEAD:])
        self._wire = wire
        self._shared = True
        self.tell()

    def _was_told(self, wire: Wire, news: dict[int, bytes], reply: Any) -> None:
        for slot, stamp in news.items():
            if self._telling.get(slot) == stamp:
                del self._telling[slot]
        if wire is not self._greeted or reply is LOST:
            return
        if is_error(reply):
            wire.close()
        elif not isinstance(reply, bytes):  # the string is gone: what is left unsaid is told then
            self._reload(wire)
        else:
            for slot, stamp in news.items():
                self._generations.told(slot, stamp, reply)


@final
class _Then:
    """Does something with a reply at the very moment it comes, before what comes after it."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[Any], None]) -> None:
        self._work = work

    def settle(self, reply: Any) -> None:
        self._work(reply)

    def late(self) -> None:
        """It is still of use when it comes."""
