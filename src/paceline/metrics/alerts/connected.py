"""The sinks and the watch that the settings ask for."""

import random
from collections.abc import Callable

from paceline.clock import Clock
from paceline.metrics.alerts import forms
from paceline.metrics.alerts.configured import rules_of, silences_of
from paceline.metrics.alerts.sinks import LogSink, Sink
from paceline.metrics.alerts.watch import AlertWatch, Pace
from paceline.metrics.figures import Snapshot
from paceline.redaction import Secret
from paceline.settings import AlertSettings

__all__ = ["sinks_of", "watch_of"]


def sinks_of(settings: AlertSettings, clock: Clock) -> list[Sink]:
    """Those that have an address, and the log. Raises ConfigError for an address that is none."""
    sinks: list[Sink] = [LogSink()] if settings.log else []
    addressed = (
        ("webhook", settings.webhook_url, forms.alertmanager, settings.webhook_token),
        ("discord", settings.discord_url, forms.discord, ""),
        ("slack", settings.slack_url, forms.slack, ""),
    )
    for name, url, form, token in addressed:
        if url:
            # Without one, its client need not be loaded: that takes longer than all the rest.
            from paceline.metrics.alerts.webhook import WebhookSink  # noqa: PLC0415

            sink = WebhookSink(
                name,
                Secret(url),
                form,
                clock=clock,
                token=Secret(token) if token else None,
                timeout_s=settings.timeout_s,
            )
            sinks.append(sink)
    return sinks


def watch_of(
    settings: AlertSettings,
    read: Callable[[], Snapshot],
    *,
    clock: Clock,
    rng: random.Random,
) -> AlertWatch:
    """A watch, not open yet, over `read()`. Raises ConfigError for a rule or an address that
    cannot be."""
    return AlertWatch(
        rules_of(settings),
        read,
        sinks_of(settings, clock),
        clock=clock,
        silences=silences_of(settings),
        pace=Pace(
            interval_s=settings.interval_s, repeat_s=settings.repeat_s, drain_s=settings.drain_s
        ),
        rng=rng,
    )
