"""When a figure is an alert: bounds, minimum counts, the default rules, objectives, settings."""

import math
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from paceline.errors import ConfigError
from paceline.metrics.alerts.configured import rules_of, silences_of
from paceline.metrics.alerts.defaults import DEFAULT_RULES
from paceline.metrics.alerts.measures import MEASURES, Reading, Subject
from paceline.metrics.alerts.objectives import BURNS, Objective
from paceline.metrics.alerts.rules import Condition, Per, Rule, looks, shown
from paceline.metrics.figures import Snapshot, Usage
from paceline.settings import AlertSettings, RuleSettings
from tests.alert_figures import figures, series, snapshot

BY_NAME = {rule.name: rule for rule in DEFAULT_RULES}


def holds(rule: Rule, seen: Snapshot, *, firing: bool = False) -> list[bool | None]:
    """What a rule says of each of its subjects."""
    return [one.holds(firing=firing) for one in looks([rule], seen)]


def agent(**what: Any) -> Snapshot:
    """One agent, its figures the same in all windows."""
    return snapshot(series("web", figures(**what)))


def alerts_settings(**what: Any) -> AlertSettings:
    """Settings as the loader makes them of a file."""
    return msgspec.convert(what, AlertSettings, strict=False)


@pytest.mark.parametrize(
    ("name", "well", "bad"),
    [
        ("LatencyHigh", {"good": 100, "slow": 4}, {"good": 100, "slow": 10}),
        ("SuccessRateLow", {"good": 96, "bad": 4}, {"good": 90, "bad": 10}),
        ("CacheHitRateLow", {"good": 40, "hits": 60}, {"good": 60, "hits": 40}),
    ],
)
def test_default_bounds(name: str, well: dict[str, int], bad: dict[str, int]) -> None:
    """The default rules fire when P95 is above 1 s, less than 95 % succeed, or less than 50 % come
    from the cache, and not before. (K-02)"""
    rule = BY_NAME[name]
    assert holds(rule, agent(**well)) == [False]
    assert holds(rule, agent(**bad)) == [True]


def test_default_load() -> None:
    """The default rule for instances fires for each whose load is above 80 %, and where no load
    is known it sees nothing. (K-02)"""
    rule = BY_NAME["InstanceLoadHigh"]
    seen = snapshot(loads={"a": 0.9, "b": 0.8})
    assert [(one.labels["instance"], one.holds(firing=False)) for one in looks([rule], seen)] == [
        ("a", True),
        ("b", False),
    ]
    assert holds(rule, snapshot(series("web", figures(good=100)))) == []


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.name)
def test_default_rules_wait(rule: Rule) -> None:
    """Every default rule has to hold for a while, is resolved at another bound than it fires at,
    and asks for a number of calls if it is of calls. (K-02, S0-73)"""
    (condition,) = rule.conditions
    assert rule.for_s > 0
    assert rule.keep_s > 0
    assert condition.resolve not in (None, condition.bound)
    assert condition.min_count >= 20 or rule.per is Per.INSTANCE
    assert rule.target


def test_a_single_error_at_night() -> None:
    """With fewer calls than the minimum nothing is said of a rate, however bad; what fires goes
    on as long as the few calls there are fail. (S0-73)"""
    rule = BY_NAME["SuccessRateLow"]
    assert holds(rule, agent(bad=19)) == [None]
    assert holds(rule, agent(bad=20)) == [True]
    assert holds(rule, agent(bad=1), firing=True) == [True]
    assert holds(rule, agent(good=1), firing=True) == [False]
    assert holds(rule, agent(), firing=True) == [None]


def test_cancelled_calls_are_in_no_rate() -> None:
    """Cancelled calls neither count for the minimum nor as failures. (S0-73)"""
    assert holds(BY_NAME["SuccessRateLow"], agent(good=10, cancelled=90)) == [None]
    assert holds(BY_NAME["SuccessRateLow"], agent(good=20, cancelled=90)) == [False]


def test_what_was_never_cached_has_no_hit_rate() -> None:
    """An agent that never had a hit raises no alert about its hit rate: its results may be such
    as are not cached at all. (K-02)"""
    assert holds(BY_NAME["CacheHitRateLow"], agent(good=1_000)) == [None]
    past = series("web", figures(good=1_000, hits=1), w1h=figures(good=1_000))
    assert holds(BY_NAME["CacheHitRateLow"], snapshot(past)) == [True]


