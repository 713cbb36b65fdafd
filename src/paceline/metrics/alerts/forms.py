"""How alerts are written for those who get them: Alertmanager's form, Discord's, Slack's. Pure.

Each function gives the bodies of one or more requests: what is longer than the other side takes
is cut, and what is more is sent in several. Lengths are counted in UTF-16 units, which is what
both services' clients count; that is never less than what is meant.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from paceline.metrics.alerts.alert import Alert, Status, rfc3339

__all__ = ["Form", "alertmanager", "discord", "slack"]

Form = Callable[[Sequence[Alert]], list[dict[str, Any]]]
"""Makes of alerts what is posted, each body for a request of its own."""

_NEVER: Final = "0001-01-01T00:00:00Z"
_MOST_ALERTS: Final = 200

_EMBEDS: Final = 10
_EMBED_TITLE: Final = 256
_EMBED_TEXT: Final = 2_000
"""Of the 4,096 that Discord takes."""
_FIELDS: Final = 25
_FIELD_NAME: Final = 256
_FIELD_VALUE: Final = 1_024
_EMBEDS_IN_ALL: Final = 6_000
_COLOURS: Final = {"critical": 0xD32F2F, "warning": 0xF9A825, "info": 0x1976D2}
_RESOLVED_COLOUR: Final = 0x2E7D32

_BLOCKS: Final = 50
_SECTION: Final = 2_900
"""Of the 3,000 that Slack takes."""
_SLACK_TEXT: Final = 300
_SLACK_IN_ALL: Final = 12_000
"""Slack refuses somewhat beyond 13,000 in the blocks of one message."""


def alertmanager(alerts: Sequence[Alert], receiver: str = "paceline") -> list[dict[str, Any]]:
    """Alertmanager's webhook, version 4: one body for each rule, as if grouped by `alertname`."""
    return [
        _group(name, part, receiver)
        for name, group in groupby(sorted(alerts, key=_rule), _rule)
        for part in _chunks(list(group), _MOST_ALERTS)
    ]


def _rule(alert: Alert) -> str:
    return alert.rule


def _group(name: str, alerts: Sequence[Alert], receiver: str) -> dict[str, Any]:
    firing = any(alert.status is Status.FIRING for alert in alerts)
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{name}"}}',
        "truncatedAlerts": 0,
        "status": (Status.FIRING if firing else Status.RESOLVED).value,
        "receiver": receiver,
        "groupLabels": {"alertname": name},
        "commonLabels": _common([_plain(alert.labels) for alert in alerts]),
        "commonAnnotations": _common([_plain(alert.annotations) for alert in alerts]),
        "externalURL": "",
        "alerts": [
            {
                "status": alert.status.value,
                "labels": _plain(alert.labels),
                "annotations": _plain(alert.annotations),
                "startsAt": rfc3339(alert.starts_ns),
                "endsAt": _NEVER if alert.ends_ns is None else rfc3339(alert.ends_ns),
                "generatorURL": "",
                "fingerprint": alert.fingerprint,
            }
            for alert in alerts
        ],
    }


