"""What is made of a snapshot for Prometheus: names, labels, histograms; pure."""

import random
from collections.abc import Mapping

import hypothesis.strategies as st
import pytest
from hypothesis import given

from paceline.call import Kind, Source
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.export import families
from paceline.metrics.export.families import (
    BOUNDS_S,
    NATIVE,
    Distribution,
    Family,
    Labels,
    Value,
    distribution,
    labels_of,
    sheet,
)
from paceline.metrics.export.sel import SEL, sel_sheet
from paceline.metrics.figures import OTHER, Ending, Snapshot
from paceline.metrics.sketch import Sketch
from paceline.testing.virtual_time import VirtualClock
from tests.exported import MS, WEIRD, busy, weird

WEB = (("agent", "web"), ("kind", "agent"))


def told(snapshot: Snapshot) -> Mapping[Family, Mapping[Labels, Value]]:
    """All samples."""
    return sheet(snapshot, version="1")


def number(samples: Mapping[Labels, Value]) -> float:
    """All values of a counter together."""
    return sum([value for value in samples.values() if isinstance(value, (int, float))])


def one_call(
    collector: MetricsCollector, name: str = "web", labels: Mapping[str, str] | None = None
) -> None:
    collector.add(
        name, source=Source.EXECUTED, category=None, queue_ns=0, execute_ns=MS, total_ns=MS,
        labels=labels or {},
    )  # fmt: skip


def test_every_call_is_told_once() -> None:
    """Calls are told by where they came from and how they ended, and add up to all calls; errors by
    category, cancelled ones being none. (S0-25, S0-17)"""
    snapshot = busy().snapshot()
    found = told(snapshot)
    calls = {labels[2:]: n for labels, n in found[families.CALLS].items() if labels[:2] == WEB}
    assert calls == {
        (("source", "executed"), ("ending", "success")): 10,
        (("source", "executed"), ("ending", "error")): 1,
        (("source", "executed"), ("ending", "timeout")): 1,
        (("source", "executed"), ("ending", "cancelled")): 1,
        (("source", "executed"), ("ending", "rejected")): 1,
        (("source", "hot"), ("ending", "success")): 5,
    }
    assert number(found[families.CALLS]) == snapshot.totals.ever.calls
    assert {labels[2][1]: n for labels, n in found[families.ERRORS].items()} == {
        "network": 1,
        "timeout": 1,
        "exhausted": 1,
    }


def test_counters_begin_with_nothing() -> None:
    """The first error of an agent that has run is growth to a query, because its counter was there
    before with 0. (S0-25)"""
    collector = MetricsCollector()
    one_call(collector)
    calls = told(collector.snapshot())[families.CALLS]
    assert calls[(*WEB, ("source", "executed"), ("ending", "error"))] == 0


def test_tokens_and_money() -> None:
    """Tokens by kind without counting any twice, what was paid, what it had been, and what was
    saved. (S0-26)"""
    found = told(busy().snapshot())
    assert found[families.TOKENS] == {
        (*WEB, ("type", "input")): 1000,
        (*WEB, ("type", "output")): 200,
    }
    assert found[families.SPECIAL_TOKENS] == {
        (*WEB, ("type", "cached_input")): 300,
        (*WEB, ("type", "cache_write")): 50,
        (*WEB, ("type", "reasoning")): 70,
    }
    assert found[families.COST] == {WEB: 5.0}
    assert found[families.RAW_COST] == {WEB: 7.5}
    assert found[families.SAVED_USD] == {WEB: 1.25}
    assert found[families.SAVED_SECONDS] == {WEB: pytest.approx(2.75)}


def test_what_runs_and_how_full_it_is() -> None:
    """Calls in flight are told, idle agents with 0, and the loads of instances. (S0-17, K-02)"""
    snapshot = busy().snapshot()
    found = told(snapshot)[families.IN_FLIGHT]
    assert found[WEB] == 1
    assert found[("agent", "grep"), ("kind", "tool")] == 0
    loaded = Snapshot(snapshot.series, 1, loads={"web-1": 0.75})
    assert told(loaded)[families.LOAD] == {(("instance_name", "web-1"),): 0.75}


def test_times_by_result() -> None:
    """Times of hits, fresh values and failures are histograms of their own, their sums exact;
    cancelled calls are in none. (S0-25, P-06)"""
    found = told(busy().snapshot())[families.DURATION]
    web = {labels[2][1]: value for labels, value in found.items() if labels[:2] == WEB}
    assert {result: one.counts[-1] for result, one in _distributions(web).items()} == {
        "hit": 5,
        "fresh": 10,
        "failed": 3,
    }
    fresh, hit = _distributions(web)["fresh"], _distributions(web)["hit"]
    assert fresh.sum == pytest.approx(5.51)
    assert fresh.counts[BOUNDS_S.index(0.32)] == 3
    assert fresh.counts[BOUNDS_S.index(0.64)] == 6
    assert hit.counts[:2] == (0, 5)


def _distributions(values: Mapping[str, Value]) -> dict[str, Distribution]:
    return {key: one for key, one in values.items() if isinstance(one, Distribution)}


