"""What a runtime tells others of its figures while it is open, by its settings."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from paceline import PacelineError, Runtime, Settings, track_performance
from paceline.balance.instance import AgentInstance
from paceline.clock import SystemClock
from paceline.instances.function import FunctionTarget
from paceline.settings import AlertSettings, MetricsSettings, RuleSettings
from tests.contract.otlp_receiver import OtlpReceiver


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _runtime(tmp_path: Path, settings: Settings) -> Runtime:
    return Runtime(settings, home=tmp_path, agents=[], environ={})


async def test_a_runtime_serves_its_figures_while_it_is_open(tmp_path: Path) -> None:
    """With `metrics.listen` a running runtime answers scrapes with the calls made so far, and no
    longer once it is closed. (S0-25, E-10)"""
    address = f"127.0.0.1:{_free_port()}"
    settings = Settings(metrics=MetricsSettings(listen=address))
    async with aiohttp.ClientSession() as client:
        async with _runtime(tmp_path, settings) as runtime:

            @runtime.agent(effect="pure")
            async def echo(query: str) -> str:
                return query

            await runtime.run("echo", "a")
            await runtime.run("echo", "a")
            async with client.get(f"http://{address}/metrics") as answer:
                text = await answer.text()
        with pytest.raises(aiohttp.ClientError):
            await client.get(f"http://{address}/metrics")
    lines = [line for line in text.splitlines() if line.startswith("paceline_calls_total{")]
    assert any('source="hot"' in line and line.endswith(" 1.0") for line in lines), text


async def test_a_runtime_serves_pages_of_its_figures(tmp_path: Path) -> None:
    """With `metrics.listen` a running runtime says how it is, what its agents did and which calls
    were slow, tracked functions among them. (E-10)"""
    address = f"127.0.0.1:{_free_port()}"
    settings = Settings(metrics=MetricsSettings(listen=address))
    async with aiohttp.ClientSession() as client, _runtime(tmp_path, settings) as runtime:

        @runtime.agent(effect="pure")
        @track_performance("inside", runtime.metrics)
        async def echo(query: str) -> str:
            return query

        outcome = await runtime.run("echo", "a")

        async def said(path: str) -> Any:
            async with client.get(f"http://{address}{path}") as answer:
                return await answer.json()

        health = await said("/health")
        agents = (await said("/performance"))["agents"]
        slow = (await said("/slow-operations?threshold_ms=0"))["operations"]
    assert (health["status"], list(health["loads"].values())) == ("ok", [0])
    assert (agents["echo"]["calls"], agents["inside"]["calls"]) == (1, 1)
    assert [one["name"] for one in slow] == ["echo", "inside"]
    assert slow[0]["id"] == slow[1]["trace_id"] == outcome.call_id


async def test_each_instance_of_an_agent_has_a_load(tmp_path: Path) -> None:
    """How full each instance is stands beside how full the process is, by agent and id. (S0-82,
    S0-66)"""
    address = f"127.0.0.1:{_free_port()}"
    settings = Settings(metrics=MetricsSettings(listen=address))
    async with aiohttp.ClientSession() as client, _runtime(tmp_path, settings) as runtime:

        async def loads() -> dict[str, float]:
            async with client.get(f"http://{address}/health") as answer:
                told: dict[str, float] = (await answer.json())["loads"]
            return {name: load for name, load in told.items() if "/" in name}

        @runtime.agent()
        async def far(query: str) -> str:
            return query

        assert await loads() == {}
        for id_, capacity in (("a", 4), ("b", 0)):
            target = FunctionTarget.of(far, clock=SystemClock())
            await runtime.add_instance(
                AgentInstance(id_, "far", max_capacity=capacity, target=target)
            )
        async with runtime.balancer.lease("far"):
            assert await loads() == {"far/a": 0.25, "far/b": 1.0}
            runtime.balancer.instances["far"][0].limit = 2
            assert await loads() == {"far/a": 0.5, "far/b": 1.0}


async def test_an_address_in_use_costs_the_page_alone(tmp_path: Path) -> None:
    """Where another process uses the address of the page of metrics, a runtime runs calls without
    it, and says so with what to do. (S0-25)"""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(metrics=MetricsSettings(listen=address))
        async with _runtime(tmp_path, settings) as runtime:

            @runtime.agent(effect="pure")
            async def echo(query: str) -> str:
                return query

            assert (await runtime.run("echo", "a")).value == "a"
            (notice,) = [one for one in runtime.notices if one.startswith("no page of metrics")]
    assert address in notice
    assert "Choose another address" in notice


async def test_a_runtime_sends_its_calls_as_spans(tmp_path: Path) -> None:
    """With `metrics.otlp_endpoint` each call of a runtime arrives at the receiver as a span, at the
    latest when the runtime is closed. (P-06, S0-25)"""
    with OtlpReceiver() as receiver:
        settings = Settings(metrics=MetricsSettings(otlp_endpoint=receiver.url))
        async with _runtime(tmp_path, settings) as runtime:

            @runtime.agent(effect="pure")
            async def echo(query: str) -> str:
                return query

            await runtime.run("echo", "a")
        names = [
            span.name
            for request in receiver.trace_requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    assert names == ["invoke_agent echo"]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(metrics=MetricsSettings(listen="nowhere")),
        Settings(metrics=MetricsSettings(otlp_endpoint="nowhere")),
        Settings(alerts=AlertSettings(rules=(RuleSettings(name="A", metric="none", above=1),))),
    ],
)
async def test_what_cannot_be_told_is_refused_at_the_start(
    tmp_path: Path, settings: Settings
) -> None:
    """An address, an endpoint or a rule that cannot be is told when the runtime is opened, with
    what to do. (S0-25, K-02)"""
    with pytest.raises(PacelineError) as caught:
        async with _runtime(tmp_path, settings):
            pass
    assert caught.value.next_step


async def test_alerts_are_looked_at_only_after_a_while(tmp_path: Path) -> None:
    """A runtime with the default rules starts nothing that looks at them before the first look is
    due, and leaves nothing running. (K-02)"""
    before = asyncio.all_tasks()
    async with _runtime(tmp_path, Settings()):
        started = [repr(task.get_coro()) for task in asyncio.all_tasks() - before]
        assert any("Reporting._watch_later" in one for one in started)
    assert asyncio.all_tasks() == before


async def test_all_parts_report_to_one_series(tmp_path: Path) -> None:
    """What the cache answered, what calls waited for, what they cost and what the cache saved of
    that are figures of one series of the runtime. (S0-02, S0-69)"""
    async with _runtime(tmp_path, Settings()) as runtime:

        @runtime.agent(effect="pure", max_concurrency=1, cost_usd=0.5)
        async def paid(query: str) -> str:
            await asyncio.sleep(0)
            return query

        await asyncio.gather(*(runtime.run("paid", text) for text in "ab"))
        await runtime.run("paid", "a")
        seen = runtime.metrics.snapshot().agents["paid"].ever
    assert (seen.fresh.count, seen.hits) == (2, 1)
    assert seen.queue_ns > 0
    assert (seen.usage.cost_usd, seen.usage.saved_usd) == (1.0, 0.5)
