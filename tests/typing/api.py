"""What the public names promise to a type checker. Checked, never run."""

import asyncio
from collections.abc import Mapping
from typing import Any, assert_type

from paceline import (
    AgentCache,
    AgentContext,
    AgentEngine,
    AgentInstance,
    AgentState,
    Call,
    Caller,
    ConversationTurn,
    Effect,
    ExecutionContext,
    ExecutionPattern,
    ExecutionPriority,
    LoadBalancer,
    LoadBalancingStrategy,
    LRUCache,
    MetricsCollector,
    OptimizedAgentEngine,
    Outcome,
    PacelineError,
    PerformanceHints,
    PerformanceMetrics,
    PerformancePredictor,
    Plan,
    Priority,
    ResourceLimits,
    ResourceUsage,
    Runtime,
    Scope,
    ScopeLevel,
    Settings,
    Source,
    StateTransition,
    SyncRuntime,
    TieredCache,
    ToolCall,
    ToolExecutionState,
    ToolPipeline,
    ToolRequest,
    ToolStatus,
    TransitionTrigger,
    cached,
    file_reads,
    file_writes,
    report_usage,
    track_performance,
)
from paceline.agents.kept_results import Hit
from paceline.balance.lease import Lease
from paceline.balance.request import Needs
from paceline.balance.status import FleetStatus
from paceline.cache.function.memo import CacheInfo
from paceline.cache.stack.cache import CacheTier, TieredStats
from paceline.engine.events import Event
from paceline.messages import ToolUse
from paceline.metrics.figures import Figures, Snapshot, Trouble
from paceline.metrics.ranking import Rank, balanced_score, rank
from paceline.metrics.span import Span
from paceline.results import OpenedResult, ResultStats, StoredResult, WarmCall, WarmReport


async def calls() -> None:
    """A runtime gives outcomes; decorated functions keep their types."""
    async with Runtime(Settings(), agents=["agents"], persist=False) as runtime:

        @runtime.agent("length", effect="pure", cache_ttl=60, scope="global", timeout=2)
        def length(query: str) -> int:
            return len(query)

        assert_type(length("x"), int)
        outcome = await runtime.run(
            "length", "x", user="ada", timeout=1.0, priority=Priority.HIGH, use_cache=False
        )
        assert_type(outcome, Outcome)
        assert_type(outcome.source, Source)
        assert_type(outcome.error, PacelineError | None)
        assert_type(outcome.unwrap(), object)
        assert_type(await runtime.run_agent_async("length", "x"), object)
        assert_type(runtime.metrics.snapshot(), Snapshot)
    with SyncRuntime() as scripts:
        assert_type(scripts.run("length", "x", caller=Caller("ada")), Outcome)
        assert_type(scripts.results.stats(window_s=60), ResultStats)
        assert_type(scripts.results.entries(10, "size", agent="a"), list[StoredResult])
        assert_type(scripts.results.get("3f9a"), OpenedResult)
        assert_type(scripts.results.free("tag"), int)
        assert_type(scripts.results.clear("a"), int)
        assert_type(scripts.results.remove(prefix="a"), int)
        assert_type(scripts.results.warm([("a", "y")], user="ada"), WarmReport)
        assert_type(scripts.results.warm_from_history(top=5), WarmReport)
        scripts.results.invalidate("tag")


def plans(call: Call) -> Plan:
    """Effects, scopes and plans are made of plain values."""
    assert_type(call.scope, Scope)
    assert_type(Scope.of(call.caller, ScopeLevel.USER), Scope)
    assert_type(file_reads("/a"), tuple[str, ...])
    assert_type(Effect.write("a", idempotent=True).retryable, bool)
    return Plan(Effect.write(*file_writes("/a")), ttl_s=0)


def _shop_key(_: object, name: str) -> str:
    return name.lower()


def _shop_tags(_: object, name: str) -> tuple[str, ...]:
    return (f"shop:{name}",)


def parts() -> None:
    """Decorators keep the signature of what they decorate."""
    cache = LRUCache(max_size=10, default_ttl=60)

    @track_performance("double", MetricsCollector())
    @cached(cache, ttl=5)
    def double(number: int) -> int:
        return number * 2

    assert_type(double(2), int)

    @cached(cache)
    async def later(number: int) -> str:
        return str(number)

    assert_type(asyncio.run(later(1)), str)
    assert_type(asyncio.run(later.bypass(number=1)), str)
    assert_type(later.invalidate(1), bool)
    assert_type(later.cache_info(), CacheInfo)
    assert_type(later.cache_clear(), int)

    class Shop:
        @cached(
            cache,
            ttl=lambda price: 60 if price else 5,
            key=_shop_key,
            ignore=("self",),
            tags=_shop_tags,
            scope=lambda: "ada",
            condition=bool,
            negative_ttl=1.0,
            stale=30.0,
            stale_if_error=600.0,
            early=1.0,
        )
        def price(self, name: str) -> float:
            return len(name) / 2

    assert_type(Shop().price("tea"), float)
    assert_type(Shop().price(name="tea"), float)
    assert_type(Shop.price.invalidate(Shop(), "tea"), bool)
    assert_type(cache.get("key"), Any)
    assert_type(cache.invalidate(tag="shop:tea", predicate=lambda entry: entry.uses == 0), int)


