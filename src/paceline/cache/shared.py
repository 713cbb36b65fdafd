"""What the result cache asks of a tier that machines share."""

from typing import Protocol

from paceline.cache.entry import PLAIN, About

__all__ = ["Found", "SharedLease", "SharedTier"]


class Found(Protocol):
    """What a lower tier finds."""

    @property
    def value(self) -> bytes:
        """The bytes that were stored."""
        ...

    @property
    def remaining_ns(self) -> int:
        """How long they may still be served."""
        ...

    @property
    def about(self) -> About:
        """What they are."""
        ...


class SharedLease(Protocol):
    """The sole right to compute a value, until it is released or runs out."""

    async def release(self) -> object:
        """Gives it back."""
        ...


class SharedTier(Protocol):
    """The cold tier. Never fails and never takes long: whatever is wrong is a miss.

    See `paceline.cache.redis.tier`.
    """

    @property
    def connected(self) -> bool:
        """Whether it can be asked at present."""
        ...

    async def get(self, key: bytes) -> Found | None:
        """The valid value under this key, or None."""
        ...

    async def put(self, key: bytes, payload: bytes, ttl_ns: int, about: About = PLAIN) -> object:
        """Stores a value in place of what was there."""
        ...

    async def delete(self, key: bytes) -> object:
        """Removes a value."""
        ...

    async def clear(self) -> object:
        """Removes all values."""
        ...

    async def lease(self, key: bytes, ttl_s: float) -> SharedLease | None:
        """The sole right to compute this value for so long; None if another has it."""
        ...

    async def wait(self, key: bytes, timeout_s: float) -> Found | None:
        """The value that the holder of the lease stores, or None."""
        ...
