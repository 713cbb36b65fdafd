"""The life of an alert: inactive, pending, firing, resolved. Pure.

`evaluate` is handed the state it gave out before and gives out the next; who is to be told of
what is part of what it gives out. Durations are of a clock that never goes back, stamps of the
wall clock of the snapshot.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from paceline.metrics.alerts.alert import Alert, Silence, Status, fingerprint
from paceline.metrics.alerts.rules import Look, Rule, looks
from paceline.metrics.figures import Snapshot

__all__ = ["NOTHING", "Evaluation", "Phase", "Standing", "Transition", "evaluate"]

_S: Final = 1_000_000_000
_REPEAT_S: Final = 14_400.0


class Phase(StrEnum):
    """Where an alert is in its life; what is inactive or resolved is kept nowhere."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is pending or firing. Moments of the monotonic clock."""

    phase: Phase
    alert: Alert
    since_ns: int
    """When the phase began."""
    clear_ns: int | None = None
    """Since when it has been over, without a break, while it fires."""
    told_ns: int | None = None
    """When it was last told that it fires; None if nobody was."""


class Transition(NamedTuple):
    """An alert went from one phase to another."""

    before: Phase
    after: Phase
    alert: Alert


State = Mapping[str, Standing]
"""Standings by fingerprint."""

NOTHING: Final[State] = {}
"""The state before the first evaluation."""


class Evaluation(NamedTuple):
    """What came of looking at the figures."""

    state: State
    transitions: tuple[Transition, ...]
    notices: tuple[Alert, ...]
    """Alerts that are to be sent: that began to fire, that go on and were not told of for long,
    that were resolved."""


def evaluate(
    rules: Iterable[Rule],
    snapshot: Snapshot,
    state: State,
    now_ns: int,
    *,
    silences: Iterable[Silence] = (),
    repeat_s: float = _REPEAT_S,
) -> Evaluation:
    """Looks at every figure once. `now_ns` is of the monotonic clock, and not before the last.

    A rule has to hold at every look for its `for_s`, and to be over at every look for its
    `keep_s`. A figure that is not known neither begins an alert nor keeps one going. An alert
    whose rule or subject is gone is resolved at once. Each is told of once when it fires, then
    every `repeat_s`; while a silence covers it, nobody is; and that it is resolved is told
    exactly to those who were told that it fires.
    """
    kept: dict[str, Standing] = {}
    transitions: list[Transition] = []
    for look in looks(rules, snapshot):
        key = fingerprint(look.labels)
        before = state.get(key)
        after, moved = _step(look, before, now_ns, snapshot.at_ns)
        if after is not None:
            kept[key] = after
        if moved is not None:
            transitions.append(moved)
    ended = {fingerprint(moved.alert.labels) for moved in transitions}
    for key, gone in state.items():
        if key not in kept and key not in ended:
            transitions.append(_gone(gone, snapshot.at_ns))
    hushed = tuple(silences)
    notices = [
        moved.alert
        for moved in transitions
        if moved.after is Phase.RESOLVED and _was_told(state, moved.alert)
    ]
    for key, standing in kept.items():
        if _due(standing, now_ns, repeat_s) and not _silenced(standing, hushed, snapshot.at_ns):
            kept[key] = msgspec.structs.replace(standing, told_ns=now_ns)
            notices.append(standing.alert)
    return Evaluation(kept, tuple(transitions), tuple(notices))


def _step(
    look: Look, before: Standing | None, now_ns: int, at_ns: int
) -> tuple[Standing | None, Transition | None]:
    """The next standing of one alert, None for inactive, and what changed."""
    if before is not None and before.phase is Phase.FIRING:
        return _while_firing(look, before, now_ns, at_ns)
    if look.holds(firing=False) is not True:
        if before is None:
            return None, None
        return None, Transition(Phase.PENDING, Phase.INACTIVE, before.alert)
    since_ns = now_ns if before is None else before.since_ns
    alert = _alert(look, at_ns)
    was = Phase.INACTIVE if before is None else Phase.PENDING
    if now_ns - since_ns >= look.rule.for_s * _S:
        standing = Standing(phase=Phase.FIRING, alert=alert, since_ns=now_ns)
        return standing, Transition(was, Phase.FIRING, alert)
    standing = Standing(phase=Phase.PENDING, alert=alert, since_ns=since_ns)
    return standing, None if before else Transition(was, Phase.PENDING, alert)


def _while_firing(
    look: Look, before: Standing, now_ns: int, at_ns: int
) -> tuple[Standing | None, Transition | None]:
    if look.holds(firing=True) is True:
        alert = _alert(look, before.alert.starts_ns)
        return msgspec.structs.replace(before, alert=alert, clear_ns=None), None
    clear_ns = now_ns if before.clear_ns is None else before.clear_ns
    if now_ns - clear_ns < look.rule.keep_s * _S:
        return msgspec.structs.replace(before, clear_ns=clear_ns), None
    alert = _ended(_alert(look, before.alert.starts_ns), at_ns)
    return None, Transition(Phase.FIRING, Phase.RESOLVED, alert)


def _gone(standing: Standing, at_ns: int) -> Transition:
    if standing.phase is Phase.PENDING:
        return Transition(Phase.PENDING, Phase.INACTIVE, standing.alert)
    return Transition(Phase.FIRING, Phase.RESOLVED, _ended(standing.alert, at_ns))


def _alert(look: Look, starts_ns: int) -> Alert:
    rule = look.rule
    annotations = {"summary": rule.summary or look.evidence, "description": look.evidence}
    if rule.target:
        annotations["target"] = rule.target
    return Alert(
        rule=rule.name,
        severity=rule.severity.value,
        status=Status.FIRING,
        labels=look.labels,
        annotations=annotations,
        value=look.readings[-1].value,
        starts_ns=starts_ns,
    )


def _ended(alert: Alert, at_ns: int) -> Alert:
    """Never before it began, though the wall clock may have been put back."""
    ends_ns = max(at_ns, alert.starts_ns)
    return msgspec.structs.replace(alert, status=Status.RESOLVED, ends_ns=ends_ns)


def _due(standing: Standing, now_ns: int, repeat_s: float) -> bool:
    if standing.phase is not Phase.FIRING:
        return False
    return standing.told_ns is None or now_ns - standing.told_ns >= repeat_s * _S


def _silenced(standing: Standing, silences: tuple[Silence, ...], at_ns: int) -> bool:
    return any(silence.covers(standing.alert, at_ns) for silence in silences)


def _was_told(state: State, alert: Alert) -> bool:
    before = state.get(alert.fingerprint)
    return before is not None and before.told_ns is not None
