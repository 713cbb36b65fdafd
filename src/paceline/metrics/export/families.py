"""What Prometheus is told of collected figures, and under which names. Pure.

`NATIVE` is the table of all metrics. Every sample of an agent, tool or model has the labels `agent`
(its name) and `kind`, and the user's own. A counter never goes back while the process lives, unless
the collector is reset: then its created timestamp is another.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from paceline.call import Source
from paceline.errors import Category
from paceline.metrics.figures import Ending, Figures, Series, Snapshot
from paceline.metrics.sketch import Sketch

__all__ = [
    "BOUNDS_S",
    "NATIVE",
    "Distribution",
    "Family",
    "Labels",
    "Quantiles",
    "Sheet",
    "Type",
    "Value",
    "distribution",
    "label_value",
    "labels_of",
    "result_of",
    "sheet",
]

BOUNDS_S: Final = (
    0.00001, 0.0001, 0.001, 0.005,
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.64, 1.0, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
"""Upper bounds of buckets: those of the GenAI conventions for durations, smaller ones for hits, and
the half second and second that calls are promised to take at most."""

LONGEST: Final = 200
"""Characters of a label's value; what is longer is cut."""
MOST_LABELS: Final = 16
"""Labels of the user's own on one series; further ones are left out."""

Labels = tuple[tuple[str, str], ...]


