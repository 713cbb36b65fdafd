"""An alert: what is wrong with what, since when; and silences. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

import msgspec

__all__ = ["Alert", "Silence", "Status", "fingerprint", "rfc3339"]

_NO_LABELS: Final[Mapping[str, str]] = {}
_FNV_OFFSET: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_SEPARATOR: Final = b"\xff"
_NS: Final = 1_000_000_000


class Status(StrEnum):
    """Whether it goes on."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that those who are told may have to act on. Moments by the wall clock."""

    rule: str
    severity: str
    status: Status
    labels: Mapping[str, str]
    """Say what it is about, `alertname` and `severity` among them; two alerts with the same
    labels are the same alert."""
    annotations: Mapping[str, str]
    """For people: `summary`, and the figures as `description`."""
    value: float | None
    starts_ns: int
    """When it began to fire."""
    ends_ns: int | None = None
    """When it was resolved."""

    @property
    def fingerprint(self) -> str:
        """Tells it from all others, in every process; as Alertmanager's."""
        return fingerprint(self.labels)

    @property
    def summary(self) -> str:
        """What is wrong, in a sentence."""
        return self.annotations.get("summary", self.rule)


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that nobody is told of until `until_ns` by the wall clock.

    `rule` and the values of `labels` are patterns (`*`, `?`, `[...]`); all have to fit.
    """

    until_ns: int
    rule: str = "*"
    labels: Mapping[str, str] = _NO_LABELS
    reason: str = ""

    def covers(self, alert: Alert, at_ns: int) -> bool:
        """Whether it keeps an alert quiet at a moment of the wall clock."""
        return (
            at_ns < self.until_ns
            and fnmatchcase(alert.rule, self.rule)
            and all(fnmatchcase(alert.labels.get(k, ""), v) for k, v in self.labels.items())
        )


def fingerprint(labels: Mapping[str, str]) -> str:
    """16 hexadecimal digits: FNV-1a (64 bits) over sorted names and values, as Prometheus has it,
    so that an alert is known as the same where both send it."""
    parts = (
        part.encode("utf-8", "backslashreplace") + _SEPARATOR
        for name in sorted(labels)
        for part in (name, labels[name])
    )
    digest = _FNV_OFFSET
    for byte in b"".join(parts):
        digest = ((digest ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def rfc3339(wall_ns: int) -> str:
    """A moment of the wall clock as text, in UTC, with milliseconds."""
    seconds, rest_ns = divmod(wall_ns, _NS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"
