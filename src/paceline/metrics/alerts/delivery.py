"""Brings alerts to one sink: in the background, again if need be, in bounded memory."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final, final

from paceline.errors import Category, PacelineError
from paceline.metrics.alerts.alert import Alert
from paceline.metrics.alerts.sinks import Sink

__all__ = ["Delivery"]

_log = logging.getLogger("paceline")
_BASE_S: Final = 1.0
_CAP_S: Final = 60.0
_LONGEST_S: Final = 900.0
"""Asked to wait for longer than this, we give up: by then it is told again or resolved."""
_AT_ONCE: Final = 100


@final
class Delivery:
    """What waits for one sink. `offer` never waits and never fails.

    Of each alert only its latest state is kept: who could not be told that it fires, and it is
    over, is told that it is over. Of more than `max_waiting` alerts the oldest is dropped. A
    sending is tried `attempts` times, with pauses drawn uniformly from zero to a bound that
    doubles from one second to a minute, and never shorter than the other side asked for.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        rng: random.Random,
        timeout_s: float = 30.0,
        attempts: int = 8,
        max_waiting: int = 1_000,
        on_loss: Callable[[PacelineError], None] | None = None,
    ) -> None:
        """`on_loss` is told why alerts were given up; the default writes a warning to the log."""
        self.sink = sink
        self.sent = 0
        """Alerts that arrived."""
        self.dropped = 0
        """Alerts that did not: given up, or too many."""
        self.retries = 0
        self._rng = rng
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._max_waiting = max_waiting
        self._on_loss = on_loss or _warn
        self._waiting: dict[str, Alert] = {}
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Alerts in the queue."""
        return len(self._waiting)

    def offer(self, alerts: Sequence[Alert]) -> None:
        """Takes alerts to be sent."""
        for alert in alerts:
            key = alert.fingerprint
            self._waiting.pop(key, None)  # what is newer goes to the end
            self._waiting[key] = alert
        while len(self._waiting) > self._max_waiting:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1
        if self._waiting:
            self._idle.clear()
            self._news.set()

    async def run(self) -> None:
        """Sends what is offered, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                keys = list(self._waiting)[:_AT_ONCE]
                await self._deliver({key: self._waiting.pop(key) for key in keys})
            self._idle.set()

    async def idle(self) -> None:
        """Returns once all that was offered is sent or given up."""
        await self._idle.wait()

    async def _deliver(self, batch: dict[str, Alert]) -> None:
        attempt = 1
        while (failure := await self._try(list(batch.values()))) is not None:
            pause_s = self._pause_s(failure, attempt)
            if pause_s is None:
                self._lose(len(batch), attempt, failure)
                return
            attempt += 1
            self.retries += 1
            await asyncio.sleep(pause_s)
            # What has changed meanwhile is told as it is now.
            batch = {key: self._waiting.pop(key, alert) for key, alert in batch.items()}
        self.sent += len(batch)

    def _lose(self, count: int, attempts: int, failure: PacelineError) -> None:
        self.dropped += count
        self._on_loss(
            PacelineError(
                f"{count} alerts were not sent, attempts: {attempts}, the last: {failure}",
                category=failure.category,
                next_step=failure.next_step,
            )
        )

    async def _try(self, alerts: list[Alert]) -> PacelineError | None:
        """Why it failed, or None."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.sink.send(alerts)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The sink waited for something that was cancelled; we were not.
            return _passing(f"the alert sink {self.sink.name} was cancelled")
        except PacelineError as exc:
            return exc
        except TimeoutError:
            return _passing(f"the alert sink {self.sink.name} took too long")
        except Exception as exc:  # noqa: BLE001 (a callback of others may raise anything)
            # Its text may hold anything, secrets too.
            return _passing(f"the alert sink {self.sink.name} raised {type(exc).__name__}")
        return None

    def _pause_s(self, failure: PacelineError, attempt: int) -> float | None:
        """Seconds until the next attempt, or None to give up."""
        asked_s = failure.retry_after_s or 0.0
        if attempt >= self._attempts or not failure.category.transient or asked_s > _LONGEST_S:
            return None
        bound_s = min(_CAP_S, _BASE_S * 2 ** (attempt - 1))
        return max(asked_s, self._rng.uniform(0, bound_s))


def _passing(message: str) -> PacelineError:
    return PacelineError(message, category=Category.UNAVAILABLE)


def _warn(error: PacelineError) -> None:
    _log.warning("%s. %s", error, error.next_step)
