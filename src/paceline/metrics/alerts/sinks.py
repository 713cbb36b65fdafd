"""Who is told of alerts: the one method that takes, and the two that need no network."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, final

from paceline.metrics.alerts.alert import Alert, Status

__all__ = ["CallbackSink", "LogSink", "Sink"]

_LEVELS: Final = {"critical": logging.ERROR, "warning": logging.WARNING}


class Sink(Protocol):
    """Takes alerts to somebody."""

    @property
    def name(self) -> str:
        """What messages call it; no secret."""
        ...

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Tells of alerts, each as it is at this moment; may be told of the same ones again.

        Raises PacelineError if they did not arrive: one whose category is transient is tried
        again, not before its `retry_after_s`. Any other exception is tried again, too.
        """
        ...

    async def close(self) -> None:
        """Gives up what it holds; nothing is sent after that."""
        ...


@final
class LogSink:
    """Writes each alert to a log as one line: critical as an error, warnings as such, what is
    resolved or less urgent as information."""

    name = "log"

    def __init__(self, log: logging.Logger | None = None) -> None:
        """The default is the log `paceline`."""
        self._log = log or logging.getLogger("paceline")

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Never fails."""
        for alert in alerts:
            firing = alert.status is Status.FIRING
            level = _LEVELS.get(alert.severity, logging.INFO) if firing else logging.INFO
            labels = ", ".join([f"{k}={v}" for k, v in sorted(alert.labels.items())])
            texts = [alert.summary, alert.annotations.get("description", "")]
            said = ": ".join([text for text in dict.fromkeys(texts) if text])
            self._log.log(
                level, "alert %s: {%s} %s", alert.status.value, _one_line(labels), _one_line(said)
            )

    async def close(self) -> None:
        """Holds nothing."""


@final
class CallbackSink:
    """Hands alerts to a function, plain or coroutine; what it raises is tried again."""

    def __init__(
        self, told: Callable[[Sequence[Alert]], Awaitable[None] | None], name: str = "callback"
    ) -> None:
        """A plain function runs on the event loop: it is not to wait for anything."""
        self.name = name
        self._told = told

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Raises what the function raises."""
        coming = self._told(alerts)
        if inspect.isawaitable(coming):
            await coming

    async def close(self) -> None:
        """Holds nothing."""


def _one_line(text: str) -> str:
    """Names of agents may hold anything, and one alert is one line."""
    return "".join([c if c.isprintable() else " " for c in text])
