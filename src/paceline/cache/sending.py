"""What is sent to a tier that machines share while nobody waits for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, final

__all__ = ["Sending"]


@final
class Sending:
    """Requests under way. They begin in the order in which they were started."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self, request: Coroutine[Any, Any, object]) -> None:
        """Starts a request; without an event loop it is not sent."""
        try:
            task = asyncio.get_running_loop().create_task(request)
        except RuntimeError:
            request.close()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Waits until all have arrived or were given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)
