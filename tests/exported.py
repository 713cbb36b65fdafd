"""Collectors with calls of all sorts, for the tests of what is exported."""

from collections.abc import Mapping
from typing import Final

from paceline.call import Kind, Source
from paceline.clock import Clock
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Usage

__all__ = ["MS", "WEIRD", "busy", "weird"]

MS: Final = 1_000_000

WEIRD: Final = (
    'quo"te', "back\\slash", "two\nlines", "carriage\rreturn", "tab\t", "nul\0", "\x1b[31mred",
    "\N{PARTY POPPER}", "\ud800 alone", '{agent="x"} 1', "# EOF", "# HELP x", "", " ",
    "x" * 5_000, "\N{LINE SEPARATOR}", "\x85", "ü" * 300, "\\", "\\n", '"',
)  # fmt: skip
"""Names that parsers, terminals and encodings trip over."""


def busy(clock: Clock | None = None) -> MetricsCollector:
    """Two agents, a tool and a model; every ending, tokens and money, a call in flight."""
    collector = MetricsCollector(clock=clock)
    for number in range(1, 11):
        _call(collector, "web", executed_ms=100 * number, usage=Usage(100, 20, 30, 5, 7, 0.5, 0.75))
    for _ in range(5):
        collector.add(
            "web", source=Source.HOT, category=None, queue_ns=0, execute_ns=0, total_ns=20_000,
            saved_ns=550 * MS, usage=Usage(saved_usd=0.25),
        )  # fmt: skip
    for category, ran in (
        (Category.NETWORK, True), (Category.TIMEOUT, True), (Category.CANCELLED, True),
        (Category.EXHAUSTED, False),
    ):  # fmt: skip
        collector.add(
            "web", source=Source.EXECUTED, category=category, queue_ns=MS, execute_ns=2 * MS,
            total_ns=3 * MS, ran=ran, error="Oops",
        )  # fmt: skip
    _call(collector, "grep", executed_ms=3, kind=Kind.TOOL)
    _call(collector, "gpt", executed_ms=900, kind=Kind.MODEL, labels={"team": "search"})
    collector.series("gpt", Kind.MODEL).streamed(40 * MS, [2 * MS, 4 * MS])
    collector.series("web").running["a call"] = collector.clock.monotonic_ns()
    return collector


def weird() -> MetricsCollector:
    """Agents of weird names, and one with weird labels."""
    collector = MetricsCollector()
    for name in WEIRD:
        _call(collector, name, executed_ms=1)
        _call(collector, "plain", executed_ms=1, labels={name: "value", "label": name})
    return collector


def _call(
    collector: MetricsCollector,
    name: str,
    *,
    executed_ms: int,
    kind: Kind = Kind.AGENT,
    labels: Mapping[str, str] | None = None,
    usage: Usage | None = None,
) -> None:
    collector.add(
        name,
        source=Source.EXECUTED,
        category=None,
        queue_ns=MS,
        execute_ns=executed_ms * MS,
        total_ns=executed_ms * MS + MS,
        kind=kind,
        labels=labels or {},
        usage=usage,
    )
