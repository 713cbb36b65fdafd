"""Reads of one loop: all that is asked in one turn of it travels as one command."""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, final

import msgspec

from paceline.cache.redis.record import Found, Unusable, unpack
from paceline.cache.redis.wire import LOST, Wire, is_error, items, pack_command
from paceline.clock import Clock

__all__ = ["Counts", "Reads"]

_MAX_KEYS: Final = 256  # of one command, so that the server has time for others in between
_Wanted = dict[bytes, list[asyncio.Future[Found | None]]]


@final
class Counts(msgspec.Struct):
    """What a tier counts."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    timeouts: int = 0
    refused: int = 0
    foreign: int = 0
    damaged: int = 0
    batches: int = 0
    invalidations: int = 0


@final
class Reads:
    """Asks the server for values, all callers of one turn of the loop together.

    Nobody takes part in what follows but through a future of their own: a caller who goes
    changes nothing for the others. `wire` gives the connection to ask by, if there is one, and
    raises if this is not its loop. What was stored before `since_ns` (of the wall clock) has
    been removed, though the server may not know.
    """

    def __init__(
        self, wire: Callable[[], Wire | None], *, clock: Clock, prefix: bytes, count: Counts
    ) -> None:
        self.since_ns = 0
        self._wire = wire
        self._clock = clock
        self._prefix = prefix
        self._count = count
        self._batch: _Wanted = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # of the batch

    def ask(self, key: bytes) -> asyncio.Future[Found | None] | None:
        """The value under this key, soon; or None. None at once if the server cannot be asked."""
        loop, batch = asyncio.get_running_loop(), self._batch
        if not batch or loop is not self._loop:
            wire = self._wire()  # once for all who travel together
            if wire is None:
                return None
            batch = self._batch = _Wanted()
            self._loop = loop
            loop.call_soon(self._send, wire, batch)
        future: asyncio.Future[Found | None] = loop.create_future()
        batch.setdefault(key, []).append(future)
        return future

    def _send(self, wire: Wire, batch: _Wanted) -> None:
        self._batch = {}
        prefix, rest = self._prefix, iter(batch.items())
        while part := dict(islice(rest, _MAX_KEYS)):
            names = [prefix + key for key in part]
            wire.send(pack_command(("MGET", *names)), _Reading(self, part, wire))
            self._count.batches += 1
        wire.flush()

    def settle(self, wanted: _Wanted, wire: Wire, reply: Any) -> None:
        """The values of some keys, in their order."""
        values = items(reply, len(wanted))
        if values is None:
            self._count.errors += 1
            _tell_all(wanted)
            if reply is not LOST and not is_error(reply):
                wire.close()  # replies no longer belong to what was asked
            return
        now_ns, since_ns = self._clock.wall_ns(), self.since_ns
        for (key, futures), data in zip(wanted.items(), values, strict=True):
            found = None
            if data is not None:
                read = unpack(data, key, now_ns, since_ns)
                if isinstance(read, Found):
                    found = read
                else:
                    self._count_unusable(read)
            for future in futures:
                if not future.done():
                    future.set_result(found)

    def late(self, wanted: _Wanted) -> None:
        """They did not come in time."""
        self._count.timeouts += 1
        _tell_all(wanted)

    def _count_unusable(self, why: Unusable) -> None:
        if why is Unusable.DAMAGED:
            self._count.damaged += 1
        elif why is Unusable.FOREIGN:
            self._count.foreign += 1


@final
class _Reading:
    """Values that were asked for together."""

    __slots__ = ("_reads", "_wanted", "_wire")

    def __init__(self, reads: Reads, wanted: _Wanted, wire: Wire) -> None:
        self._reads = reads
        self._wanted = wanted
        self._wire = wire

    def settle(self, reply: Any) -> None:
        self._reads.settle(self._wanted, self._wire, reply)

    def late(self) -> None:
        self._reads.late(self._wanted)


def _tell_all(wanted: _Wanted) -> None:
    """That there is nothing."""
    for futures in wanted.values():
        for future in futures:
            if not future.done():
                future.set_result(None)