async def caches_by_hand() -> None:
    """The caches of old take and give any value; figures are typed."""
    tiers = TieredCache(100, 500, 2000, hot_ttl=None, directory="cache")
    tiers.put("k", [1], priority="cold", ttl=5, tags=["t"])
    tiers.put("k", [1], CacheTier.HOT)
    assert_type(tiers.delete("k"), bool)
    assert_type(tiers.stats(), TieredStats)
    assert_type(tiers.stats().warm.share, float)
    assert_type(tiers.recent(60).hit_rate, float)

    @cached(tiers, ttl=5)
    def double(number: int) -> int:
        return number * 2

    assert_type(double(2), int)

    async def answer() -> int:
        return 42

    results = AgentCache(max_entries=500, default_ttl=300)
    await results.put("agent", "input", 42, 60, user="ada", channel=7)
    assert_type(await results.lookup("agent", "input", scope=ScopeLevel.GLOBAL), Hit | None)
    assert_type(await results.get_or_run("agent", "input", answer, user="ada"), int)
    assert_type(await results.clear_agent("agent"), int)


async def results(runtime: Runtime) -> None:
    """What is cached is typed data."""
    assert_type(await runtime.results.stats(window_s=60), ResultStats)
    assert_type(await runtime.results.entries(10, "size", agent="a"), list[StoredResult])
    assert_type(await runtime.results.get("3f9a"), OpenedResult)
    assert_type(await runtime.results.clear("a"), int)
    assert_type(await runtime.results.remove(key="3f9a"), int)
    call = WarmCall("a", "x", Caller("ada"))
    assert_type(await runtime.results.warm([call, ("a", "y")], concurrency=2), WarmReport)
    assert_type(await runtime.results.warm_from_history(top=5), WarmReport)
    runtime.results.invalidate("tag")


async def figures() -> None:
    """Figures are typed numbers, and None where there are no data."""
    metrics = MetricsCollector(max_series=10)
    with track_performance("by hand", metrics):
        pass
    metrics.record_execution("elsewhere", 0.2, False, "TimeoutError", labels={"model": "m"})
    snapshot = metrics.snapshot()
    assert_type(snapshot.agents["by hand"].ever, Figures)
    assert_type(snapshot.agents["by hand"].windows["1m"].success_rate, float | None)
    assert_type(snapshot.agents["elsewhere"].troubles, tuple[Trouble, ...])
    assert_type(snapshot.totals.ever.fresh.quantile(0.95), float | None)
    assert_type(metrics.trace.spans(), tuple[Span, ...])
    assert_type(rank(snapshot, score=balanced_score, min_calls=5), tuple[Rank, ...])
    assert_type(PerformanceMetrics("agent").p95_execution_time, float | None)
    assert_type(report_usage("model", input=100, output=10, cached_input=50), bool)


async def instances() -> None:
    """Leases are of instances; figures are typed."""
    balancer = LoadBalancer(LoadBalancingStrategy.POWER_OF_TWO, max_queue=10, lease_s=60)
    balancer.register(AgentInstance("one", "model", 0, 5, 2.0, target="anything"))
    async with balancer.lease("model", needs=Needs(context_window=8_000), timeout=5) as instance:
        assert_type(instance, AgentInstance)
        assert_type(instance.p95_ms, float | None)
    lease = await balancer.lease("model", affinity="session", priority=Priority.HIGH)
    assert_type(lease, Lease)
    lease.release(PacelineError("it failed"))
    assert_type(balancer.acquire("model"), AgentInstance)
    assert_type(balancer.status("model"), FleetStatus)
    assert_type(balancer.get_status(), dict[str, dict[str, Any]])
    assert_type(await balancer.drain("model", "one", timeout=5), bool)
    balancer.set_strategy("model", "least_loaded")


async def sessions() -> None:
    """A session gives turns and events; tools keep their types."""
    async with Runtime(agents=[], persist=False) as runtime:

        @runtime.tool(effect="read", tags=("stock:{item}",), ttl_s=60)
        def stock(item: str) -> int:
            return len(item)

        assert_type(stock("x"), int)
        limits = ResourceLimits(max_steps=3)
        async with runtime.session(
            "s", model="embedded", user="ada", limits=limits, compact="model"
        ) as session:
            assert_type(session.state, AgentState)
            assert_type(session.context, AgentContext)
            assert_type(session.hints, PerformanceHints)
            assert_type(session.hints.expected_ns, Mapping[str, int])
            turn = await session.send("hello", timeout_s=5)
            assert_type(turn, ConversationTurn)
            assert_type(turn.tool_calls, tuple[ToolCall, ...])
            assert_type(turn.tool_calls[0].status, ToolStatus)
            assert_type(turn.tool_calls[0].resources, ResourceUsage | None)
            assert_type(session.active_tools, dict[str, ToolExecutionState])
            moves = list(session.machine.history)
            assert_type(moves, list[StateTransition])
            assert_type(moves[0].trigger, TransitionTrigger)
            async for event in session.stream("hello"):
                assert_type(event, Event)
    async with AgentEngine("s", model="embedded", tools=[stock]) as engine:
        assert_type(await engine.submit("hello"), ConversationTurn)
    other: type[AgentEngine] = OptimizedAgentEngine
    assert_type(other("s", model="embedded").state, AgentState)


async def pipelines(pipeline: ToolPipeline) -> None:
    """A request for a tool can be waited for."""
    request = ToolRequest(
        ToolUse("1", "stock", "{}"), ExecutionContext("s"), ExecutionPriority.HIGH, 5.0
    )
    assert_type(await pipeline.submit(request), ToolCall)


def prediction() -> None:
    predictor = PerformancePredictor(patterns=1_000)
    session = predictor.session("ada", {"stock": {"type": "object"}})
    assert_type(predictor.predict_execution_pattern(session), ExecutionPattern | None)
    assert_type(predictor.update_predictions(), bool)
    assert_type(predictor.save(), object)
    for proposal in predictor.propose(session, 3):
        assert_type(proposal.probability, float)
        assert_type(predictor.explain(session, proposal), str)
