"""Results that are computed anew while the old ones are still served."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

from msgspec.structs import replace

from paceline.cache.flight import SingleFlight
from paceline.call import Call, Outcome, Priority
from paceline.history.record import REFRESH
from paceline.path.identity import Identified
from paceline.path.job import Job, place
from paceline.path.pauses import Pauses

__all__ = ["Refreshes"]

_MOST: Final = 32


@final
class Refreshes:
    """Has results computed anew, so many at once at most, and each once; nobody waits for them."""

    def __init__(
        self,
        flight: SingleFlight[object, Outcome],
        pauses: Pauses,
        renew: Callable[[Call, Job, Identified], Coroutine[Any, Any, Outcome]],
    ) -> None:
        """`flight` knows what is being computed as it is, `renew` computes it anew."""
        self._flight = flight
        self._pauses = pauses
        self._renew = renew
        self._running: dict[object, asyncio.Task[Outcome]] = {}

    def begin(self, call: Call, job: Job, identified: Identified) -> None:
        """Has the result of this call computed anew, if nobody is at it and it is time again."""
        if not self._pauses.over(identified.key):
            return
        where = place(call, identified, frozenset())
        at_it = where in self._running or self._flight.joinable(where) is not None
        if at_it or len(self._running) >= _MOST:
            return
        again = replace(
            call,
            id=call.id + REFRESH,
            priority=Priority.LOW,
            deadline_ns=None,
            parent_id=call.id,
            tracked_id=None,
        )
        task = self._running[where] = asyncio.create_task(self._renew(again, job, identified))
        task.add_done_callback(lambda _: self._running.pop(where, None))

    async def close(self) -> None:
        """Cancels what is being computed."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
