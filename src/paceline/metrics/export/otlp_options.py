"""What there is to say about the export by OTLP, from settings or the environment's standard names."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from paceline.errors import ConfigError
from paceline.metrics.export.names import Generation
from paceline.redaction import Secret

__all__ = ["OtlpOptions", "options_of"]

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class OtlpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to send what, and how often. Times in seconds.

    Raises ConfigError for an endpoint that is none, or holds a secret, and for headers that
    cannot be sent; it does not say their values.
    """

    endpoint: str = "http://localhost:4318"
    """The receiver's base address, without `/v1/traces`."""
    headers: Mapping[str, Secret] = {}
    """Sent with every request."""
    service: str = "paceline"
    instance: str = ""
    """Tells this process from others of the same service."""
    version: str = ""
    names: Generation = "util-genai-1.3"
    spans: bool = True
    metrics: bool = True
    explicit_buckets: bool = False
    """For receivers that know no exponential histograms."""
    interval_s: float = 60.0
    """Between two reports of metrics."""
    pause_s: float = 0.5
    """Between two looks for spans to send."""
    timeout_s: float = 10.0
    """Limit of one request, of all of it."""
    drain_s: float = 5.0
    """Limit of closing, for what is still to be sent."""
    queue: int = 16_384
    """Spans that wait at most; the oldest give way."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "the OTLP endpoint is no http address",
                next_step="Set it to the base address of the receiver: http://localhost:4318",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                "the OTLP endpoint has more than scheme, host, port and path",
                next_step="Send credentials in a header.",
            )
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value.reveal()):
                raise ConfigError(
                    f"the OTLP header {name!r} cannot be sent",
                    next_step="Use letters, digits and dashes in names, and no line breaks.",
                )
        least = min(self.interval_s, self.pause_s, self.timeout_s)
        if not least > 0 or self.drain_s < 0 or self.queue < 1:
            raise ConfigError("times and the queue of the OTLP export must be above zero")

    @property
    def where(self) -> str:
        """The receiver, for messages."""
        return urlsplit(self.endpoint).netloc


def options_of(environ: Mapping[str, str]) -> OtlpOptions | None:
    """What OpenTelemetry's standard variables say; None if they name no endpoint, or turn the
    export off. Raises ConfigError for values that cannot be used, without saying them."""
    endpoint = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if not endpoint or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    chosen = OtlpOptions(
        endpoint=endpoint, headers=_headers(environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
    )
    return msgspec.structs.replace(
        chosen,
        service=environ.get("OTEL_SERVICE_NAME", "").strip() or chosen.service,
        timeout_s=_seconds(environ, "OTEL_EXPORTER_OTLP_TIMEOUT", chosen.timeout_s),
        interval_s=_seconds(environ, "OTEL_METRIC_EXPORT_INTERVAL", chosen.interval_s),
        spans=environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() != "none",
        metrics=environ.get("OTEL_METRICS_EXPORTER", "otlp").strip() != "none",
    )


def _headers(text: str) -> Mapping[str, Secret]:
    """`name=value,name=value`, both percent-encoded."""
    headers: dict[str, Secret] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(
                "OTEL_EXPORTER_OTLP_HEADERS has a part without =",
                next_step="Write name=value,name=value, and other signs percent-encoded.",
            )
        headers[unquote(name.strip())] = Secret(unquote(value.strip()))
    return headers


def _seconds(environ: Mapping[str, str], name: str, default_s: float) -> float:
    """What the variable says, in milliseconds."""
    text = environ.get(name, "").strip()
    if not text:
        return default_s
    if not text.isdecimal():
        raise ConfigError(f"{name} is not a number of milliseconds")
    return int(text) / 1_000
