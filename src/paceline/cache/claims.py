"""One computation for all: who computes a result, among processes and machines.

Leases, not locks: one that is held too long, or whose holder died, costs a second computation,
never a wait without end (Gray and Cheriton, Leases, 1989).
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar, final

from paceline.cache.disk.leases import FileLeases, Lease
from paceline.cache.disk.tier import DiskTier
from paceline.cache.sending import Sending
from paceline.cache.shared import SharedLease, SharedTier
from paceline.clock import Clock

__all__ = ["Claims"]

T = TypeVar("T")


@final
class Claims(Generic[T]):
    """Leases of the processes of this machine, then of the machines that share a tier."""

    def __init__(
        self,
        disk: DiskTier | None,
        leases: FileLeases | None,
        shared: SharedTier | None,
        *,
        patience_s: float,
        clock: Clock,
    ) -> None:
        """Who computes elsewhere is waited for `patience_s` seconds; 0 takes no leases."""
        self._disk = disk
        self._leases = leases if patience_s else None
        self._shared = shared if patience_s else None
        self._patience_s = patience_s
        self._clock = clock
        self._sending = Sending()

    @contextlib.asynccontextmanager
    async def hold(
        self, key: bytes, look: Callable[[], T | None], fetch: Callable[[], Awaitable[T | None]]
    ) -> AsyncGenerator[T | None]:
        """Gives what others computed meanwhile, by `look` here or by `fetch` from elsewhere; or
        None, holding the leases that were free, until the block ends."""
        lease, remote, kept = None, None, None
        end_ns = self._clock.monotonic_ns() + round(self._patience_s * 1e9)
        try:
            lease, kept = await self._local(key, look)
            if lease is not None:  # held already: it is let go of whatever happens
                kept = look()  # another may have come to its end since the caller looked
            if kept is None and self._shared is not None:
                remote = await self._shared.lease(key, self._patience_s)
                left_s = (end_ns - self._clock.monotonic_ns()) / 1e9
                waits = remote is None and left_s > 0
                # With the lease, another machine may have come to its end since the caller looked.
                if remote is not None or (waits and await self._shared.wait(key, left_s)):
                    kept = await fetch()
            yield kept
        finally:
            if remote is not None:
                self._release_remote(remote)
            if lease is not None:
                self._release(lease)

    @contextlib.asynccontextmanager
    async def take(
        self, key: bytes, look: Callable[[], T | None], fetch: Callable[[], Awaitable[T | None]]
    ) -> AsyncGenerator[bool]:
        """Whether to compute, holding the leases until the block ends: not if another is at it,
        who is not waited for, nor if one has done it, as `look` or `fetch` finds."""

        async def done() -> bool:
            return look() is not None or await fetch() is not None

        with contextlib.ExitStack() as held:
            # Again with the leases: another may have come to its end in between.
            yield not await done() and await self._is_free(key, held) and not await done()

    async def _local(
        self, key: bytes, look: Callable[[], T | None]
    ) -> tuple[Lease | None, T | None]:
        if self._leases is None:
            return None, None
        lease = self._leases.acquire(key)
        if lease is not None:
            return lease, None
        found = await self._leases.wait(key, look, patience_s=self._patience_s, clock=self._clock)
        return (found, None) if found is None or isinstance(found, Lease) else (None, found)

    async def _is_free(self, key: bytes, held: contextlib.ExitStack) -> bool:
        """Whether nobody else computes this, which from now on holds for all."""
        if self._leases is not None:
            lease = self._leases.acquire(key)
            if lease is None:
                return False
            held.callback(self._release, lease)
        if self._shared is None:
            return True
        remote = await self._shared.lease(key, self._patience_s)
        if remote is None:
            return not self._shared.connected  # who cannot be asked keeps nobody from computing
        held.callback(self._release_remote, remote)
        return True

    def _release(self, lease: Lease) -> None:
        """Not before what was put can be found."""
        if self._disk is not None:
            self._disk.after_written(lease.release)
        else:
            lease.release()

    def _release_remote(self, lease: SharedLease) -> None:
        """Behind what was put, which was sent before; nobody waits for it."""
        self._sending.start(lease.release())