@given(st.lists(st.integers(0, 200_000_000_000), max_size=200))
def test_a_histogram_of_any_times(values: list[int]) -> None:
    """Each bucket has the values up to its bound, and at most those beside that are above it by no
    more than 1/64; buckets are cumulative, the last has all. (S0-25)"""
    sketch = Sketch()
    sketch.add_all(values)
    check_histogram(values, distribution(sketch))


def check_histogram(values: list[int], found: Distribution) -> None:
    """That the histogram is one of these values."""
    assert len(found.counts) == len(BOUNDS_S) + 1
    assert found.counts[-1] == len(values)
    assert list(found.counts) == sorted(found.counts)
    assert found.sum == pytest.approx(sum(values) / 1e9)
    for bound_s, count in zip(BOUNDS_S, found.counts, strict=False):
        bound = bound_s * 1e9 * (1 + 1e-6)
        assert len([value for value in values if value <= bound_s * 1e9]) <= count
        assert count <= len([value for value in values if value <= bound * 65 / 64])


@pytest.mark.parametrize("seed", range(3))
def test_histograms_that_are_wrong_are_found(seed: int) -> None:
    """A histogram that leaves out zeros, is not cumulative, or is in milliseconds, is found."""
    values = [0, *[int(random.Random(seed).lognormvariate(17, 3)) for _ in range(100)]]
    sketch = Sketch()
    sketch.add_all(values)
    right = distribution(sketch)
    check_histogram(values, right)
    counts = right.counts
    each = [one - before for one, before in zip(counts, (0, *counts), strict=False)]
    for wrong in (
        Distribution(tuple([count - 1 for count in counts]), right.sum),
        Distribution(tuple(each), right.sum),
        Distribution(counts, right.sum * 1e3),
        Distribution((0, *counts[:-1]), right.sum),
    ):
        with pytest.raises(AssertionError):
            check_histogram(values, wrong)


def test_counters_never_go_back() -> None:
    """Whatever happens, no sample of a counter or histogram falls or goes away from one snapshot to
    the next, and its beginning stays; a reset is another beginning. (S0-25)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    rng = random.Random(7)
    before: dict[tuple[str, Labels], Value] = {}
    began = collector.snapshot().started_ns
    for _ in range(40):
        for _ in range(rng.randrange(20)):
            _any_call(collector, rng)
        clock.advance(rng.choice((0.1, 70.0, 4_000.0, 90_000.0)))
        snapshot = collector.snapshot()
        now = _counting(snapshot)
        check_growth(before, now)
        assert snapshot.started_ns == began
        before = now
    collector.reset()
    with pytest.raises(AssertionError):
        check_growth(before, _counting(collector.snapshot()))
    assert collector.snapshot().started_ns > began


def check_growth(before: dict[tuple[str, Labels], Value], now: dict[tuple[str, Labels], Value]):
    """That nothing went back."""
    for key, value in before.items():
        after = now.get(key)
        if isinstance(value, Distribution):
            assert isinstance(after, Distribution)
            assert all(a >= b for a, b in zip(after.counts, value.counts, strict=True)), key
            assert after.sum >= value.sum
        else:
            assert isinstance(after, (int, float))
            assert isinstance(value, (int, float))
            assert after >= value, key


def _counting(snapshot: Snapshot) -> dict[tuple[str, Labels], Value]:
    return {
        (family.name, labels): value
        for family, samples in told(snapshot).items()
        if family.type in (families.Type.COUNTER, families.Type.HISTOGRAM)
        for labels, value in samples.items()
    }


def _any_call(collector: MetricsCollector, rng: random.Random) -> None:
    collector.add(
        f"agent {rng.randrange(3)}",
        source=rng.choice(list(Source)),
        category=rng.choice([None, None, None, *Category]),
        queue_ns=rng.randrange(MS),
        execute_ns=rng.randrange(100 * MS),
        total_ns=int(rng.lognormvariate(17, 4)),
        ran=rng.random() < 0.5,
    )


def test_labels_have_the_form_that_is_demanded() -> None:
    """Names and labels of any text become such as Prometheus takes: names of labels in snake case
    and none of ours, values bounded, without control characters and what UTF-8 cannot hold; no call
    is lost over it. (S0-25)"""
    snapshot = weird().snapshot()
    for samples in told(snapshot).values():
        for labels in samples:
            names = [name for name, _ in labels]
            assert len(set(names)) == len(names)
            for name, value in labels:
                assert name.isascii()
                assert name.islower()
                assert name.isidentifier()
                assert not name.startswith("__")
                assert len(value) <= families.LONGEST
                assert value.encode().decode() == value
                assert not set(value) & {*map(chr, range(32)), "\x85"} - {"\n"}
    assert number(told(snapshot)[families.CALLS]) == 2 * len(WEIRD)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("team", "team"), ("userId", "user_id"), ("a-b.c d", "a_b_c_d"), ("__name__", "name"), ("instance_name", "label_instance_name"),
        ("le", "label_le"), ("agent", "label_agent"), ("1st", "label_1st"), ("", "label"),
        ("\N{PARTY POPPER}", "label"), ("HTTPCode", "httpcode"), ("ending", "label_ending"),
        ("x" * 300, "x" * 200),
    ],
)  # fmt: skip
def test_names_of_labels(given: str, name: str) -> None:
    """A label of the user's own keeps its name as far as it can. (S0-25)"""
    collector = MetricsCollector()
    one_call(collector, labels={given: "v"})
    assert labels_of(collector.snapshot().series[0])[2:] == ((name, "v"),)


