"""Paceline: the performance layer for AI agents.

::

    async with Runtime(agents=["agents"]) as runtime:
        outcome = await runtime.run("host_exec", "uname -a", user="ada")

The runtime:   Runtime, SyncRuntime, Settings
What runs:     Call, Caller, Outcome, Plan, Effect, Scope, ScopeLevel, Priority, Source
Small parts:   LRUCache, TieredCache, AgentCache, cached
Sessions:      AgentEngine, ToolPipeline, ToolRequest, AgentState, AgentContext, ConversationTurn,
               StateTransition, TransitionTrigger, ToolCall, ToolStatus, ToolExecutionState,
               ResourceLimits, ResourceUsage, ExecutionContext, ExecutionPriority, PerformanceHints
Prediction:    PerformancePredictor, ExecutionPattern
Instances:     LoadBalancer, AgentInstance, LoadBalancingStrategy
Figures:       MetricsCollector, PerformanceMetrics, track_performance, report_usage
File effects:  file_reads, file_writes
Errors:        PacelineError, and the whole tree in `paceline.errors`

Nothing is loaded before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from paceline.agent_engine import AgentEngine, OptimizedAgentEngine
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
    from paceline.engine.pipeline import ToolPipeline
    from paceline.engine.requests import ToolRequest
    from paceline.engine.states import (
        AgentContext,
        AgentState,
        ConversationTurn,
        ExecutionContext,
        ExecutionPriority,
        PerformanceHints,
        ResourceLimits,
        StateTransition,
        ToolCall,
        ToolExecutionState,
        ToolStatus,
        TransitionTrigger,
    )
    from paceline.errors import PacelineError
    from paceline.metrics.collector import MetricsCollector
    from paceline.metrics.performance import track_performance
    from paceline.metrics.summary import PerformanceMetrics
    from paceline.predict.execution import ExecutionPattern
    from paceline.predict.predictor import PerformancePredictor
    from paceline.resources import ResourceUsage
    from paceline.runtime import Runtime
    from paceline.settings import Settings
    from paceline.sync import SyncRuntime
    from paceline.tags import file_reads, file_writes
    from paceline.usage import report_usage

__all__ = [
    "AgentCache",
    "AgentContext",
    "AgentEngine",
    "AgentInstance",
    "AgentState",
    "Call",
    "Caller",
    "ConversationTurn",
    "Effect",
    "ExecutionContext",
    "ExecutionPattern",
    "ExecutionPriority",
    "LRUCache",
    "LoadBalancer",
    "LoadBalancingStrategy",
    "MetricsCollector",
    "OptimizedAgentEngine",
    "Outcome",
    "PacelineError",
    "PerformanceHints",
    "PerformanceMetrics",
    "PerformancePredictor",
    "Plan",
    "Priority",
    "ResourceLimits",
    "ResourceUsage",
    "Runtime",
    "Scope",
    "ScopeLevel",
    "Settings",
    "Source",
    "StateTransition",
    "SyncRuntime",
    "TieredCache",
    "ToolCall",
    "ToolExecutionState",
    "ToolPipeline",
    "ToolRequest",
    "ToolStatus",
    "TransitionTrigger",
    "cached",
    "file_reads",
    "file_writes",
    "report_usage",
    "track_performance",
]

_HOMES: Final = {
    "AgentCache": "agents.result_cache",
    "AgentContext": "engine.states",
    "AgentEngine": "agent_engine",
    "AgentInstance": "balance.instance",
    "AgentState": "engine.states",
    "Call": "call",
    "Caller": "call",
    "ConversationTurn": "engine.states",
    "Effect": "call",
    "ExecutionContext": "engine.states",
    "ExecutionPattern": "predict.execution",
    "ExecutionPriority": "engine.states",
    "LRUCache": "cache.lru",
    "LoadBalancer": "balance.balancer",
    "LoadBalancingStrategy": "balance.strategy",
    "MetricsCollector": "metrics.collector",
    "OptimizedAgentEngine": "agent_engine",
    "Outcome": "call",
    "PacelineError": "errors",
    "PerformanceHints": "engine.states",
    "PerformanceMetrics": "metrics.summary",
    "PerformancePredictor": "predict.predictor",
    "Plan": "call",
    "Priority": "call",
    "ResourceLimits": "engine.states",
    "ResourceUsage": "resources",
    "Runtime": "runtime",
    "Scope": "call",
    "ScopeLevel": "call",
    "Settings": "settings",
    "Source": "call",
    "StateTransition": "engine.states",
    "SyncRuntime": "sync",
    "TieredCache": "cache.stack.cache",
    "ToolCall": "engine.states",
    "ToolExecutionState": "engine.states",
    "ToolPipeline": "engine.pipeline",
    "ToolRequest": "engine.requests",
    "ToolStatus": "engine.states",
    "TransitionTrigger": "engine.states",
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
