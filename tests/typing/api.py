"""What the public names promise to a type checker. Checked, never run."""

import asyncio
from typing import assert_type

from paceline import (
    Call,
    Caller,
    Effect,
    LRUCache,
    MetricsCollector,
    Outcome,
    PacelineError,
    Plan,
    Priority,
    Runtime,
    Scope,
    ScopeLevel,
    Settings,
    Source,
    SyncRuntime,
    cached,
    file_reads,
    file_writes,
    track_performance,
)
from paceline.metrics.collector import Snapshot


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


def plans(call: Call) -> Plan:
    """Effects, scopes and plans are made of plain values."""
    assert_type(call.scope, Scope)
    assert_type(Scope.of(call.caller, ScopeLevel.USER), Scope)
    assert_type(file_reads("/a"), tuple[str, ...])
    return Plan(Effect.write(*file_writes("/a")), ttl_s=0)


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
