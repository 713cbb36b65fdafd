"""`paceline alerts`: what is watched, where it stands, whether those who are told can be told."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple, final

import msgspec

from paceline.cli.completed import completed
from paceline.cli.output import FAILED, OK, json_line, line, note, table
from paceline.cli.place import Place
from paceline.cli.replay import note_call
from paceline.clock import Clock, SystemClock
from paceline.errors import PacelineError, UsageError
from paceline.history.record import Facts
from paceline.history.sqlite import SqliteReader
from paceline.metrics.alerts.alert import Alert, Silence, Status, rfc3339
from paceline.metrics.alerts.configured import rules_of, silences_of
from paceline.metrics.alerts.connected import sinks_of
from paceline.metrics.alerts.machine import Phase, Standing
from paceline.metrics.alerts.measures import MEASURES
from paceline.metrics.alerts.prometheus import to_prometheus
from paceline.metrics.alerts.replay import Past, Replayed, replay
from paceline.metrics.alerts.rules import Look, Rule
from paceline.metrics.alerts.sinks import LogSink, Sink
from paceline.metrics.collector import MetricsCollector
from paceline.settings import AlertSettings

__all__ = ["alerts", "export", "metrics", "try_sinks"]

_DAY_NS: Final = 86_400 * 1_000_000_000
_SUBJECTS: Final = ("agent", "instance")
_UNKNOWN: Final = "no figures"


def alerts(
    place: Place, settings: AlertSettings, *, as_json: bool, clock: Clock | None = None
) -> int:
    """Each rule, and where it stands by the calls in the history."""
    rules, silences = rules_of(settings), silences_of(settings)
    now_ns = (clock or SystemClock()).wall_ns()
    since_ns = now_ns - _DAY_NS
    found = replay(rules, _past(SqliteReader(place.home.history), since_ns), now_ns)
    rows = [row for rule in rules for row in _rows(rule, found, silences, now_ns)]
    if as_json:
        for row in rows:
            json_line(row._asdict())
    else:
        columns = ("rule", "severity", "state", "about", "since", "figures")
        whole = ("rule", "state", "about")
        table(columns, [_cells(row) for row in rows], empty="no rules", whole=whole)
    return OK


def metrics(*, as_json: bool) -> int:
    """What rules can watch."""
    rows = [(one.name, one.unit, one.meaning) for one in MEASURES.values()]
    if as_json:
        for name, unit, meaning in rows:
            json_line({"name": name, "unit": unit, "meaning": meaning})
    else:
        table(("metric", "unit", "meaning"), rows, whole=("metric", "unit"))
    return OK


def export(settings: AlertSettings) -> int:
    """The rules as a rule file for Prometheus."""
    line(to_prometheus(rules_of(settings)).rstrip("\n"))
    return OK


def try_sinks(
    settings: AlertSettings, *, sink: str | None, as_json: bool, clock: Clock | None = None
) -> int:
    """Sends a test alert, and that it is over, through each sink or through one."""
    clock = clock or SystemClock()
    sinks = [_Shown() if isinstance(one, LogSink) else one for one in sinks_of(settings, clock)]
    names = [one.name for one in sinks]
    if sink is not None and sink not in names:
        raise UsageError(
            f"there is no alert sink {sink!r}",
            next_step=f"There are: {', '.join(names)}." if names else _HOW,
        )
    chosen = [one for one in sinks if sink in (None, one.name)]
    answers = completed(_asked(chosen, clock, settings.timeout_s))
    for answer in answers:
        if as_json:
            json_line(answer._asdict())
        elif answer.ok:
            line(f"{answer.sink}: took the alert and its end ({answer.ms:,.0f} ms)")
        else:
            line(f"{answer.sink}: {answer.error}\n  next: {answer.next_step}")
    if not set(names) - {"log"}:
        note(f"nobody is told but the log. {_HOW}")
    return OK if all(answer.ok for answer in answers) else FAILED


_HOW: Final = "Set alerts.webhook_url, alerts.discord_url or alerts.slack_url."


class _Row(NamedTuple):
    """A rule and one thing it is about; or all of those where nothing is to be said."""

    rule: str
    severity: str
    state: str
    silenced: bool
    labels: dict[str, str]
    since: str | None
    figures: str


class _Answer(NamedTuple):
    """What came of one sink."""

    sink: str
    ok: bool
    ms: float
    error: str | None
    next_step: str | None


def _past(reader: SqliteReader, since_ns: int) -> list[Past]:
    """The recorded calls since then, in the order of their ends."""
    facts: list[Facts] = []
    reader.fold(facts.append, since_ns=since_ns)
    facts.sort(key=lambda one: one.at_ns)
    return [(one.at_ns, partial(_add, one)) for one in facts]


def _add(facts: Facts, collector: MetricsCollector) -> None:
    note_call(collector, facts, facts.at_ns)


def _rows(rule: Rule, found: Replayed, silences: Sequence[Silence], now_ns: int) -> Iterator[_Row]:
    seen = [one for one in found.looks if one.rule is rule]
    standing = [one for one in found.standings if one.alert.rule == rule.name]
    for one in standing:
        yield _standing_row(rule, one, silences, now_ns)
    if standing:
        return
    known = [one for one in seen if one.holds(firing=False) is not None]
    state = Phase.INACTIVE.value if known else _UNKNOWN
    yield _Row(rule.name, rule.severity.value, state, False, {}, None, _why(rule, seen, known))


def _why(rule: Rule, seen: Sequence[Look], known: Sequence[Look]) -> str:
    """What is behind a rule that raises nothing."""
    if len(known) == 1:
        return known[0].evidence
    if known:
        return f"{len(known)} {rule.per.value}s looked at"
    if not seen:
        return f"no {rule.per.value} is known"
    return "too few calls, or nothing known"


def _standing_row(rule: Rule, standing: Standing, silences: Sequence[Silence], now_ns: int) -> _Row:
    alert = standing.alert
    return _Row(
        rule.name,
        rule.severity.value,
        standing.phase.value,
        any(one.covers(alert, now_ns) for one in silences),
        {k: v for k, v in alert.labels.items() if k not in ("alertname", "severity")},
        rfc3339(standing.since_ns),
        alert.annotations["description"],
    )


def _cells(row: _Row) -> tuple[str, ...]:
    return (
        row.rule,
        row.severity,
        f"{row.state}{' (silenced)' if row.silenced else ''}",
        ", ".join([row.labels[name] for name in _SUBJECTS if name in row.labels]) or "-",
        row.since or "-",
        row.figures,
    )


@final
class _Shown:
    """The log, where it can be seen."""

    name = "log"

    async def send(self, alerts: Sequence[Alert]) -> None:
        log = logging.Logger("paceline")  # noqa: LOG001 (of its own: the shared one is silent here)
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        log.addHandler(handler)
        await LogSink(log).send(alerts)

    async def close(self) -> None:
        """Holds nothing."""


async def _asked(sinks: Sequence[Sink], clock: Clock, timeout_s: float) -> list[_Answer]:
    return [await _ask(sink, clock, timeout_s) for sink in sinks]


async def _ask(sink: Sink, clock: Clock, timeout_s: float) -> _Answer:
    at_ns, began_ns = clock.wall_ns(), clock.monotonic_ns()
    alert = Alert(
        rule="PacelineTest",
        severity="info",
        status=Status.FIRING,
        labels={"alertname": "PacelineTest", "severity": "info"},
        annotations={"summary": "This is a test of alerts. Nothing is wrong."},
        value=None,
        starts_ns=at_ns,
    )
    ended = msgspec.structs.replace(alert, status=Status.RESOLVED, ends_ns=at_ns)
    failure: PacelineError | None = None
    try:
        async with asyncio.timeout(2 * timeout_s):
            await sink.send([alert])
            await sink.send([ended])
    except PacelineError as exc:
        failure = exc
    except TimeoutError:
        failure = PacelineError(f"no answer in {2 * timeout_s:g} s", next_step="Try again.")
    finally:
        await sink.close()
    ms = (clock.monotonic_ns() - began_ns) / 1e6
    if failure is None:
        return _Answer(sink.name, True, ms, None, None)
    return _Answer(sink.name, False, ms, str(failure), failure.next_step)
