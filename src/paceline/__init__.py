"""Paceline: the performance layer for AI agents.

::

    async with Runtime(agents=["agents"]) as runtime:
        outcome = await runtime.run("host_exec", "uname -a", user="ada")

The runtime:   Runtime, SyncRuntime, Settings
What runs:     Call, Caller, Outcome, Plan, Effect, Scope, ScopeLevel, Priority, Source
Small parts:   LRUCache, TieredCache, AgentCache, cached
Instances:     LoadBalancer, AgentInstance, LoadBalancingStrategy
Figures:       MetricsCollector, PerformanceMetrics, track_performance, report_usage
File effects:  file_reads, file_writes
Errors:        PacelineError, and the whole tree in `paceline.errors`

Nothing is loaded before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from paceline.agents.result_cache import AgentCache
    from paceline.balance.balancer import LoadBalancer
    from paceline.balance.instance import AgentInstance
    from paceline.balance.strategy import LoadBalancingStrategy
    from paceline.cache.function.decorator import cached
    from paceline.cache.lru import LRUCache
    from paceline.cache.stack.cache import TieredCache
    from paceline.call import (
        Call,
        Caller,
        Effect,
        Outcome,
        Plan,
        Priority,
        Scope,
        ScopeLevel,
        Source,
    )
    from paceline.errors import PacelineError
    from paceline.metrics.collector import MetricsCollector
    from paceline.metrics.performance import track_performance
    from paceline.metrics.summary import PerformanceMetrics
    from paceline.runtime import Runtime
    from paceline.settings import Settings
    from paceline.sync import SyncRuntime
    from paceline.tags import file_reads, file_writes
    from paceline.usage import report_usage

__all__ = [
    "AgentCache",
    "AgentInstance",
    "Call",
    "Caller",
    "Effect",
    "LRUCache",
    "LoadBalancer",
    "LoadBalancingStrategy",
    "MetricsCollector",
    "Outcome",
    "PacelineError",
    "PerformanceMetrics",
    "Plan",
    "Priority",
    "Runtime",
    "Scope",
    "ScopeLevel",
    "Settings",
    "Source",
    "SyncRuntime",
    "TieredCache",
    "cached",
    "file_reads",
    "file_writes",
    "report_usage",
    "track_performance",
]

_HOMES: Final = {
    "AgentCache": "agents.result_cache",
    "AgentInstance": "balance.instance",
    "Call": "call",
    "Caller": "call",
    "Effect": "call",
    "LRUCache": "cache.lru",
    "LoadBalancer": "balance.balancer",
    "LoadBalancingStrategy": "balance.strategy",
    "MetricsCollector": "metrics.collector",
    "Outcome": "call",
    "PacelineError": "errors",
    "PerformanceMetrics": "metrics.summary",
    "Plan": "call",
    "Priority": "call",
    "Runtime": "runtime",
    "Scope": "call",
    "ScopeLevel": "call",
    "Settings": "settings",
    "Source": "call",
    "SyncRuntime": "sync",
    "TieredCache": "cache.stack.cache",
    "cached": "cache.function.decorator",
    "file_reads": "tags",
    "file_writes": "tags",
    "report_usage": "usage",
    "track_performance": "metrics.performance",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'paceline' has no attribute {name!r}")
    value: object = getattr(import_module(f"paceline.{home}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return __all__
