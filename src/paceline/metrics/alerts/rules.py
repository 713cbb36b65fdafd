"""Rules: when a figure is an alert. Pure.

A condition fires beyond one bound and resolves at another, so that a figure that wavers about a
bound does not raise an alert each time. A minimum of calls keeps a single error in the quiet of
the night from being an error rate of 100 %.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

import msgspec

from paceline.errors import ConfigError
from paceline.metrics.alerts.measures import Measure, Reading, Subject, Unit, measure
from paceline.metrics.figures import Snapshot
from paceline.metrics.windows import WINDOWS

__all__ = ["Condition", "Look", "Per", "Rule", "Severity", "check", "look", "looks", "shown"]

_NO_LABELS: Final[Mapping[str, str]] = {}
_OWN_LABELS: Final = frozenset({"alertname", "severity", "agent", "instance"})
_LONG_MS: Final = 1_000


class Severity(StrEnum):
    """How urgent it is."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Per(StrEnum):
    """What each alert of a rule is about."""

    AGENT = "agent"
    ALL = "all"
    INSTANCE = "instance"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A figure beyond a bound: exactly one of `above` and `below`.

    `resolve` is where it is over again (the bound itself if None), `min_count` how many calls it
    takes to begin. Raises ConfigError for what makes no sense.
    """

    metric: str
    window: str = "5m"
    above: float | None = None
    below: float | None = None
    resolve: float | None = None
    min_count: int = 0
    slower_than_ms: float | None = None

    def __post_init__(self) -> None:
        what = measure(self.metric)
        if (self.above is None) == (self.below is None):
            raise ConfigError(f"{self.metric}: a condition has either `above` or `below`")
        if not math.isfinite(self.bound):
            raise ConfigError(f"{self.metric}: nothing is ever beyond {self.bound}")
        if self.window not in WINDOWS:
            raise ConfigError(
                f"there is no window {self.window!r}", next_step=f"There are: {', '.join(WINDOWS)}."
            )
        if what.bounded and not self.slower_than_ms:
            raise ConfigError(f"{self.metric} needs `slower_than_ms`")
        if self.resolve is not None and self._worse(self.resolve, self.bound):
            raise ConfigError(
                f"{self.metric}: it would be resolved at {self.resolve:g}, where it still fires",
                next_step="Put `resolve` on the good side of the bound.",
            )
        if what.unit == "share" and not 0 <= self.bound <= 1:
            raise ConfigError(
                f"{self.metric} is a share from 0 to 1, never beyond {self.bound:g}",
                next_step="Write 95 % as 0.95.",
            )

    @property
    def measure(self) -> Measure:
        """What is watched."""
        return measure(self.metric)

    @property
    def bound(self) -> float:
        """Where it fires."""
        return (self.above if self.above is not None else self.below) or 0.0

    def read(self, subject: Subject) -> Reading:
        """The figure."""
        return self.measure.read(subject, self.window, (self.slower_than_ms or 0.0) * 1e6)

    def holds(self, reading: Reading, *, firing: bool) -> bool | None:
        """Whether the figure is bad; None if nothing is known. What fires already is judged by the
        other bound, and by whatever calls there are."""
        if reading.value is None:
            return None
        if firing:
            limit = self.bound if self.resolve is None else self.resolve
            return self._worse(reading.value, limit)
        if reading.calls is not None and reading.calls < self.min_count:
            return None
        return self._worse(reading.value, self.bound)

    def _worse(self, value: float, than: float) -> bool:
        return value > than if self.above is not None else value < than

    def says(self, reading: Reading) -> str:
        """The figure, and the bound it is held against."""
        unit = self.measure.unit
        slower = f" ({self.slower_than_ms:g} ms)" if self.slower_than_ms else ""
        span = f" over {self.window}" if self.measure.windowed else ""
        of = "" if reading.calls is None else f" of {reading.calls:,} calls"
        word = "above" if self.above is not None else "below"
        return (
            f"{self.metric}{slower}{span} is {shown(reading.value, unit)}{of},"
            f" alert {word} {shown(self.bound, unit)}"
        )


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """All `conditions` at once for `for_s` seconds raise an alert, which is resolved when one of
    them has been over for `keep_s`. Raises ConfigError for what makes no sense."""

    name: str
    conditions: tuple[Condition, ...]
    for_s: float = 0.0
    keep_s: float = 0.0
    per: Per = Per.AGENT
    agents: tuple[str, ...] = ()
    """Patterns of names; empty for all."""
    severity: Severity = Severity.WARNING
    labels: Mapping[str, str] = _NO_LABELS
    summary: str = ""
    target: str = ""
    """What is aimed at, in words."""

    def __post_init__(self) -> None:
        if not self.conditions:
            raise ConfigError(f"the rule {self.name} has no condition")
        if own := sorted(_OWN_LABELS & self.labels.keys()):
            raise ConfigError(f"the rule {self.name}: the label {own[0]} is set by itself")
        if self.agents and self.per is Per.ALL:
            raise ConfigError(
                f"the rule {self.name}: `agents` chooses among agents, `per` takes all together",
                next_step='Leave out `agents`, or write per = "agent".',
            )
        about_instances = {one.measure.of_instances for one in self.conditions}
        if about_instances != {self.per is Per.INSTANCE}:
            raise ConfigError(f"the rule {self.name}: load is of instances, all else is of calls")

    def concerns(self, subject: Subject) -> bool:
        """Whether it is for this one."""
        if self.per is Per.ALL or not self.agents:
            return True
        name = subject.labels.get(self.per.value, "")
        return any(fnmatchcase(name, pattern) for pattern in self.agents)

    def alert_labels(self, subject: Subject) -> dict[str, str]:
        """The labels of the alert about this one."""
        own = {"alertname": self.name, "severity": self.severity.value}
        return {**self.labels, **subject.labels, **own}


class Look(NamedTuple):
    """What a rule sees of one subject."""

    rule: Rule
    labels: dict[str, str]
    readings: tuple[Reading, ...]

    def holds(self, *, firing: bool) -> bool | None:
        """Whether all conditions hold; None if one is not known and none is known not to."""
        each = [
            one.holds(reading, firing=firing)
            for one, reading in zip(self.rule.conditions, self.readings, strict=True)
        ]
        return False if False in each else None if None in each else True

    @property
    def evidence(self) -> str:
        """The figures in words."""
        both = zip(self.rule.conditions, self.readings, strict=True)
        return "; ".join([one.says(reading) for one, reading in both])


def check(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules, if no two have one name. Raises ConfigError."""
    checked = tuple(rules)
    names = [rule.name for rule in checked]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two alert rules are called {twice[0]}")
    return checked