def test_labels_that_become_the_same() -> None:
    """Series that only differ in what Prometheus cannot tell apart are added up; two labels of one
    series that come to one name keep both values. (S0-25)"""
    collector = MetricsCollector()
    for labels in ({"a-b": "1"}, {"a.b": "1"}, {"a b": "1", "empty": ""}):
        one_call(collector, labels=labels)
    one_call(collector, labels={"a-b": "1", "a.b": "2"})
    found = told(collector.snapshot())
    durations = found[families.DURATION]
    three = durations[(*WEB, ("a_b", "1"), ("result", "fresh"))]
    assert isinstance(three, Distribution)
    assert three.counts[-1] == 3
    assert three.sum == pytest.approx(0.003)
    both = durations[(*WEB, ("a_b", "1"), ("a_b_2", "2"), ("result", "fresh"))]
    assert isinstance(both, Distribution)
    assert both.counts[-1] == 1
    assert len(durations) == 2


def test_a_label_bomb() -> None:
    """Any number of names and labels is a bounded number of samples; what is beyond the limit is
    told as one series, and counted. (S0-09, S0-25)"""
    collector = MetricsCollector(max_series=50)
    for number in range(500):
        one_call(collector, f"agent {number}", {"id": f"{number}"})
    one_call(collector, labels={f"label {n}": "v" for n in range(100)})
    found = told(collector.snapshot())
    assert len(found[families.IN_FLIGHT]) <= 51
    others = (("agent", OTHER), ("kind", "agent"))
    assert found[families.CALLS][(*others, ("source", "executed"), ("ending", "success"))] == 451
    assert found[families.OVERFLOW] == {(): 451}
    alone = MetricsCollector()
    one_call(alone, labels={f"label {n}": "v" for n in range(100)})
    labels = labels_of(alone.snapshot().series[0])
    assert len(labels) == 2 + families.MOST_LABELS


def test_records_that_make_no_sense_are_counted() -> None:
    """Calls that could not be recorded are told as a number. (S0-25)"""
    collector = MetricsCollector()
    collector.record_execution("web", -1.0, True)
    assert told(collector.snapshot())[families.REFUSED] == {(): 1}


def test_the_table_of_names() -> None:
    """Names are unique, in base units, and say what they are: counters end in _total; bounds go up,
    and have those that calls are promised to stay under. (P-06, K-02)"""
    names = [family.name for family in NATIVE]
    assert len(set(names)) == len(names)
    for family in NATIVE:
        assert family.name.startswith("paceline_")
        assert family.name.endswith("_total") == (family.type is families.Type.COUNTER)
        assert family.help.endswith(".")
        assert "_ms" not in family.name
    assert list(BOUNDS_S) == sorted(BOUNDS_S)
    genai = [0.01 * 2**power for power in range(14)]
    assert {*genai, 0.5, 1.0} <= {round(bound, 6) for bound in BOUNDS_S}


def test_the_earlier_names() -> None:
    """The figures under the names of the earlier service: operations, errors, quantiles in
    milliseconds by subsystem, and the cache of models. (E-10)"""
    collector = busy()
    for _ in range(3):
        collector.add(
            "gpt", source=Source.WARM, category=None, queue_ns=0, execute_ns=0, total_ns=MS,
            kind=Kind.MODEL,
        )  # fmt: skip
    found = {family.name: samples for family, samples in sel_sheet(collector.snapshot()).items()}
    assert found["sel_operations_total"][("subsystem", "agent"),] == 18
    assert found["sel_errors_total"][("subsystem", "agent"),] == 3
    assert found["sel_llm_cache_hits_total"] == {(): 3}
    assert found["sel_llm_cache_misses_total"] == {(): 1}
    assert found["sel_llm_cache_hit_rate"] == {(): 0.75}
    assert found["sel_llm_cache_cost_saved_total"] == {(): 0.0}
    tool = found["sel_tool_duration_ms"][()]
    assert isinstance(tool, families.Quantiles)
    assert [q for q, _ in tool.quantiles] == [0.5, 0.95, 0.99]
    assert [ms for _, ms in tool.quantiles] == pytest.approx([4.0] * 3, rel=0.01)
    assert tool.calls == 1
    assert tool.sum == pytest.approx(4.0)
    assert [family.name for family in SEL] == list(found)
    nothing = sel_sheet(MetricsCollector().snapshot())
    assert sum(map(len, nothing.values())) == 9  # counters alone


def test_ways_add_up() -> None:
    """Calls by where they came from and how they ended are kept when series are united. (S0-17)"""
    ever = busy().snapshot().totals.ever
    assert sum(ever.by_way.values()) == ever.calls
    assert ever.by_way[Source.HOT, Ending.SUCCESS] == 5
