"""The same rules for a Prometheus server, as a file that `promtool check rules` accepts. Pure.

Written against what Paceline exports. What a Prometheus server cannot know (the load of
instances, for one) is named in a comment and left out. The bound that an alert resolves at is
there too: a firing alert is recognised by the series ALERTS, and judged by the other bound.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from paceline.metrics.alerts.rules import Condition, Per, Rule
from paceline.metrics.export import families
from paceline.metrics.export.families import BOUNDS_S

__all__ = ["to_prometheus"]

CALLS: Final = families.CALLS.name
SECONDS: Final = families.DURATION.name
IN_FLIGHT: Final = families.IN_FLIGHT.name
TOKENS: Final = families.TOKENS.name
COST_USD: Final = families.COST.name
AGENT: Final = "agent"
ENDING: Final = "ending"
SOURCE: Final = "source"
"""Names of what is exported, and of its labels."""

_ANSWERED: Final = f'{ENDING}!="cancelled"'
_GOOD: Final = f'{ENDING}="success"'
_BAD: Final = f'{ENDING}!~"success|cancelled"'


class _Query(NamedTuple):
    """A rule's condition as PromQL is to be written for it."""

    window: str
    by: str
    """What is grouped by: `agent`, or nothing."""
    chosen: str
    """Matchers of the agents it is for."""
    le: str

    def rate(self, name: str, *matchers: str, of: str = "rate", more: str = "") -> str:
        """The sum of a counter's growth."""
        inside = ", ".join([one for one in (*matchers, self.chosen) if one])
        by = ", ".join([one for one in (self.by, more) if one])
        return f"sum by ({by}) ({of}({name}{{{inside}}}[{self.window}]))"

    def share(self, *matchers: str) -> str:
        """The share of these among the answered calls."""
        return f"{self.rate(CALLS, *matchers)} / {self.rate(CALLS, _ANSWERED)}"

    def quantile_ms(self, q: float) -> str:
        """A quantile of the time of calls."""
        return f"histogram_quantile({q}, {self.rate(f'{SECONDS}_bucket', more='le')}) * 1000"


_EXPRESSIONS: Final[Mapping[str, Callable[[_Query], str]]] = {
    "p50_ms": lambda q: q.quantile_ms(0.5),
    "p95_ms": lambda q: q.quantile_ms(0.95),
    "p99_ms": lambda q: q.quantile_ms(0.99),
    "avg_ms": lambda q: f"{q.rate(f'{SECONDS}_sum')} / {q.rate(f'{SECONDS}_count')} * 1000",
    "slow_share": lambda q: (
        f"1 - {q.rate(f'{SECONDS}_bucket', q.le)} / {q.rate(f'{SECONDS}_count')}"
    ),
    # Where nothing succeeds there is no series of successes, and no share of them.
    "success_rate": lambda q: f"1 - {q.share(_BAD)}",
    "error_rate": lambda q: q.share(f'{ENDING}="error"'),
    "failure_rate": lambda q: q.share(_BAD),
    "timeout_rate": lambda q: q.share(f'{ENDING}="timeout"'),
    "rejection_rate": lambda q: q.share(f'{ENDING}="rejected"'),
    "cache_hit_rate": lambda q: q.share(_GOOD, f'{SOURCE}!="executed"'),
    "calls": lambda q: q.rate(CALLS, of="increase"),
    "rate_per_s": lambda q: q.rate(CALLS),
    "tokens": lambda q: q.rate(TOKENS, of="increase"),
    "cost_usd": lambda q: q.rate(COST_USD, of="increase"),
    "cost_per_success_usd": lambda q: f"{q.rate(COST_USD)} / {q.rate(CALLS, _GOOD)}",
    "in_flight": lambda q: f"sum by ({q.by}) ({IN_FLIGHT}{{{q.chosen}}})",
}
"""What is watched, by the names of `measures.MEASURES`; what is not here is not exported."""


def to_prometheus(rules: Iterable[Rule], *, bounds_s: Sequence[float] = BOUNDS_S) -> str:
    """The text of a rule file. `bounds_s` are the upper bounds of the exported buckets: where
    `slower_than_ms` is none of them, the next higher one is taken."""
    lines = ["groups:", "  - name: paceline", "    rules:"]
    left_out: list[str] = []
    for rule in rules:
        if any(one.metric not in _EXPRESSIONS for one in rule.conditions):
            left_out.append(f"# {rule.name} is left out: Prometheus gets no such figure.")
        else:
            lines += _rule(rule, bounds_s)
    if lines[-1] == "    rules:":
        lines[-1] += " []"
    return "\n".join([*left_out, *lines, ""])