@given(
    value=st.floats(-1e6, 1e6),
    bound=st.floats(-1e3, 1e3),
    gap=st.floats(0, 1e3),
    above=st.booleans(),
)
def test_hysteresis(value: float, bound: float, gap: float, above: bool) -> None:
    """What begins an alert never ends one at the same figure, and between the bounds an alert
    neither begins nor ends. (S0-73)"""
    where = {"above": bound} if above else {"below": bound}
    resolve = bound - gap if above else bound + gap
    one = Condition(metric="avg_ms", resolve=resolve, **where)  # type: ignore[arg-type]
    reading = Reading(value, 1)
    begins, goes_on = one.holds(reading, firing=False), one.holds(reading, firing=True)
    assert goes_on or not begins
    between = resolve < value <= bound if above else bound <= value < resolve
    assert between == (bool(goes_on) and not begins)


def test_agents_one_by_one_or_together() -> None:
    """A rule looks at each agent that fits its patterns, or at all calls together. (S0-73)"""
    seen = snapshot(series("web.a", figures(bad=50)), series("web.b", figures(good=50)))
    per_agent = Rule(
        name="A", conditions=(Condition(metric="error_rate", above=0.4),), agents=("*.a",)
    )
    together = msgspec.structs.replace(per_agent, agents=(), per=Per.ALL)
    assert [one.labels for one in looks([per_agent], seen)] == [
        {"agent": "web.a", "alertname": "A", "severity": "warning"}
    ]
    (look,) = looks([together], seen)
    assert look.readings == (Reading(0.5, 100),)
    assert "agent" not in look.labels


def test_every_measure_reads() -> None:
    """Every measure has a figure where there is something to measure, and None where not."""
    usage = Usage(input=10, output=5, cost_usd=0.5)
    full = Subject(
        {}, series("web", figures(good=50, hits=10, bad=5, usage=usage), in_flight=2), 0.5
    )
    bare = Subject({}, series("web"))
    counts = {"calls", "rate_per_s", "tokens", "cost_usd", "in_flight"}
    for name, what in MEASURES.items():
        reading = what.read(full, "5m", 1e6)
        assert reading.value is not None or name == "running_ms", name
        assert (what.read(bare, "5m", 1e6).value is None) == (name not in counts), name
        assert what.read(Subject({}), "5m", 1e6).value is None, name
        assert shown(reading.value, what.unit)
    assert MEASURES["slow_share"].read(full, "5m", 1e6) == Reading(55 / 65, 65)


def test_burn_rates() -> None:
    """The burn rates are those of the workbook that our windows allow: 14.4 over 1 h and 5 min,
    3 over 24 h and 1 h, each its share of the budget of 30 days. (S0-73)"""
    hours = {"1h": 1, "24h": 24}
    assert [(b.factor, b.long, b.short) for b in BURNS] == [(14.4, "1h", "5m"), (3.0, "24h", "1h")]
    for burn in BURNS:
        assert burn.factor == pytest.approx(burn.budget * 30 * 24 / hours[burn.long])
    fast, slow = Objective(name="Web", objective=0.99).rules()
    assert {one.above for one in fast.conditions} == {0.144}
    assert {one.above for one in slow.conditions} == {0.03}


def test_a_burn_needs_both_windows() -> None:
    """A burn rate is an alert only if the budget burns in the long window and still does in the
    short one. (S0-73)"""
    fast, _ = Objective(name="Web", objective=0.99).rules()
    burning, well = figures(good=80, bad=20), figures(good=100)
    assert holds(fast, snapshot(series("web", burning))) == [True]
    assert holds(fast, snapshot(series("web", burning, w5m=well))) == [False]
    assert holds(fast, snapshot(series("web", burning, w1h=well))) == [False]


def test_latency_objective() -> None:
    """An objective of latency counts calls that take longer, from the sketch, not an average.
    (S0-73)"""
    fast, _ = Objective(name="Quick", objective=0.99, latency_ms=500).rules()
    assert holds(fast, agent(good=100, slow=14, slow_ms=600)) == [False]
    assert holds(fast, agent(good=100, slow=15, slow_ms=600)) == [True]
    assert holds(fast, agent(good=100, slow=15, slow_ms=499)) == [False]


