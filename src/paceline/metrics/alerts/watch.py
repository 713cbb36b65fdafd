"""Looks at the figures every so often and tells of alerts, until closed."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, final

import msgspec

from paceline.clock import Clock
from paceline.errors import RuntimeClosedError
from paceline.metrics.alerts.alert import Silence
from paceline.metrics.alerts.delivery import Delivery
from paceline.metrics.alerts.machine import NOTHING, Evaluation, Standing, evaluate
from paceline.metrics.alerts.rules import Rule, check
from paceline.metrics.alerts.sinks import Sink
from paceline.metrics.figures import Snapshot

__all__ = ["AlertWatch", "Pace"]

_log = logging.getLogger("paceline")
_CLOSE_S: Final = 1.0
"""What a sink has for closing its connections."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds: between two looks, until those who were told are told again, and for what
    is still to be sent at the end."""

    interval_s: float = 15.0
    repeat_s: float = 14_400.0
    drain_s: float = 5.0


_DEFAULT_PACE: Final = Pace()

Work = Callable[[], Evaluation]
Elsewhere = Callable[[Work], Awaitable[Evaluation]]


@final
class AlertWatch:
    """Evaluates `rules` on `read()` every `pace.interval_s` seconds and tells all `sinks`.

    ::

        async with AlertWatch(rules, collector.snapshot, [LogSink()], clock=clock, rng=rng):
            ...

    Figures are read on another thread, each sink has a queue and a task of its own: neither many
    figures nor a sink that hangs holds up calls, other sinks or the next look. What a look
    raises is logged, counted in `failures`, and the next one is made all the same. Closing looks
    a last time at what stands, so that what is over is told, and waits at most
    `pace.drain_s` for what is still to
    be sent. An alert that goes on is not called resolved because nobody looks any more.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        read: Callable[[], Snapshot],
        sinks: Sequence[Sink] = (),
        *,
        clock: Clock,
        silences: Iterable[Silence] = (),
        pace: Pace = _DEFAULT_PACE,
        rng: random.Random,
    ) -> None:
        """Raises ConfigError if two rules have one name. `rng` spreads retries."""
        self.rules = check(rules)
        self.silences = tuple(silences)
        """May be replaced at any time."""
        self.deliveries = tuple([Delivery(sink, rng=rng) for sink in sinks])
        self.failures = 0
        self.elsewhere: Elsewhere = asyncio.to_thread
        """Where figures are read and judged."""
        self._read = read
        self._clock = clock
        self._pace = pace
        self._state: Mapping[str, Standing] = NOTHING
        self._failing = False
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def standings(self) -> tuple[Standing, ...]:
        """The alerts that are pending or firing."""
        return tuple(self._state.values())

    @property
    def dropped(self) -> int:
        """Alerts that did not arrive, over all sinks."""
        return sum(delivery.dropped for delivery in self.deliveries)

    async def __aenter__(self) -> Self:
        if self._tasks or self._closing.is_set():
            raise RuntimeClosedError("a watch is opened once only", next_step="Make another one.")
        self._tasks = [asyncio.create_task(one.run()) for one in self.deliveries]
        self._looking = asyncio.create_task(self._look_on())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.drain_s):
                    await self._looking
                    if self._state:
                        await self.look()
                    await asyncio.gather(*(one.idle() for one in self.deliveries))
        finally:
            await self._end()

    async def look(self) -> Evaluation | None:
        """Evaluates now and hands what is to be told to the sinks; None if that failed."""
        try:
            evaluation = await self.elsewhere(self._evaluate)
        except Exception:  # noqa: BLE001 (told in full; one look that fails is no reason to look no more)
            self.failures += 1
            if not self._failing:  # once, not every few seconds
                _log.exception("alerts were not evaluated")
            self._failing = True
            return None
        self._failing = False
        self._state = evaluation.state
        if evaluation.notices:
            for delivery in self.deliveries:
                delivery.offer(evaluation.notices)
        return evaluation

    def _evaluate(self) -> Evaluation:
        return evaluate(
            self.rules,
            self._read(),
            self._state,
            self._clock.monotonic_ns(),
            silences=self.silences,
            repeat_s=self._pace.repeat_s,
        )

    async def _look_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.interval_s):
                    await self._closing.wait()
                    return
            await self.look()

    async def _end(self) -> None:
        """Leaves nothing running."""
        for task in (self._looking, *self._tasks):
            task.cancel()
        await asyncio.gather(self._looking, *self._tasks, return_exceptions=True)
        for delivery in self.deliveries:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await delivery.sink.close()
            except Exception as exc:  # noqa: BLE001 (the other sinks are to be closed, too)
                _log.warning("alert sink %s: closing: %s", delivery.sink.name, type(exc).__name__)