def _rule(rule: Rule, bounds_s: Sequence[float]) -> list[str]:
    labels = {**rule.labels, "severity": rule.severity.value}
    summary = rule.summary or rule.conditions[-1].metric
    about = f"{{{{ $labels.{AGENT} }}}}: " if rule.per is Per.AGENT else ""
    annotations = {
        "summary": _literal(summary),
        "description": f"{about}{_literal(_bounds(rule))}; now {{{{ $value }}}}",
        **({"target": _literal(rule.target)} if rule.target else {}),
    }
    return [
        f"      - alert: {_quoted(rule.name)}",
        f"        expr: {_quoted(_expression(rule, bounds_s))}",
        f"        for: {_duration(rule.for_s)}",
        *([f"        keep_firing_for: {_duration(rule.keep_s)}"] if rule.keep_s else []),
        "        labels:",
        *[f"          {_quoted(k)}: {_quoted(_literal(v))}" for k, v in labels.items()],
        "        annotations:",
        *[f"          {k}: {_quoted(v)}" for k, v in annotations.items()],
    ]


def _bounds(rule: Rule) -> str:
    return " and ".join(
        f"{one.metric} {'above' if one.above is not None else 'below'} {one.bound:g}"
        + (f" over {one.window}" if one.measure.windowed else "")
        for one in rule.conditions
    )


def _expression(rule: Rule, bounds_s: Sequence[float]) -> str:
    begins = " and ".join(_begins(rule, one, bounds_s) for one in rule.conditions)
    if all(one.resolve is None and not one.min_count for one in rule.conditions):
        return begins
    by = AGENT if rule.per is Per.AGENT else ""
    goes_on = " and ".join(
        f"({_value(rule, one, bounds_s)} {_beyond(one, one.resolve)})" for one in rule.conditions
    )
    firing = f'ALERTS{{alertname="{rule.name}", alertstate="firing"}}'
    return f"({begins}) or ({goes_on} and on ({by}) {firing})"


def _begins(rule: Rule, one: Condition, bounds_s: Sequence[float]) -> str:
    bad = f"({_value(rule, one, bounds_s)} {_beyond(one, None)})"
    if not one.min_count:
        return bad
    count = _query(rule, one, bounds_s).rate(CALLS, _ANSWERED, of="increase")
    return f"{bad} and ({count} >= {one.min_count})"


def _value(rule: Rule, one: Condition, bounds_s: Sequence[float]) -> str:
    return _EXPRESSIONS[one.metric](_query(rule, one, bounds_s))


def _beyond(one: Condition, bound: float | None) -> str:
    return f"{'>' if one.above is not None else '<'} {one.bound if bound is None else bound!r}"


def _query(rule: Rule, one: Condition, bounds_s: Sequence[float]) -> _Query:
    chosen = "|".join([_pattern(agent) for agent in rule.agents])
    slow_s = (one.slower_than_ms or 0.0) / 1e3
    le = next((f"{bound}" for bound in bounds_s if bound >= slow_s), "+Inf")
    return _Query(
        window=one.window,
        by=AGENT if rule.per is Per.AGENT else "",
        chosen=f"{AGENT}=~{_string(chosen)}" if chosen else "",
        le=f'le="{le}"',
    )


def _pattern(glob: str) -> str:
    """A pattern of names as RE2 has it."""
    wild = {"*": ".*", "?": "."}
    return "".join(
        [wild.get(c) or (c if c.isalnum() or c in "_-" else f"\\x{{{ord(c):x}}}") for c in glob]
    )


def _string(text: str) -> str:
    """A string of PromQL."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _literal(text: str) -> str:
    """Text that a template shows as it is."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    """A scalar of YAML."""
    sound = text.encode("utf-8", "replace").decode()
    escapes = {"\\": "\\\\", '"': '\\"'}
    shown = [escapes.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in sound]
    return f'"{"".join(shown)}"'


def _duration(seconds: float) -> str:
    ms = round(seconds * 1e3)
    return f"{ms}ms" if ms % 1_000 else f"{ms // 1_000}s"