def test_burn_rates_that_cannot_be() -> None:
    """A burn rate at which more than all calls would fail gets no rule, and an objective without
    any is refused. (S0-73)"""
    (only,) = Objective(name="Loose", objective=0.9).rules()
    assert only.name == "LooseSlowBurn"
    with pytest.raises(ConfigError, match="allows so many failures"):
        Objective(name="None", objective=0.5)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Objective(name="Percent", objective=99)


@pytest.mark.parametrize(
    ("asked", "says", "next_step"),
    [
        ({"metric": "p96_ms", "above": 1}, "no metric 'p96_ms'", "Did you mean p9"),
        ({"metric": "nonsense", "above": 1}, "no metric 'nonsense'", "There are: p50_ms, p95_ms"),
        ({"metric": "p95_ms"}, "either `above` or `below`", ""),
        ({"metric": "p95_ms", "above": 1, "below": 2}, "either `above` or `below`", ""),
        ({"metric": "p95_ms", "above": 1, "resolve": 2}, "resolved at 2, where it", "good side"),
        ({"metric": "error_rate", "above": 95}, "share from 0 to 1", "95 % as 0.95"),
        ({"metric": "slow_share", "above": 0.1}, "needs `slower_than_ms`", ""),
        ({"metric": "avg_ms", "above": math.nan}, "nothing is ever beyond nan", ""),
        ({"metric": "calls", "above": 1, "labels": {"agent": "x"}}, "label agent", ""),
        ({"metric": "calls", "above": 1, "per": "all", "agents": ["x"]}, "takes all", "Leave"),
    ],
)
def test_wrong_rules(asked: dict[str, Any], says: str, next_step: str) -> None:
    """A rule that makes no sense is refused; the message names the rule and says what there is.
    (S0-73)"""
    with pytest.raises(ConfigError) as caught:
        rules_of(alerts_settings(rules=[{"name": "Mine", **asked}]))
    assert "alerts.rules, the 1st, Mine: " in str(caught.value)
    assert says in str(caught.value)
    assert next_step in caught.value.next_step


def test_own_rules_take_the_place_of_defaults() -> None:
    """A rule with the name of a default rule replaces it, and the defaults can be turned off.
    (S0-73, K-02)"""
    own = {"name": "LatencyHigh", "metric": "p95_ms", "above": 30_000.0, "window": "1h"}
    rules = {rule.name: rule for rule in rules_of(alerts_settings(rules=[own]))}
    assert len(rules) == len(DEFAULT_RULES)
    assert rules["LatencyHigh"].conditions[0].bound == 30_000
    (alone,) = rules_of(alerts_settings(rules=[own], defaults=False))
    assert alone.name == "LatencyHigh"
    objective = {"name": "Web", "objective": 0.999}
    names = [r.name for r in rules_of(alerts_settings(objectives=[objective], defaults=False))]
    assert names == ["WebFastBurn", "WebSlowBurn"]
    with pytest.raises(ConfigError, match="two alert rules are called LatencyHigh"):
        rules_of(alerts_settings(rules=[own, own]))


def test_silences_of_settings() -> None:
    """A silence ends at a time with a zone; one without is refused. (S0-73)"""
    until = datetime(2026, 12, 1, tzinfo=UTC)
    (one,) = silences_of(alerts_settings(silences=[{"until": until, "rule": "Lat*"}]))
    assert one.until_ns == round(until.timestamp()) * 10**9
    with pytest.raises(msgspec.ValidationError):
        alerts_settings(silences=[{"until": datetime(2026, 12, 1)}])  # noqa: DTZ001


def test_a_rule_of_instances_needs_no_count() -> None:
    """What is of a moment asks for no number of calls, whatever the settings' default is."""
    own = RuleSettings(name="Full", metric="load", above=0.9)
    (rule,) = rules_of(AlertSettings(rules=(own,), defaults=False))
    assert rule.per is Per.INSTANCE
    assert holds(rule, snapshot(loads={"one": 0.95})) == [True]
