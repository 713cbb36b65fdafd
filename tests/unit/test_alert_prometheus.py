"""Rules for a Prometheus server, checked and run by its own tool."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from paceline.metrics.alerts.defaults import DEFAULT_RULES
from paceline.metrics.alerts.measures import MEASURES
from paceline.metrics.alerts.objectives import Objective
from paceline.metrics.alerts.prometheus import to_prometheus
from paceline.metrics.alerts.rules import Condition, Per, Rule

BY_NAME = {rule.name: rule for rule in DEFAULT_RULES}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What Prometheus' own tool says."""
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def checked(rules: Sequence[Rule], directory: Path) -> str:
    """The rule file, which promtool accepts with as many rules as it names."""
    text = to_prometheus(rules)
    file = directory / "rules.yml"
    file.write_text(text, encoding="utf-8")
    said = promtool("check", "rules", file)
    assert said.returncode == 0, said.stderr + text
    assert f"SUCCESS: {text.count('- alert: ')} rules found" in said.stdout
    return text


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    """promtool accepts the default rules and those of objectives; what Prometheus cannot know is
    named and left out. (K-02, S0-25, S0-73)"""
    burns = [
        *Objective(name="Web", objective=0.999).rules(),
        *Objective(name="Quick", objective=0.95, latency_ms=300, agents=("we*", "a.b?")).rules(),
        *Objective(name="All", objective=0.99, per=Per.ALL).rules(),
    ]
    text = checked([*DEFAULT_RULES, *burns], tmp_path)
    assert "# InstanceLoadHigh is left out" in text
    assert text.count("- alert: ") == len(DEFAULT_RULES) - 1 + len(burns)
    assert "keep_firing_for: 120s" in text
    checked([], tmp_path)


def test_promtool_accepts_every_measure(tmp_path: Path) -> None:
    """Every measure that is exported has an expression that promtool accepts, per agent and over
    all. (S0-25)"""
    rules = [
        Rule(
            name=f"{name}_{per.value}_{bound}",
            conditions=(
                Condition(metric=name, slower_than_ms=250, min_count=5, **{bound: 0.5}),  # type: ignore[arg-type]
            ),
            per=per,
        )
        for name, what in MEASURES.items()
        if not what.of_instances
        for per in (Per.AGENT, Per.ALL)
        for bound in ("above", "below")
    ]
    text = checked(rules, tmp_path)
    left_out = {line.split("_agent")[0][2:] for line in text.splitlines() if line.startswith("# ")}
    assert {one for one in left_out if "_all_" not in one} == {"queue_share", "running_ms"}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30), name=st.text(max_size=10))
def test_any_text(text: str, name: str, tmp_path: Path) -> None:
    """Whatever a summary, a label or a pattern holds, the file stays valid. (S0-25)"""
    odd = Rule(
        name="Odd",
        conditions=(Condition(metric="calls", above=1),),
        labels={"team": text},
        summary=f"{{{{ {text} {{{{end}}}} \u2028\x85",
        agents=(f"{name}[x]*?\\\"'",),
        for_s=0.5,
    )
    checked([odd], tmp_path)


def rehearsed(rule: Rule, directory: Path, series: dict[str, str], fires: dict[str, bool]) -> None:
    """promtool runs the rule over these series (a step a minute) and finds it firing or not."""
    checked([rule], directory)
    plan: dict[str, Any] = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{rule.name}",alertstate="firing"}})',
                        "eval_time": moment,
                        "exp_samples": [{"labels": "{}", "value": 1}] if firing else [],
                    }
                    for moment, firing in fires.items()
                ],
            }
        ],
    }
    file = directory / "test.yml"
    file.write_text(json.dumps(plan), encoding="utf-8")  # which is YAML as well
    said = promtool("test", "rules", file)
    assert said.returncode == 0, said.stdout + said.stderr


def calls(ending: str) -> str:
    """The name of a series of calls."""
    return f'paceline_calls_total{{agent="web",ending="{ending}",source="executed"}}'


def test_prometheus_fires_and_resolves(tmp_path: Path) -> None:
    """Run by promtool, the rule of the success rate waits its minute, fires at less than 95 %,
    goes on at 95.5 %, which is between its bounds, and is resolved at 99 %, after its two
    minutes. (K-02, S0-25)"""
    good = "0+100x10 1090+90x10 1995+95.5x10 3045+99x20"
    bad = "0+0x10 10+10x10 114.5+4.5x10 156+1x20"
    series = {calls("success"): good, calls("error"): bad}
    fires = {"10m": False, "20m": True, "31m": True, "52m": False}
    rehearsed(BY_NAME["SuccessRateLow"], tmp_path, series, fires)


def test_prometheus_fires_when_all_fails(tmp_path: Path) -> None:
    """An agent that has never succeeded has no series of successes, and its alert fires all the
    same; with too few calls it does not. (K-02, S0-25)"""
    rehearsed(BY_NAME["SuccessRateLow"], tmp_path, {calls("error"): "0+10x20"}, {"15m": True})
    rehearsed(BY_NAME["SuccessRateLow"], tmp_path, {calls("error"): "0+1x20"}, {"15m": False})


def test_prometheus_has_the_bound_resolve(tmp_path: Path) -> None:
    """Without the bound it resolves at, the same rule is resolved between the bounds: the test
    above sees the difference. (S0-25)"""
    rule = BY_NAME["SuccessRateLow"]
    (condition,) = rule.conditions
    single = msgspec.structs.replace(
        rule, conditions=(msgspec.structs.replace(condition, resolve=None),)
    )
    good = "0+100x10 1090+90x10 1995+95.5x10"
    bad = "0+0x10 10+10x10 114.5+4.5x10"
    with pytest.raises(AssertionError):
        rehearsed(single, tmp_path, {calls("success"): good, calls("error"): bad}, {"31m": True})
