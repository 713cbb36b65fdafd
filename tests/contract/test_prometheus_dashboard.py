"""The dashboard for Grafana asks for what is exported, in queries that Prometheus takes."""

import json
import re
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from paceline.metrics.export.families import NATIVE, Type
from tests.prometheus_server import prometheus_scraping

FILE: Final = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
SUFFIXES: Final = ("_bucket", "_sum", "_count")
COMMON: Final = {"agent", "kind", "le"}


def queries(dashboard: dict[str, Any]) -> list[str]:
    """What its panels ask for."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def unknown(expression: str) -> list[str]:
    """Metrics and labels in a query that are not exported."""
    samples: dict[str, set[str]] = {}
    for family in NATIVE:
        suffixes = SUFFIXES if family.type is Type.HISTOGRAM else ("",)
        samples.update({family.name + suffix: {*family.labels, *COMMON} for suffix in suffixes})
    found = []
    for name, matchers in re.findall(r"(paceline_\w+)(?:{([^}]*)})?", expression):
        labels = re.findall(r"(\w+)\s*[!=]", matchers)
        known = samples.get(name, set())
        found += [name] * (not known) + [f"{name}.{one}" for one in labels if one not in known]
    return found


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))


def test_every_metric_that_it_asks_for_is_exported(dashboard: dict[str, Any]) -> None:
    """Each metric and label in its queries is one that is exported; each kind of figure is shown
    somewhere. (S0-25, K-09)"""
    asked = queries(dashboard)
    assert len(asked) >= 20
    assert [found for expression in asked for found in unknown(expression)] == []
    shown = " ".join(asked)
    left_out = [
        family.name for family in NATIVE if family.name not in shown
    ]  # of interest where it is asked for
    assert left_out == [
        "paceline_raw_cost_usd_total",
        "paceline_instance_load_ratio",
        "paceline_start_time_seconds",
        "paceline_build_info",
    ]


@pytest.mark.parametrize(
    "wrong",
    ["rate(paceline_call_total[5m])", 'paceline_calls_total{result="hit"}', "paceline_tokens"],
)
def test_a_query_for_nothing_is_found(wrong: str) -> None:
    """A metric or a label that is not exported would be found."""
    assert unknown(wrong) != []


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    """Panels have ids of their own, a title, and a place that no other has."""
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["title"] for panel in dashboard["panels"])


async def test_a_real_server_takes_its_queries(dashboard: dict[str, Any], tmp_path: Path) -> None:
    """A Prometheus server has no complaint about any of its queries. (S0-25)"""
    with prometheus_scraping("127.0.0.1:9", tmp_path) as address:
        async with aiohttp.ClientSession() as http:
            for expression in queries(dashboard):
                asked = expression.replace("$__rate_interval", "1m").replace("$agent", ".*")
                params = {"query": asked}
                async with http.get(f"{address}/api/v1/query", params=params) as got:
                    answer = await got.json()
                assert answer["status"] == "success", (asked, answer)
