"""A bounded queue for one subscriber that may be slow, or never come: the oldest items give way."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar, final

from paceline.errors import UsageError

__all__ = ["Watch"]

T = TypeVar("T")


@final
class Watch(Generic[T]):
    """Items as they happen, for `async for`, until it is closed; what is queued then still comes.

    At most `most` items wait. One more takes the place of the oldest, which is counted in
    `dropped`: who puts never waits, and what is not read does not pile up. A reader without
    anything to read waits without being woken. `closing` is called once, when it is closed. All
    of it is used on one event loop.
    """

    __slots__ = ("_closed", "_closing", "_items", "_reader", "dropped")

    def __init__(self, most: int = 256, *, closing: Callable[[], object] | None = None) -> None:
        if most < 1:
            raise ValueError("a watch holds one item at least")
        self.dropped = 0
        """Items that gave way before they were read."""
        self._items: deque[T] = deque(maxlen=most)
        self._reader: asyncio.Future[None] | None = None
        self._closing = closing
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._closed

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Adds an item, at once. A closed watch takes none."""
        if self._closed:
            return
        if len(self._items) == self._items.maxlen:
            self.dropped += 1
        self._items.append(item)
        self._wake()

    def close(self) -> None:
        """Takes nothing more in; who reads comes to the end. Closing twice is once."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._closing is not None:
            self._closing()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next item. Raises UsageError while another task waits for it."""
        if self._reader is not None:
            raise UsageError(
                "somebody else reads this watch", next_step="Make a watch for each reader."
            )
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._items.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