class Type(StrEnum):
    """What kind of metric a family is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"
    SUMMARY = "summary"


class Family(NamedTuple):
    """One metric: its name as queries say it (a histogram's without suffix), and its labels beside
    those that all have."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str


class Distribution(NamedTuple):
    """How many values were at most each bound of `BOUNDS_S`, and how many in all; their sum."""

    counts: tuple[int, ...]
    sum: float


class Quantiles(NamedTuple):
    """Some quantiles, and the count and sum of what they are of."""

    quantiles: tuple[tuple[float, float], ...]
    calls: int
    sum: float


Value = float | Distribution | Quantiles
Sheet = Mapping[Family, Mapping[Labels, Value]]
"""All samples, by metric and labels."""

_C, _G, _H = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM

CALLS: Final = Family(
    "paceline_calls_total", _C, ("source", "ending"),
    "Calls that ended, by where the outcome came from (executed, a cache tier, joined, speculated,"
    " ...) and how"
    " they ended (success, error, timeout, cancelled, rejected).",
)  # fmt: skip
ERRORS: Final = Family(
    "paceline_errors_total", _C, ("category",),
    "Calls that ended in an error, by its category; cancelled calls are none of them.",
)  # fmt: skip
DURATION: Final = Family(
    "paceline_call_duration_seconds", _H, ("result",),
    "From the request to the outcome: of values from a cache or another call (hit), values executed"
    " for (fresh), and errors, time-outs and rejections (failed); cancelled calls are left out.",
)  # fmt: skip
EXECUTE: Final = Family(
    "paceline_execute_duration_seconds", _H, (), "Time in the agent, of calls that were executed."
)
QUEUE: Final = Family(
    "paceline_queue_duration_seconds", _H, (),
    "Time spent waiting for capacity, of calls that had to be executed.",
)  # fmt: skip
FIRST_ITEM: Final = Family(
    "paceline_first_item_seconds", _H, (), "From the request to the first item, of streams."
)
BETWEEN_ITEMS: Final = Family(
    "paceline_between_items_seconds", _H, (), "From one item to the next, of streams."
)
IN_FLIGHT: Final = Family("paceline_in_flight", _G, (), "Calls that are running or waiting.")
TOKENS: Final = Family(
    "paceline_tokens_total", _C, ("type",), "Model tokens: input (cached ones included), output."
)
SPECIAL_TOKENS: Final = Family(
    "paceline_special_tokens_total", _C, ("type",),
    "Tokens that paceline_tokens_total counts too and that have prices of their own: cached_input"
    " (read from a provider's cache), cache_write (written to it), reasoning.",
)  # fmt: skip
COST: Final = Family("paceline_cost_usd_total", _C, (), "What was paid for executing.")
RAW_COST: Final = Family(
    "paceline_raw_cost_usd_total", _C, (),
    "What executing had cost without discounts for cached tokens.",
)  # fmt: skip
SAVED_USD: Final = Family(
    "paceline_saved_usd_total", _C, (), "What results that were served again had cost to make."
)
SAVED_SECONDS: Final = Family(
    "paceline_saved_seconds_total", _C, (),
    "How long it had taken to make the results that were served again.",
)  # fmt: skip
LOAD: Final = Family(
    "paceline_instance_load_ratio", _G, ("instance_name",), "How full an instance is, from 0 to 1."
)
OVERFLOW: Final = Family(
    "paceline_series_overflow_total", _C, (),
    'Names or label sets beyond the limit: their calls count as those of the agent "(other)".',
)  # fmt: skip
REFUSED: Final = Family(
    "paceline_refused_records_total", _C, (), "Calls whose figures made no sense and count nowhere."
)
STARTED: Final = Family(
    "paceline_start_time_seconds", _G, (), "Since when is counted, in seconds since 1970."
)
BUILD: Final = Family("paceline_build_info", Type.INFO, ("version",), "Which Paceline this is.")

NATIVE: Final = (
    CALLS, ERRORS, DURATION, EXECUTE, QUEUE, FIRST_ITEM, BETWEEN_ITEMS, IN_FLIGHT, TOKENS,
    SPECIAL_TOKENS, COST, RAW_COST, SAVED_USD, SAVED_SECONDS, LOAD, OVERFLOW, REFUSED, STARTED, BUILD,
)  # fmt: skip
"""All metrics, in the order they are told in. The hit rate is left to queries:
`rate(paceline_calls_total{ending="success",source!="executed"}[5m])` over all."""

_OWN: Final = frozenset(
    {"agent", "kind", "le", "quantile", *[label for family in NATIVE for label in family.labels]}
)
_HIT, _FRESH, _FAILED = "hit", "fresh", "failed"
# A counter that first appears with 1 has not grown in the eyes of a query: so these begin with 0.
_FROM_THE_START: Final = dict.fromkeys([(Source.EXECUTED, ending) for ending in Ending], 0)
_BOUNDS_NS: Final = tuple([bound * 1e9 for bound in BOUNDS_S])
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_NO_LETTER: Final = re.compile(r"[^a-z0-9]+")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def sheet(snapshot: Snapshot, *, version: str) -> dict[Family, dict[Labels, Value]]:
    """All samples of a moment, in the order of `NATIVE`.

    Series whose labels are the same once they have the form that Prometheus demands are added up.
    """
    found: dict[Family, dict[Labels, Value]] = {family: {} for family in NATIVE}
    for series in snapshot.series:
        common = labels_of(series)
        for family, own, value in _samples(series):
            samples, labels = found[family], common + own
            before = samples.get(labels)
            samples[labels] = value if before is None else _both(before, value)
    for name, load in snapshot.loads.items():
        found[LOAD][("instance_name", label_value(name)),] = load
    found[OVERFLOW][()] = snapshot.overflowed
    found[REFUSED][()] = snapshot.refused
    found[STARTED][()] = snapshot.started_ns / 1e9
    found[BUILD][("version", version),] = 1
    return found


def result_of(source: Source, ending: Ending) -> str | None:
    """The label `result` of a call in `DURATION`; None if it is not in it."""
    if ending is Ending.CANCELLED:
        return None
    if ending is not Ending.SUCCESS:
        return _FAILED
    return _HIT if source.cached else _FRESH


def labels_of(series: Series) -> Labels:
    """The labels of all samples of a series: its name, its kind, and the user's own."""
    labels = {"agent": label_value(series.name), "kind": series.kind.value}
    for given in sorted(series.labels)[:MOST_LABELS]:
        value = label_value(series.labels[given])
        if value:  # to Prometheus, an empty label is none
            labels[_free(_label(given), labels)] = value
    return tuple(labels.items())


def distribution(sketch: Sketch) -> Distribution:
    """The times of a sketch as a histogram, in seconds.

    A sketch knows values to 1/64: one that is above a bound by no more may be counted below it.
    """
    counts: list[int] = []
    total, buckets = sketch.zeros, sketch.buckets()
    low, _, count = next(buckets, _NO_BUCKET)
    for bound in _BOUNDS_NS:
        while low <= bound:
            total += count
            low, _, count = next(buckets, _NO_BUCKET)
        counts.append(total)
    return Distribution((*counts, sketch.count), sketch.sum / 1e9)


_NO_BUCKET: Final = (float("inf"), float("inf"), 0)


def _samples(series: Series) -> Iterator[tuple[Family, Labels, Value]]:
    ever = series.ever
    yield IN_FLIGHT, (), series.in_flight
    for (source, ending), count in {**_FROM_THE_START, **ever.by_way}.items():
        yield CALLS, (("source", source.value), ("ending", ending.value)), count
    for category, count in ever.by_category.items():
        if category is not Category.CANCELLED:
            yield ERRORS, (("category", category.value),), count
    times: list[tuple[Family, Labels, Sketch]] = [
        (DURATION, (("result", _HIT),), ever.hit),
        (DURATION, (("result", _FRESH),), ever.fresh),
        (DURATION, (("result", _FAILED),), ever.failed),
        (EXECUTE, (), series.execute),
        (QUEUE, (), series.queue),
        (FIRST_ITEM, (), series.first_item),
        (BETWEEN_ITEMS, (), series.between_items),
    ]
    for family, own, sketch in times:
        if sketch.count:
            yield family, own, distribution(sketch)
    for family, own, amount in _amounts(ever):
        if amount:
            yield family, own, amount


def _amounts(ever: Figures) -> Iterator[tuple[Family, Labels, float]]:
    usage = ever.usage
    yield TOKENS, (("type", "input"),), usage.input
    yield TOKENS, (("type", "output"),), usage.output
    yield SPECIAL_TOKENS, (("type", "cached_input"),), usage.cached_input
    yield SPECIAL_TOKENS, (("type", "cache_write"),), usage.cache_write
    yield SPECIAL_TOKENS, (("type", "reasoning"),), usage.reasoning
    yield COST, (), usage.cost_usd
    yield RAW_COST, (), usage.raw_usd
    yield SAVED_USD, (), usage.saved_usd
    yield SAVED_SECONDS, (), ever.saved_ns / 1e9


def _both(one: Value, other: Value) -> Value:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        counts = [a + b for a, b in zip(one.counts, other.counts, strict=True)]
        return Distribution(tuple(counts), one.sum + other.sum)
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one + other
    raise TypeError("samples of one metric are of one form")


def label_value(value: str) -> str:
    """A label's value: bounded, and with nothing in it that UTF-8 or a parser has no place for."""
    sound = value[:LONGEST].encode("utf-8", "replace").decode()
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", sound)


def _label(given: str) -> str:
    """A label's name: in snake case, as Prometheus has them, and none of ours."""
    name = _NO_LETTER.sub("_", _HUMP.sub("_", given[:LONGEST]).lower()).strip("_")
    return f"label_{name}".rstrip("_") if name in _OWN or not name[:1].isalpha() else name


def _free(name: str, taken: Mapping[str, str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