def looks(rules: Iterable[Rule], snapshot: Snapshot) -> Iterator[Look]:
    """What each rule sees of each of its subjects."""
    subjects: dict[Per, list[Subject]] = {}
    for rule in rules:
        if rule.per not in subjects:
            subjects[rule.per] = _subjects(rule.per, snapshot)
        for subject in subjects[rule.per]:
            if rule.concerns(subject):
                yield look(rule, subject)


def _subjects(per: Per, snapshot: Snapshot) -> list[Subject]:
    match per:
        case Per.AGENT:
            return [Subject({"agent": name}, one) for name, one in snapshot.agents.items()]
        case Per.ALL:
            return [Subject({}, snapshot.totals)]
        case Per.INSTANCE:
            loads = sorted(snapshot.loads.items())
            return [Subject({"instance": name}, load=load) for name, load in loads]


def look(rule: Rule, subject: Subject) -> Look:
    """What a rule sees of one subject."""
    readings = tuple([one.read(subject) for one in rule.conditions])
    return Look(rule, rule.alert_labels(subject), readings)


def shown(value: float | None, unit: Unit) -> str:
    """A figure for people."""
    if value is None:
        return "unknown"
    match unit:
        case "ms":
            return f"{value:,.4g} ms" if value < _LONG_MS else f"{value:,.0f} ms"
        case "share":
            return f"{value * 100:.4g} %"
        case "usd":
            return f"${value:,.4g}"
        case "per_s":
            return f"{value:,.4g} a second"
        case "count":
            return f"{value:,.0f}"
