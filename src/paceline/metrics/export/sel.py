"""The same figures under the names of the earlier service, for dashboards that query those. Pure.

Times are in milliseconds, and quantiles are those of all calls: what the names say, not what
Prometheus advises. A subsystem is a kind of call: `agent`, `tool`, `llm`.
"""

from typing import Final

from paceline.call import Kind
from paceline.metrics.export.families import Family, Labels, Quantiles, Type, Value
from paceline.metrics.figures import Figures, Snapshot, merged

__all__ = ["SEL", "sel_sheet"]

_SUBSYSTEMS: Final = {Kind.AGENT: "agent", Kind.TOOL: "tool", Kind.MODEL: "llm"}
_QUANTILES: Final = (0.5, 0.95, 0.99)

_OPERATIONS: Final = Family(
    "sel_operations_total", Type.COUNTER, ("subsystem",), "Calls that were not cancelled."
)
_ERRORS: Final = Family(
    "sel_errors_total", Type.COUNTER, ("subsystem",), "Errors, time-outs and rejections."
)
_DURATIONS: Final = {
    kind: Family(
        f"sel_{subsystem}_duration_ms", Type.SUMMARY, (),
        "Milliseconds from the request to the outcome.",
    )
    for kind, subsystem in _SUBSYSTEMS.items()
}  # fmt: skip
_HITS: Final = Family(
    "sel_llm_cache_hits_total", Type.COUNTER, (), "Model calls that needed no execution."
)
_MISSES: Final = Family(
    "sel_llm_cache_misses_total", Type.COUNTER, (), "Model calls that were not hits."
)
_HIT_RATE: Final = Family(
    "sel_llm_cache_hit_rate", Type.GAUGE, (), "Share of hits among model calls, from 0 to 1."
)
_SAVED: Final = Family(
    "sel_llm_cache_cost_saved_total", Type.COUNTER, (), "US dollars that hits had cost to make."
)

SEL: Final = (_OPERATIONS, _ERRORS, *_DURATIONS.values(), _HITS, _MISSES, _HIT_RATE, _SAVED)
"""All of these metrics."""


def sel_sheet(snapshot: Snapshot) -> dict[Family, dict[Labels, Value]]:
    """All samples of a moment; of a kind that was never called only the counters."""
    found: dict[Family, dict[Labels, Value]] = {family: {} for family in SEL}
    for kind, subsystem in _SUBSYSTEMS.items():
        ever = merged([one.ever for one in snapshot.series if one.kind is kind], 0)
        labels = (("subsystem", subsystem),)
        found[_OPERATIONS][labels] = ever.answered
        found[_ERRORS][labels] = ever.answered - ever.successes
        if ever.answered:
            found[_DURATIONS[kind]][()] = _quantiles(ever)
        if kind is Kind.MODEL:
            found[_HITS][()] = ever.hits
            found[_MISSES][()] = ever.answered - ever.hits
            found[_SAVED][()] = ever.usage.saved_usd
            if ever.cache_hit_rate is not None:
                found[_HIT_RATE][()] = ever.cache_hit_rate
    return found


def _quantiles(ever: Figures) -> Quantiles:
    total = ever.total
    of = [(q, total.quantile(q)) for q in _QUANTILES]
    return Quantiles(
        tuple([(q, ns / 1e6) for q, ns in of if ns is not None]), total.count, total.sum / 1e6
    )
