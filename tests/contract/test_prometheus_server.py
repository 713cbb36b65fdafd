"""A real Prometheus server scrapes the endpoint, and has the very figures."""

import asyncio
from pathlib import Path
from typing import Any, final

import aiohttp

from paceline.call import Source
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.export.endpoint import Endpoint
from paceline.metrics.export.prometheus import Exposition, Page
from paceline.metrics.span import Span
from tests.exported import MS, busy, weird
from tests.prometheus_server import prometheus_scraping


@final
class Scraped:
    """An exposition, and how often it was asked for its page."""

    def __init__(self, collector: MetricsCollector) -> None:
        self.inner = Exposition(
            collector.snapshot, version="1.2.3", spans=lambda: [slow_call(collector)]
        )
        self.accepted: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._scrapes = asyncio.Semaphore(0)

    def page(self, accept: str) -> Page:
        self.accepted.add(accept)
        self._loop.call_soon_threadsafe(self._scrapes.release)
        return self.inner.page(accept)

    async def kept(self) -> None:
        """Returns when a scrape that begins from now on was kept by the server: it begins the next
        only after that."""
        while not self._scrapes.locked():
            await self._scrapes.acquire()
        for _ in range(2):
            await self._scrapes.acquire()


def slow_call(collector: MetricsCollector) -> Span:
    """A call of 600 ms that has just ended."""
    now_ns = collector.clock.wall_ns()
    return Span("call-7", "trace-7", "web", now_ns - 600 * MS, now_ns)


@final
class Server:
    """The HTTP API of a Prometheus server."""

    def __init__(self, http: aiohttp.ClientSession, address: str) -> None:
        self._http = http
        self._address = address

    async def ask(self, path: str, **given: str) -> Any:
        """Its answer, which is a success."""
        async with self._http.get(f"{self._address}/api/v1/{path}", params=given) as got:
            answer = await got.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, expression: str) -> dict[str, float]:
        """What an expression comes to, by the label `agent`."""
        found = (await self.ask("query", query=expression))["result"]
        return {one["metric"].get("agent", ""): float(one["value"][1]) for one in found}


async def test_a_real_server_has_our_figures(tmp_path: Path) -> None:
    """A Prometheus server finds the endpoint up, has every counter with its exact value in
    OpenMetrics, sees it grow with calls, and has buckets, types and exemplars. (S0-25, E-10)"""
    collector = busy()
    scraped = Scraped(collector)
    async with (
        aiohttp.ClientSession() as http,
        Endpoint(scraped.page, listen="127.0.0.1:0") as endpoint,
    ):
        target = endpoint.url.removeprefix("http://").removesuffix("/metrics")
        with prometheus_scraping(target, tmp_path) as address:
            server = Server(http, address)
            await scraped.kept()
            assert await server.query("up") == {"": 1}
            assert any("openmetrics" in accept for accept in scraped.accepted)
            await check_figures(server)
            before = await server.query("sum by (agent) (paceline_calls_total)")
            grow(collector)
            await scraped.kept()
            after = await server.query("sum by (agent) (paceline_calls_total)")
            assert after == {**before, "web": before["web"] + 7}
            assert (await server.query("resets(paceline_calls_total[1m]) > 0")) == {}
            await check_meaning(server, collector)


async def check_figures(server: Server) -> None:
    """That the values of `busy` are there."""
    good = 'paceline_calls_total{source="executed",ending="success"}'
    assert await server.query(good) == {"web": 10, "grep": 1, "gpt": 1}
    assert await server.query('paceline_calls_total{source="hot",agent="web"}') == {"web": 5}
    assert await server.query('paceline_errors_total{category="network"}') == {"web": 1}
    assert await server.query('paceline_tokens_total{type="input"}') == {"web": 1000}
    assert await server.query("paceline_cost_usd_total") == {"web": 5}
    assert await server.query("paceline_in_flight > 0") == {"web": 1}
    fresh = 'paceline_call_duration_seconds_{}{{result="fresh",agent="web"{}}}'
    assert await server.query(fresh.format("count", "")) == {"web": 10}
    assert await server.query(fresh.format("bucket", ',le="0.32"')) == {"web": 3}
    assert await server.query('paceline_build_info{version="1.2.3"}') == {"": 1}


def grow(collector: MetricsCollector) -> None:
    """Seven more calls of one agent."""
    for number in range(7):
        collector.add(
            "web", source=Source.EXECUTED, category=Category.NETWORK if number % 2 else None,
            queue_ns=0, execute_ns=MS, total_ns=MS,
        )  # fmt: skip


async def check_meaning(server: Server, collector: MetricsCollector) -> None:
    """Types, help and exemplars."""
    about = await server.ask("metadata")
    assert about["paceline_calls"][0]["type"] == "counter"
    assert about["paceline_call_duration_seconds"][0]["type"] == "histogram"
    assert about["paceline_call_duration_seconds"][0]["unit"] == "seconds"
    now_s = collector.clock.wall_ns() / 1e9
    found = await server.ask(
        "query_exemplars",
        query="paceline_call_duration_seconds_bucket",
        start=f"{now_s - 600}",
        end=f"{now_s + 600}",
    )
    assert {one["labels"]["trace_id"] for each in found for one in each["exemplars"]} == {"trace-7"}


async def test_a_real_server_takes_any_name(tmp_path: Path) -> None:
    """Names and labels of any text are no reason for a Prometheus server to drop a scrape, nor to
    find a sample twice. (S0-25)"""
    collector = weird()
    scraped = Scraped(collector)
    async with (
        aiohttp.ClientSession() as http,
        Endpoint(scraped.page, listen="127.0.0.1:0") as endpoint,
    ):
        target = endpoint.url.removeprefix("http://").removesuffix("/metrics")
        with prometheus_scraping(target, tmp_path) as address:
            server = Server(http, address)
            await scraped.kept()
            assert await server.query("up") == {"": 1}
            targets = await server.ask("targets")
            assert [one["lastError"] for one in targets["activeTargets"]] == [""]
            calls = await server.query("sum(paceline_calls_total)")
            assert calls == {"": collector.snapshot().totals.ever.calls}