def _common(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = each
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def _plain(texts: Mapping[str, str]) -> dict[str, str]:
    return {_sound(name): _sound(text) for name, text in texts.items()}


def discord(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """A webhook of Discord: one embed for each alert. Nobody is mentioned, whatever names hold."""
    bodies: list[dict[str, Any]] = []
    room = 0
    for alert in alerts:
        embed = _embed(alert)
        needed = _embed_units(embed)
        if not bodies or len(bodies[-1]["embeds"]) == _EMBEDS or needed > room:
            bodies.append({"username": "Paceline", "allowed_mentions": {"parse": []}, "embeds": []})
            room = _EMBEDS_IN_ALL
        bodies[-1]["embeds"].append(embed)
        room -= needed
    return bodies


def _embed(alert: Alert) -> dict[str, Any]:
    firing = alert.status is Status.FIRING
    embed: dict[str, Any] = {
        "title": _cut(f"{alert.status.upper()}: {alert.rule}", _EMBED_TITLE),
        "description": _cut("\n".join(_texts(alert)), _EMBED_TEXT),
        "color": _COLOURS.get(alert.severity, 0) if firing else _RESOLVED_COLOUR,
        "timestamp": rfc3339(alert.starts_ns if alert.ends_ns is None else alert.ends_ns),
        "fields": [],
    }
    room = _EMBEDS_IN_ALL - _embed_units(embed)
    for name, value in list(_shown_labels(alert))[:_FIELDS]:
        # A field without text is refused.
        field = {"name": _cut(name, _FIELD_NAME), "value": _cut(value, _FIELD_VALUE) or "-"}
        room -= _units(field["name"]) + _units(field["value"])
        if room < 0:
            break
        embed["fields"].append({**field, "inline": True})
    return embed


def _embed_units(embed: Mapping[str, Any]) -> int:
    fields = sum(_units(field["name"]) + _units(field["value"]) for field in embed["fields"])
    return _units(embed["title"]) + _units(embed["description"]) + fields


def slack(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """An incoming webhook of Slack: one section for each alert. Nobody is mentioned, whatever
    names hold."""
    bodies: list[dict[str, Any]] = []
    room = 0
    for alert in alerts:
        text = _section(alert)
        if not bodies or len(bodies[-1]["blocks"]) == _BLOCKS or _units(text) > room:
            bodies.append({"text": "", "blocks": []})
            room = _SLACK_IN_ALL
        room -= _units(text)
        section = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
        bodies[-1]["blocks"].append(section)
        if not bodies[-1]["text"]:  # what a notification shows
            title = _escaped(f"{alert.status.upper()}: {alert.rule}: {alert.summary}", _SLACK_TEXT)
            bodies[-1]["text"] = title
    return bodies


def _section(alert: Alert) -> str:
    lines = [f"*{_escaped(f'{alert.status.upper()}: {alert.rule}', _SLACK_TEXT)}*"]
    labels = ", ".join([f"{name}: {value}" for name, value in _shown_labels(alert)])
    left = _SECTION - _units(lines[0])
    for text in (*_texts(alert), labels):
        line = _escaped(text, min(left - 1, _SECTION // 2))
        if line:
            lines.append(line)
            left -= _units(line) + 1
    return "\n".join(lines)


def _texts(alert: Alert) -> Iterator[str]:
    """The annotations as lines, none twice."""
    given = alert.annotations
    yield alert.summary
    if given.get("description", alert.summary) != alert.summary:
        yield given["description"]
    if target := given.get("target"):
        yield f"Target: {target}"


def _shown_labels(alert: Alert) -> Iterator[tuple[str, str]]:
    """What the title does not say."""
    return ((k, v) for k, v in sorted(alert.labels.items()) if k != "alertname")


def _escaped(text: str, most: int) -> str:
    """Text that Slack shows as it is, at most so long; no escape is cut in two."""
    escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    parts = [escapes.get(c, c) for c in _sound(text)]
    if sum(map(_units, parts)) <= most:
        return "".join(parts)
    kept: list[str] = []
    for part in parts:
        most -= _units(part)
        if most < 1:
            return "".join([*kept, "…"]) if most > -_units(part) else "".join(kept)
        kept.append(part)
    return "".join(kept)


def _cut(text: str, most: int) -> str:
    text = _sound(text)
    if _units(text) <= most:
        return text
    cut = text[: most - 1]
    while _units(cut) > most - 1:
        cut = cut[: len(cut) - max(1, (_units(cut) - most + 1) // 2)]
    return f"{cut}…"


def _sound(text: str) -> str:
    """Without what UTF-8 has no form for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "replace")) // 2


def _chunks(alerts: Sequence[Alert], most: int) -> Iterator[Sequence[Alert]]:
    for at in range(0, len(alerts), most):
        yield alerts[at : at + most]
