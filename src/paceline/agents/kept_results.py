"""Results of agents in this process and, where there is one, in a tier that machines share."""

from collections.abc import Sequence
from typing import Any, Final, Protocol, final

import msgspec

from paceline.cache.entry import About
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Form, Snapshot
from paceline.call import Source
from paceline.clock import Clock
from paceline.codec import decode
from paceline.errors import CodecError

__all__ = ["Hit", "KeptResult", "KeptResults", "SharedResults"]

_NS_PER_S: Final = 1_000_000_000
_MOMENT: Final = 8
"""Bytes of a moment of the wall clock."""


class Hit(msgspec.Struct, frozen=True):
    """A result that was kept: the caller's own, how old it is, and which tier had it."""

    value: Any
    age_s: float
    source: Source


class _Stored(Protocol):
    @property
    def value(self) -> bytes: ...
    @property
    def remaining_ns(self) -> int: ...


class _Listed(Protocol):
    @property
    def key(self) -> bytes: ...
    @property
    def about(self) -> About: ...


class SharedResults(Protocol):
    """Where machines share results; see `paceline.cache.redis.tier`. Whatever is wrong there is
    a miss, and no method raises."""

    async def get(self, key: bytes) -> _Stored | None:
        """The valid value under this key, or None."""
        ...

    async def put(self, key: bytes, payload: bytes, ttl_ns: int, about: About) -> object:
        """Stores a value in place of what was there."""
        ...

    async def delete(self, key: bytes) -> object:
        """Removes a value."""
        ...

    async def clear(self) -> object:
        """Removes all values."""
        ...

    async def entries(self) -> Sequence[_Listed]:
        """What is stored."""
        ...


class KeptResult(msgspec.Struct, frozen=True):
    """A result as it is kept, and the moment of the monotonic clock at which it was stored."""

    form: Form
    held: Any
    stored_ns: int

    def thaw(self) -> Any:
        """The result, the caller's own."""
        return Snapshot(self.form, self.held).thaw()


@final
class KeptResults:
    """Results by key, each of an agent: here, and in `shared` under the same key."""

    def __init__(self, max_entries: int, *, clock: Clock, shared: SharedResults | None) -> None:
        self._clock = clock
        self._shared = shared
        self.tier = MemoryTier[bytes, KeptResult](max_entries, clock=clock)
        """Those of this process."""

    async def find(self, key: bytes, agent_name: str, max_age_ns: int | None) -> Hit | None:
        """The result under this key, if it is younger than that."""
        epoch = self.tier.epoch
        entry = self.tier.get(key)
        if entry is not None and (hit := self._hit(entry.value, max_age_ns, Source.HOT)):
            return hit
        if self._shared is not None and (found := await self._shared.get(key)) is not None:
            result = self._read(found.value)
            if result is not None:
                ours = self.tier.peek(key)  # somebody may have put another meanwhile
                if ours is None or ours.value.stored_ns < result.stored_ns:
                    about = About(name=agent_name, tags=(agent_name,))
                    self.tier.put(key, result, found.remaining_ns, about=about, since=epoch)
                if hit := self._hit(result, max_age_ns, Source.COLD):
                    return hit
        self.tier.misses += 1
        return None

    def _hit(self, result: KeptResult, max_age_ns: int | None, source: Source) -> Hit | None:
        age_ns = self._clock.monotonic_ns() - result.stored_ns
        if max_age_ns is not None and age_ns >= max_age_ns:
            return None
        return Hit(result.thaw(), age_ns / _NS_PER_S, source)

    async def keep(
        self,
        key: bytes,
        agent_name: str,
        value: object,
        ttl_ns: int,
        epoch: int,
        *,
        strict: bool = True,
    ) -> KeptResult | None:
        """Keeps a result, unless it was removed since; how others get theirs."""
        result = self.hold(value, strict=strict)
        if result is None:
            return None
        about = About(name=agent_name, tags=(agent_name,))
        self.tier.put(key, result, ttl_ns, about=about, since=epoch)
        if self._shared is None:
            return result
        payload = self._payload(result) if ttl_ns else None
        if payload is not None and not self._is_outdated(key, about, epoch):
            await self._shared.put(key, payload, ttl_ns, about)
        if payload is None or self._is_outdated(key, about, epoch):
            await self._shared.delete(key)
        return result

    def _is_outdated(self, key: bytes, about: About, epoch: int) -> bool:
        return self.tier.outdated(epoch, key, about.tags, table=self.tier.main)

    def hold(self, value: object, *, strict: bool = False) -> KeptResult | None:
        """A result as it can be kept from now on; None, or with `strict` CodecError, if not."""
        try:
            snapshot = Snapshot.take(value)
        except CodecError:
            if strict:
                raise
            return None
        return KeptResult(snapshot.form, snapshot.held, self._clock.monotonic_ns())

    def _payload(self, result: KeptResult) -> bytes | None:
        """The bytes for the shared tier: the moment of the wall clock at which it was stored, in
        nanoseconds, and the value."""
        payload = Snapshot(result.form, result.held).payload()
        return None if payload is None else self._clock.wall_ns().to_bytes(_MOMENT, "big") + payload

    def _read(self, data: bytes) -> KeptResult | None:
        payload = data[_MOMENT:]
        try:
            snapshot = Snapshot.of_payload(payload, decode(payload))
        except CodecError:
            return None
        age_ns = max(0, self._clock.wall_ns() - int.from_bytes(data[:_MOMENT], "big"))
        return KeptResult(snapshot.form, snapshot.held, self._clock.monotonic_ns() - age_ns)

    async def delete(self, key: bytes) -> bool:
        """Removes a result, everywhere; whether this process had it."""
        there = self.tier.delete(key)
        if self._shared is not None:
            await self._shared.delete(key)
        return there

    async def clear_agent(self, agent_name: str) -> int:
        """Removes all results of an agent and no other, everywhere; how many, as far as is known."""
        keys: set[bytes] = set()
        self.tier.invalidate(tag=agent_name, predicate=lambda entry: _note(keys, entry.key))
        if self._shared is not None:
            for listed in await self._shared.entries():
                if listed.about.name == agent_name:
                    keys.add(listed.key)
                    await self._shared.delete(listed.key)
        return len(keys)

    async def clear(self) -> int:
        """Removes all results, everywhere; how many this process had."""
        count = self.tier.clear()
        if self._shared is not None:
            await self._shared.clear()
        return count

    def forget(self, key: bytes | None) -> None:
        """Removes the result under a key, or all, from this process only."""
        if key is None:
            self.tier.clear()
        else:
            self.tier.delete(key)


def _note(keys: set[bytes], key: bytes) -> bool:
    keys.add(key)
    return True
