"""Export by OTLP: spans as calls end, metrics every so often, and neither ever in a call's way."""

import asyncio
import contextlib
import itertools
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self, final

import msgspec

from paceline.call import Call, Outcome, Source
from paceline.clock import Clock
from paceline.errors import PacelineError
from paceline.extras import missing
from paceline.metrics.export.called import Called
from paceline.metrics.export.names import GENERATIONS, NOT_SENT, sendable
from paceline.metrics.export.otel_metrics import MetricForm, Spans
from paceline.metrics.export.otel_spans import Ended, SpanForm
from paceline.metrics.export.otlp_http import OtlpHttp
from paceline.metrics.export.otlp_options import OtlpOptions
from paceline.metrics.figures import NO_USAGE, Ending, Snapshot, ending_of, usage_of
from paceline.metrics.span import span_of
from paceline.metrics.trace import Trace

try:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ImportError as exc:
    raise missing(
        "OpenTelemetry needs", "opentelemetry-exporter-otlp-proto-http", "otel", NOT_SENT
    ) from exc

__all__ = ["OtlpExport", "OtlpFigures", "Receiver"]

_log = logging.getLogger("paceline")
_SPANS: Final = "/v1/traces"
_METRICS: Final = "/v1/metrics"
_AT_ONCE: Final = 512
_STEP: Final = 16
_BREATH_S: Final = 0.001
"""While we make messages, other threads cannot run: we stop so long after every few things."""
_ATTEMPTS: Final = 8
_BASE_S: Final = 0.5
_CAP_S: Final = 30.0
_LONGEST_S: Final = 120.0
"""Asked to wait for longer than this, spans are given up: there are newer ones."""
_CLOSE_S: Final = 1.0


class OtlpFigures(msgspec.Struct, frozen=True):
    """What became of the export so far."""

    sent: int
    """Spans that were taken."""
    dropped: int
    """Spans that were not: too many to wait, given up, or refused."""
    waiting: int
    """Spans to be sent."""
    overrun: int
    """How often tracked calls came faster than they were looked at, and some have no span."""
    reports: int
    """Reports of metrics that were taken."""
    failures: int
    """Requests that failed."""


class Receiver(Protocol):
    """Who takes what is sent."""

    async def post(self, path: str, body: bytes, /) -> bytes:
        """Sends one message and returns the answer. Raises PacelineError if it was not taken, of
        a transient category if the same may be taken later."""
        ...

    async def close(self) -> None:
        """Nothing more is sent."""
        ...


