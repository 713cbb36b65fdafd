"""Who is told of a runtime's figures while it is open: alert sinks, Prometheus, OpenTelemetry."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, final

import msgspec

from paceline.balance.gate import Gate
from paceline.call import Call, Outcome
from paceline.clock import Clock
from paceline.errors import Category, ConfigError, PacelineError
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Snapshot
from paceline.metrics.span import Span
from paceline.settings import AlertSettings, MetricsSettings, Settings

if TYPE_CHECKING:
    from paceline.balance.balancer import LoadBalancer
    from paceline.balance.instance import AgentInstance

__all__ = ["Notice", "Reporting"]

Notice = Callable[[str, PacelineError], None]
"""Told of what is not as it should be, and why, where all else goes on."""

Observer = Callable[[Call, Outcome], None]


@final
class Reporting:
    """Opens what the settings ask for; each part loads only if it is wanted.

    What is needed to be told is seen before calls are: a rule, an address or an endpoint that
    cannot be raises ConfigError when it is opened. An address that another process uses costs the
    page of metrics alone: commands that run beside a service have its settings too.
    """

    def __init__(
        self,
        metrics: MetricsCollector,
        gate: Gate,
        instance: str,
        balancer: "Callable[[], LoadBalancer | None]",
        *,
        clock: Clock,
        rng: random.Random,
        environ: Mapping[str, str],
    ) -> None:
        """`gate` is what all executions of this `instance` pass; `balancer` has the instances of
        agents, None while there are none."""
        self._metrics = metrics
        self._gate = gate
        self._instance = instance
        self._balancer = balancer
        self._clock = clock
        self._rng = rng
        self._environ = environ

    async def open(
        self, settings: Settings, parts: contextlib.AsyncExitStack, notice: Notice
    ) -> list[Observer]:
        """Opens all parts, to be closed with `parts`; who is to be told of each call.

        `notice` is told what could not be opened. Raises ConfigError.
        """
        observers: list[Observer] = []
        if settings.metrics.listen:
            observers.extend(await self._serve(settings.metrics, parts, notice))
        if settings.metrics.otlp_endpoint:
            observers.append(await self._export(settings.metrics, parts))
        if settings.alerts.enabled:
            await self._watch(settings.alerts, parts)
        return observers

    def _read(self) -> Snapshot:
        return msgspec.structs.replace(self._metrics.snapshot(), loads=self._loads())

    def _loads(self) -> Mapping[str, float]:
        """How full this process is, and each instance of an agent, as AGENT/ID."""
        balancer = self._balancer()
        known: Mapping[str, list[AgentInstance]] = {} if balancer is None else balancer.instances
        return {
            self._instance: self._gate.in_use / self._gate.capacity,
            **{
                f"{one.agent_type}/{one.id}": one.in_flight / one.limit if one.limit else 1.0
                for instances in known.values()
                for one in instances
            },
        }

    async def _serve(
        self, settings: MetricsSettings, parts: contextlib.AsyncExitStack, notice: Notice
    ) -> list[Observer]:
        from paceline.metrics.export.endpoint import Endpoint  # noqa: PLC0415 (an HTTP server)
        from paceline.metrics.export.pages import Pages  # noqa: PLC0415
        from paceline.metrics.export.prometheus import Exposition  # noqa: PLC0415 (needs the extra)
        from paceline.metrics.export.recent import Recent  # noqa: PLC0415

        recent, ours = Recent(self._clock), version("paceline")

        def spans() -> list[Span]:
            return [*self._metrics.trace.spans(), *recent.spans()]

        exposition = Exposition(self._read, version=ours, spans=spans, names=settings.names)
        pages = Pages(self._read, spans=spans, loads=self._loads, clock=self._clock, version=ours)
        hosts = settings.hosts.replace(",", " ").split()
        endpoint = Endpoint(exposition.page, pages=pages, listen=settings.listen, hosts=hosts)
        try:
            await parts.enter_async_context(endpoint)
        except ConfigError as exc:
            if exc.category is not Category.UNAVAILABLE:
                raise
            notice("no page of metrics", exc)
            return []
        return [recent.observe]

    async def _export(
        self, settings: MetricsSettings, parts: contextlib.AsyncExitStack
    ) -> Observer:
        from paceline.metrics.export.otlp import OtlpExport  # noqa: PLC0415 (needs the extra)
        from paceline.metrics.export.otlp_options import OtlpOptions, options_of  # noqa: PLC0415

        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": settings.otlp_endpoint}
        options = options_of({**self._environ, **endpoint}) or OtlpOptions()
        options = msgspec.structs.replace(
            options,
            names=settings.otlp_names,
            instance=self._instance,
            version=version("paceline"),
        )
        export = OtlpExport(
            options, clock=self._clock, read=self._read, rng=self._rng, trace=self._metrics.trace
        )
        await parts.enter_async_context(export)
        return export.observe

    async def _watch(self, settings: AlertSettings, parts: contextlib.AsyncExitStack) -> None:
        if settings != AlertSettings():
            await self._watch_now(settings, parts)
            return
        # A command that runs one agent is over before there is anything to look at, and need not
        # load what looks.
        later = asyncio.create_task(self._watch_later(settings))
        parts.push_async_callback(_ended, later)

    async def _watch_now(self, settings: AlertSettings, parts: contextlib.AsyncExitStack) -> None:
        from paceline.metrics.alerts.connected import watch_of  # noqa: PLC0415 (see above)

        watch = watch_of(settings, self._read, clock=self._clock, rng=self._rng)
        await parts.enter_async_context(watch)

    async def _watch_later(self, settings: AlertSettings) -> None:
        await asyncio.sleep(settings.interval_s)
        async with contextlib.AsyncExitStack() as parts:
            await self._watch_now(settings, parts)
            await asyncio.Event().wait()  # until it is cancelled


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
