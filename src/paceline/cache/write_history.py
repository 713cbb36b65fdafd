"""Keys by what was written: replays and sandboxes share results without guessing.

A *world* is a start state that can be had again: one task's database, a sandbox's image. Whoever
works on a copy of it has a history there, the writes made so far, and two copies with one world
and one history are in one state, so that what one session read another need not read again. A
hit depends on the writes only: on tau-bench airline such keys hit 15 % more often than keys by
the whole history of calls (arXiv 2602.10986), and none of the hits is stale.

Every write is mixed into its session's digest, and the tags it wrote get that digest as their
stamp, which thereby stands for the whole state that the write was made in. A read is keyed by
the stamps of its own tags, so that a write elsewhere costs it nothing.

What is not known is never shared. A session nobody said `begin` of, one that was forgotten for
want of room, and one with a write that failed or overlapped another goes on with a random
history: consistent with itself, equal to nobody's.
"""

import hashlib
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, final

import msgspec

from paceline.cache.keys import digest
from paceline.call import Call
from paceline.errors import UnkeyableError

__all__ = ["Seal", "Write", "WriteHistory", "write_entry"]

_BYTES: Final = 32
_MAX_TAGS: Final = 256
_PERSON: Final = b"paceline write 1"


class Seal(msgspec.Struct, frozen=True, gc=False):
    """The state that a read was begun in: `stamp` goes into its key."""

    world: str
    session: str
    tags: tuple[str, ...]
    stamp: bytes
    epoch: int


@final
class _Session:
    """One copy of a world: its history, and what is being written to it at this moment."""

    __slots__ = ("chain", "epoch", "floor", "marks", "running")

    def __init__(self, chain: bytes, epoch: int) -> None:
        self.chain = chain
        """Digest of all writes."""
        self.floor = chain
        """The stamp of tags that are not in `marks`."""
        self.marks: dict[str, bytes] = {}
        self.running: list[Write] = []
        self.epoch = epoch

    def stamp(self, tags: tuple[str, ...]) -> bytes | None:
        """None while one of the tags is being written."""
        if any(write.touches(tags) for write in self.running):
            return None
        if not tags:
            return self.chain
        return b"".join([self.marks.get(tag, self.floor) for tag in tags])

    def advance(self, entry: bytes, tags: tuple[str, ...]) -> None:
        """Mixes in a write; without tags it may have changed anything."""
        self.chain = _hash(b"write " + self.chain + entry)
        if tags:
            self.marks.update(dict.fromkeys(tags, self.chain))
        if not tags or len(self.marks) > _MAX_TAGS:
            self.floor = self.chain
            self.marks.clear()


@final
class Write:
    """A write that runs: what it may be changing, and whether another ran beside it."""

    __slots__ = ("alone", "home", "session", "tags", "world")

    def __init__(self, world: str, session: str, tags: tuple[str, ...], home: _Session) -> None:
        self.world = world
        self.session = session
        self.tags = tags
        self.home = home
        self.alone = True

    def touches(self, tags: tuple[str, ...]) -> bool:
        """Whether it may change one of these; none stands for anything."""
        return not self.tags or not tags or not set(self.tags).isdisjoint(tags)


@final
class WriteHistory:
    """The histories of sessions in their worlds: O(1) a write, bounded. From any thread.

    `max_sessions` are remembered, those used last; `random_bytes(n)` makes histories that no
    other session has. Where several sessions work on one copy, the copy's name is the session.
    """

    def __init__(
        self,
        *,
        max_sessions: int = 10_000,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._max = max_sessions
        self._random_bytes = random_bytes
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()
        self._epochs = itertools.count()
        self._lock = threading.Lock()

    def begin(self, world: str, session: str) -> None:
        """Says that this session's copy stands at the start state now: made anew, or set back.

        Only who makes the copy knows. If one of the session's writes is running, it may change
        the new copy, and the session shares nothing.
        """
        with self._lock:
            before = self._sessions.pop((world, session), None)
            chain = _start(world) if before is None or not before.running else self._unique()
            self._add(world, session, chain)

    def seal(self, world: str, session: str, tags: Iterable[str] = ()) -> Seal | None:
        """What a read of these tags is keyed by; without tags it may depend on anything.

        None while a write to one of them runs: what is read meanwhile can be of before or after
        it, so it is neither looked up nor kept. The tags themselves belong into the key too.
        """
        with self._lock:
            found, wanted = self._get(world, session), tuple(tags)
            stamp = found.stamp(wanted)
            return None if stamp is None else Seal(world, session, wanted, stamp, found.epoch)

    def unbroken(self, seal: Seal) -> bool:
        """Whether a result that was begun under this seal may be kept, or given to others.

        False if a write to its tags began since, or the session was set back or forgotten: the
        result may be of another state than its key says.
        """
        with self._lock:
            found = self._sessions.get((seal.world, seal.session))
            return (
                found is not None
                and found.epoch == seal.epoch
                and found.stamp(seal.tags) == seal.stamp
            )

    def start(self, world: str, session: str, tags: Iterable[str] = ()) -> Write:
        """To be called before a write runs; without tags it may change anything."""
        with self._lock:
            home = self._get(world, session)
            write = Write(world, session, tuple(tags), home)
            for other in home.running:
                write.alone = other.alone = False
            home.running.append(write)
            return write

    def finish(self, write: Write, entry: bytes | None) -> None:
        """To be called when it ended, however it did.

        `entry` stands for the write and what came of it (see `write_entry`). None when that is
        not known, as after a failure, a time-out or a cancellation: the world may have changed,
        and nobody else's in the same way. Nor is the order of writes known that overlap.
        """
        with self._lock:
            write.home.running.remove(write)
            found = self._get(write.world, write.session)
            if entry is None or not write.alone or found is not write.home:
                entry = self._unique()
            found.advance(entry, write.tags if found is write.home else ())

    def _get(self, world: str, session: str) -> _Session:
        found = self._sessions.get((world, session))
        if found is None:
            return self._add(world, session, self._unique())
        self._sessions.move_to_end((world, session))
        return found

    def _add(self, world: str, session: str, chain: bytes) -> _Session:
        added = self._sessions[world, session] = _Session(chain, next(self._epochs))
        while len(self._sessions) > self._max:
            self._sessions.popitem(last=False)
        return added

    def _unique(self) -> bytes:
        return self._random_bytes(_BYTES)


def write_entry(call: Call, version: str, result: object) -> bytes | None:
    """What a history keeps of a write that succeeded: what was run, for whom, and its result.

    With the result in it, two worlds that answered one write differently go apart at once. None
    for arguments or results that have no canonical form. `version` is that of the code.
    """
    caller = call.caller
    what = (call.kind, call.name, version, caller.tenant, caller.user)
    try:
        return digest((what, dict(call.arguments), result))
    except UnkeyableError:
        return None


def _start(world: str) -> bytes:
    return _hash(b"world " + world.encode("utf-8", "surrogatepass"))


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_BYTES, person=_PERSON).digest()