@final
class OtlpExport:
    """Sends a span of every call, and the figures of a collector as metrics.

    ::

        async with OtlpExport(options, clock=clock, read=collector.snapshot, rng=rng) as export:
            ...  # export.observe is an observer of the call path

    What a call pays for is one entry in a queue of `options.queue` spans; of more than that the
    oldest are dropped, and counted. All else is done in a thread with a loop of its own, so that a
    receiver that is gone, slow or hangs holds up nobody. Requests that may succeed later are
    repeated, with pauses drawn uniformly from zero to a bound that doubles up to half a minute, and
    never shorter than the receiver asked for. Metrics are cumulative: one that does not arrive is
    in the next. Failures are logged once, until it works again. OpenTelemetry's global providers
    are neither used nor set.
    """

    def __init__(
        self,
        options: OtlpOptions,
        *,
        clock: Clock,
        read: Callable[[], Snapshot],
        rng: random.Random,
        trace: Trace | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        """`read` is asked on another thread; `trace` has calls that `track_performance` noted;
        `rng` spreads retries."""
        names, resource = GENERATIONS[options.names], Resource(_resource(options))
        scope = InstrumentationScope("paceline", options.version)
        self._options = options
        self._clock = clock
        self._read = read
        self._rng = rng
        self._trace = trace
        self._receiver = receiver or OtlpHttp(options, clock)
        self._form = SpanForm(names, resource, scope)
        self._metrics = MetricForm(
            names,
            resource,
            scope,
            buckets="explicit" if options.explicit_buckets else "exponential",
        )
        self._called = Called()
        self._queue: deque[tuple[int, Ended]] = deque(maxlen=options.queue)
        self._number = itertools.count(1).__next__
        self._highest = self._taken = self._due = 0
        self._tracked: deque[Ended] = deque()
        self._mark: object = None
        self._sent = self._lost = self._overrun = self._reports = self._failures = 0
        self._down: set[str] = set()
        self._told = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = asyncio.Event()
        self._closing = False

    @property
    def figures(self) -> OtlpFigures:
        """What became of the export so far."""
        overflowed = max(0, self._highest - self._taken)
        return OtlpFigures(
            self._sent,
            overflowed + self._lost,
            len(self._queue) + len(self._tracked),
            self._overrun,
            self._reports,
            self._failures,
        )

    # -- what calls pay for -------------------------------------------------------------------

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Takes the span of a call; an observer of the call path. From any thread."""
        error, price_usd = outcome.error, call.plan.cost_usd
        ending, usage = Ending.SUCCESS, NO_USAGE
        if error is not None:
            # Who shares another's execution makes no attempt, but one was made.
            ran = outcome.attempts > 0 or outcome.source is not Source.EXECUTED
            ending = ending_of(error.category, ran=ran)
        if price_usd or outcome.tokens or outcome.cost_usd or outcome.saved_usd:
            usage = usage_of(outcome, price_usd)
        # Made here, not later: the call and its outcome would keep alive what they hold.
        span = span_of(call, outcome, self._clock.wall_ns(), ending=ending, usage=usage)
        self._queue.append((self._number(), Ended(span, outcome.attempts, outcome.saved_ns)))

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to send, in a thread; once only."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self.run()), name="paceline-otlp", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Sends what is left, for `drain_s` at most, and ends; what is left then is dropped."""
        self._closing = True
        loop, thread = self._loop, self._thread
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._asked.set)
            except RuntimeError:
                return  # it has ended in between
        if thread is not None:
            thread.join(self._options.drain_s + 2 * _CLOSE_S)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    async def run(self) -> None:
        """Sends until `close`; `start` has this run in a thread."""
        self._loop = asyncio.get_running_loop()
        if self._closing:
            self._asked.set()
        options = self._options
        work = [
            asyncio.create_task(self._repeat(pause_s, send, path))
            for wanted, pause_s, send, path in (
                (options.spans, options.pause_s, self._send_spans, _SPANS),
                (options.metrics, options.interval_s, self._send_metrics, _METRICS),
            )
            if wanted
        ]
        try:
            await self._asked.wait()
            async with asyncio.timeout(options.drain_s):
                await asyncio.gather(*work)
        except TimeoutError:
            _log.info("the OTLP receiver %s did not take the last in time", options.where)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        left = len(self._batch(len(self._queue) + self._options.queue)) + len(self._queue)
        self._queue.clear()
        if left:
            self._lost += left
            _log.warning("%d spans were not sent before the end", left)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._receiver.close()
        except TimeoutError:
            _log.info("the connections to %s did not end in time", self._options.where)

    async def _repeat(
        self, pause_s: float, send: Callable[[], Coroutine[Any, Any, None]], path: str
    ) -> None:
        """Sends after every pause, and a last time when we are to end."""
        last = False
        while not last:
            await self._wait(pause_s)
            last = self._asked.is_set()
            try:
                await send()
            except Exception as exc:  # noqa: BLE001 (one wrong figure must not end the export)
                # Its text may hold anything.
                self._failed(path, f"{type(exc).__name__} was raised")

    async def _wait(self, seconds: float) -> None:
        """Returns after a pause, or as soon as we are to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._asked.wait()

    # -- spans --------------------------------------------------------------------------------

    async def _send_spans(self) -> None:
        while batch := self._batch(_AT_ONCE):
            await self._deliver(batch)

    def _batch(self, most: int) -> list[Ended]:
        """The oldest spans that wait, those of tracked calls before those of the calls that they
        were made in."""
        if not self._tracked:
            # Of calls that end from here on, what was tracked in them may come too late for this.
            self._due = self._queue[-1][0] if self._queue else 0
            self._look()
        batch: list[Ended] = []
        while self._tracked and len(batch) < most:
            batch.append(self._tracked.popleft())
        while self._queue and self._queue[0][0] <= self._due and len(batch) < most:
            number, ended = self._queue.popleft()
            self._highest = max(self._highest, number)
            self._taken += 1
            batch.append(ended)
        for ended in batch:
            self._called.note(ended.span)
        if self._highest > self._taken and not self._told:
            self._told = True
            _log.warning(
                "there are more spans than can be sent; the oldest are dropped, and counted"
            )
        return batch

    def _look(self) -> None:
        """Takes the tracked calls since the last look."""
        if self._trace is not None:
            spans, self._mark, lost = self._trace.since(self._mark)
            self._tracked.extend([Ended(span) for span in spans])
            self._overrun += lost

    async def _deliver(self, batch: list[Ended]) -> None:
        left = len(batch)
        try:
            body = await self._encoded(batch)
            for attempt in itertools.count(1):
                answer = await self._post(_SPANS, body)
                if isinstance(answer, bytes):
                    left = min(left, _refused(answer))
                    self._sent += len(batch) - left
                    return
                pause_s = self._pause_s(answer, attempt)
                if pause_s is None or self._asked.is_set():
                    return
                await self._wait(pause_s)
        finally:
            self._lost += left

    async def _encoded(self, batch: list[Ended]) -> bytes:
        """One message. It is made in parts: put one behind the other, they are one."""
        self._form.remember(batch)
        parts: list[bytes] = []
        for at in range(0, len(batch), _STEP):
            spans = self._form.of(batch[at : at + _STEP])
            parts.append(encode_spans(spans).SerializeToString())
            await asyncio.sleep(_BREATH_S)
        return b"".join(parts)

    def _pause_s(self, failure: PacelineError, attempt: int) -> float | None:
        """Seconds until the next attempt, or None to give up."""
        asked_s = failure.retry_after_s or 0.0
        if attempt >= _ATTEMPTS or not failure.category.transient or asked_s > _LONGEST_S:
            return None
        return max(asked_s, self._rng.uniform(0, min(_CAP_S, _BASE_S * 2**attempt)))

    # -- metrics ------------------------------------------------------------------------------

    async def _send_metrics(self) -> None:
        figures = self.figures
        snapshot = self._read()
        sheet = self._metrics.begin(snapshot, Spans(figures.sent, figures.dropped))
        for series in snapshot.series:
            self._metrics.add(sheet, series)
            await asyncio.sleep(_BREATH_S)
        self._metrics.add_called(sheet, self._called)
        body = encode_metrics(self._metrics.data(sheet)).SerializeToString()
        answer = await self._post(_METRICS, body)
        if isinstance(answer, bytes):
            self._reports += 1

    # -- both ---------------------------------------------------------------------------------

    async def _post(self, path: str, body: bytes) -> bytes | PacelineError:
        """The answer, or why there is none; told once until it works again."""
        try:
            answer = await self._receiver.post(path, body)
        except PacelineError as exc:
            self._failed(path, str(exc))
            return exc
        if path in self._down:
            self._down.discard(path)
            _log.info("the OTLP receiver %s takes %s again", self._options.where, path)
        return answer

    def _failed(self, what: str, why: str) -> None:
        self._failures += 1
        if what not in self._down:
            self._down.add(what)
            _log.warning("the export of %s fails: %s (told once until it works again)", what, why)


def _refused(answer: bytes) -> int:
    """How many spans the receiver did not take."""
    try:
        said = ExportTraceServiceResponse.FromString(answer)
    except DecodeError:
        return 0  # it took them, and says so in another form
    refused: int = said.partial_success.rejected_spans
    return max(0, refused)


def _resource(options: OtlpOptions) -> Mapping[str, str]:
    """Who reports. Not asked of the SDK, which reads the process's environment."""
    said = {
        "service.name": options.service,
        "service.instance.id": options.instance,
        "service.version": options.version,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "paceline",
    }
    return {name: sendable(value) for name, value in said.items() if value}
