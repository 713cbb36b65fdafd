"""Work in the task of the one caller who waits for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar, final

from paceline.path.limit import Limit, Limits

__all__ = ["Attended"]

V = TypeVar("V")

_log = logging.getLogger("paceline")
_CLOSED: Final = "closed"


@final
class Attended(Generic[V]):
    """What a flight is for work that nobody can join, without a task of its own: that saves half
    the cost of a trivial execution.

    Only for work that ends soon once it is cancelled, as nobody can leave it behind, and that
    leaves the context variables of its caller as they are.
    """

    __slots__ = ("_closed", "_empty", "_grace_s", "_limits", "_running")

    def __init__(self, limits: Limits, grace_s: float = 5.0) -> None:
        self._limits = limits
        self._grace_s = grace_s
        self._running: set[Limit] = set()
        self._closed = False
        self._empty: asyncio.Event | None = None
        """What `close` waits for."""

    def __len__(self) -> int:
        """Work that runs."""
        return len(self._running)

    async def run(self, make: Callable[[], Awaitable[V]]) -> tuple[V, bool]:
        """The result of `make()`, and that it was not joined. What cancels the caller cancels the
        work. Raises CancelledError when closed; the work has ended then."""
        if self._closed:
            raise asyncio.CancelledError(_CLOSED)
        limit = Limit(self._limits, None)
        self._running.add(limit)
        try:
            with limit:
                return await make(), False
        except TimeoutError:
            if limit.ended:
                raise asyncio.CancelledError(_CLOSED) from None
            raise
        finally:
            self._running.discard(limit)
            if self._empty is not None and not self._running:
                self._empty.set()

    async def close(self) -> None:
        """Cancels all work and waits for its end, within the grace; nothing starts any more."""
        self._closed = True
        if not self._running:
            return
        self._empty = asyncio.Event()
        for limit in list(self._running):
            limit.end()
        try:
            async with asyncio.timeout(self._grace_s):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("%d executions ignore that they were cancelled", len(self._running))
