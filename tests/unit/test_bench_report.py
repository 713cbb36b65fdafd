"""The report of the benchmarks: what it makes of figures."""

from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import report
from bench.__main__ import BENCHMARKS, GROUPS, main
from bench.decorators import ASYNC_LIMIT, OURS, SCOPED, SYNC_LIMIT
from bench.generations import FEW, MANY
from bench.peers import ROOT
from bench.report import sections
from bench.timing import Timed
from bench.verdicts import (
    JUDGED,
    MISSED,
    Bar,
    against,
    at_least,
    at_most,
    beside,
    markdown,
    missed,
)
from paceline.errors import UsageError

CACHE = GROUPS["cache"]


def timed(ns: float, limit_ns: float = 100.0) -> dict[str, list[float]]:
    """What was timed in three rounds, on a machine that is half as quick in the second one."""
    speeds = (1, 2, 1)
    return {"ns": [ns * each for each in speeds], "limit_ns": [limit_ns * each for each in speeds]}


def cost(hit: float, **more: object) -> dict[str, object]:
    return {"hit": timed(hit), "one_key": timed(hit), "miss": timed(20 * hit), **more}


def figures() -> dict[str, Any]:
    """What the benchmarks of the cache return, every bar met by a hair."""
    checks = {"of": 12, "passed": 12, "failed": {}}
    rules = {"start state, writes": {"reads": 100, "hits": 52, "hit_rate": 0.52, "wrong": 0,
                                     "unproven": 1, "us_per_call": 20.0}}  # fmt: skip
    ratio = {"lru": 0.45, "auto": 0.41}
    return {
        "decorators": {
            "rounds": 9,
            "sync": {
                SYNC_LIMIT: cost(100),
                OURS: cost(349, traced=199.0, grown=210.0, threads=timed(350)),
                SCOPED: cost(350),
                "paceline, without tags": cost(340, traced=180.0),
                "cachebox": cost(500, grown=75.0),
            },
            "asynchronous": {ASYNC_LIMIT: cost(100), OURS: cost(499), SCOPED: cost(500)},
            "raw": {
                "limit: dict.get": timed(50, 50),
                "LRUCache.get": timed(320, 50),
                "LRUCache.put, full": timed(3_900, 50),
            },
            "failed": {"theine (async)": "ValueError: no"},
        },
        "conformance": {
            "async": {
                OURS: checks,
                "peer": {"of": 12, "passed": 9, "failed": {"check_none": "hangs: no end"}},
            },
            "sync": {OURS: {"of": 9, "passed": 9, "failed": {}}},
        },
        "call_path": {
            "rounds": 3,
            "ns": {"hit": timed(8_700), "hit with history": timed(17_500)},
        },
        "sharing": {
            "rounds": 3,
            "processes": 4,
            "computations": {"disk": 1, "redis": 1},
            "found": ["cold", "hot"],
        },
        "hit_ratio": {
            "cells": [{"trace": "t", "capacity": 100, "ratio": ratio, "best": 0.5, "switches": 0}],
            "means": {"all": {"lru": 90.0, "auto": 82.0}, "agents": {"lru": 90.0, "auto": 82.0}},
            "curve_error_means": {"2 %": {"corrected": 1.4, "uncorrected": 8.0}},
            "cost_ns": {"lru": 1_700.0},
        },
        "disk": {
            "ns": {
                "limit: read": timed(8_000, 8_000),
                "get, decoded": timed(13_600, 8_000),
                "put, known key, written": timed(19_000, 10_000),
                "put, new key, written": timed(21_000, 11_000),
                "warm start, rows, decoded": timed(21_000, 8_000),
            },
        },
        "redis": {
            "ns": {"tier get beside client get": timed(114), "tier 32 beside client MGET 32": timed(277)},
            "invalidation_us": {"min": 20, "p50": 30, "p99": 999},
        },
        "generations": {"ns": {FEW: timed(1_000, 1_000), MANY: timed(1_999, 1_000)}},
        "tool_results": {
            "tau_airline": {"rules": rules},
            "bfcl_full": {"rules": rules},
        },
    }  # fmt: skip


def changed(path: str, value: object) -> dict[str, Any]:
    """The figures with another value at a path of keys, divided by /."""
    result: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(figures()))  # none shared
    *way, last = path.split("/")
    place: Any = result
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return result


def test_ratios_judge() -> None:
    """A time is judged by its ratio to the limit, whatever the machine's speed."""
    bar = beside("hit", Timed([700.0], [200.0]), "lru_cache", 3.5, "175 ns there")
    assert bar.row() == [
        "hit",
        "700 ns",
        "lru_cache 200 ns",
        "3.50",
        "3.5 times (175 ns there)",
        "met",
    ]
    assert not beside("hit", Timed([701.0], [200.0]), "lru_cache", 3.5).met
    assert not beside("hit", Timed([float("nan")], [200.0]), "lru_cache", 3.5).met


def test_rounds_are_judged_one_by_one() -> None:
    """What is judged is the median of the ratios within a round: neither minima, nor medians, of
    rounds in which the machine had different speeds."""
    ours = Timed([300.0, 600.0, 900.0, 350.0, 300.0], [100.0, 200.0, 300.0, 100.0, 60.0])
    assert ours.ratio == 3.0
    assert min(ours.ns) / min(ours.limit_ns) == 5.0
    assert ours.median / ours.limit == 3.5
    assert beside("hit", ours, "lru_cache", 3.0).met
    assert not beside("hit", ours, "lru_cache", 2.99).met


def test_peers_are_judged_by_their_common_limit() -> None:
    """Two that were each timed beside one limit are compared by what they took of it in the same
    round."""
    ours, peer = Timed([100.0, 300.0], [50.0, 150.0]), Timed([400.0, 100.0], [100.0, 25.0])
    bar = against("hit", ours, ("peer", peer), 0.5)
    assert (bar.ratio, bar.limit, bar.met) == ("0.50", "peer 250 ns", True)
    assert not against("hit", ours, ("peer", peer), 0.49).met


def test_figures_without_a_limit_are_judged_as_they_are() -> None:
    """A count or share is at most, or at least, its bar."""
    assert [at_most("x", value, 200, str).met for value in (199.9, 200, 200.1)] == [
        True,
        True,
        False,
    ]
    assert [at_least("x", value, 77, str).met for value in (76.9, 77)] == [False, True]
    assert at_most("x", 201, 200, str).row()[-1] == MISSED


def test_everything_met() -> None:
    """Figures that keep to all bars give a report in which nothing is missed."""
    assert missed(sections(figures())) == []


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (f"decorators/sync/{SCOPED}/hit", timed(351), "sync hit: TTL, statistics, tags, scope"),
        (f"decorators/asynchronous/{OURS}/hit", timed(501), "async hit: TTL, statistics, tags"),
        (f"decorators/asynchronous/{OURS}/miss", timed(17_600), "async miss and put"),
        (f"decorators/sync/{OURS}/traced", 201.0, "overhead of an entry, with a TTL and a tag"),
        ("decorators/sync/cachebox/hit", timed(348), "sync hit beside the fastest"),
        ("decorators/raw/LRUCache.get", timed(326, 50), "LRUCache.get"),
        ("conformance/async/paceline/passed", 11, "async checks passed"),
        ("conformance/sync/paceline/of", 8, "sync checks passed"),
        ("call_path/ns/hit", timed(8_800), "hot hit, `Runtime.run`"),
        ("call_path/ns/hit with history", timed(17_600), "the same with history on"),
        ("sharing/computations/redis", 2, "computations for 4 processes of one shared tier"),
        ("sharing/found", ["cold", "cold"], "where a result of another machine is found"),
        ("hit_ratio/cells/0/best", 0.54, "mean share of the optimum, all 1 cells"),
        ("hit_ratio/means/agents/auto", 68.9, "the same, cells of agents"),
        ("hit_ratio/cells/0/ratio/lru", 0.47, "worst cell over LRU, hit ratio"),
        ("hit_ratio/curve_error_means/2 %/corrected", 1.6, "error of the miss-ratio curve, 2 %"),
        ("disk/ns/get, decoded", timed(13_700, 8_000), "get, decoded"),
        ("disk/ns/put, new key, written", timed(21_600, 11_000), "put of a new key, written"),
        ("disk/ns/warm start, rows, decoded", timed(22_000, 8_000), "warm start, an entry"),
        ("redis/ns/tier get beside client get", timed(116), "cold hit"),
        ("redis/ns/tier 32 beside client MGET 32", timed(278), "32 reads at once"),
        ("redis/invalidation_us/p99", 1_001, "a removal seen by another process, p99"),
        (f"generations/ns/{MANY}", timed(2_001, 1_000), MANY),
        ("tool_results/tau_airline/rules/start state, writes/wrong", 1, "wrong answers, tau_airline"),
        ("tool_results/bfcl_full/rules/start state, writes/hit_rate", 0.48, "hits of reads, bfcl_full"),
    ],
)  # fmt: skip
def test_every_bar_can_be_missed(path: str, value: object, what: str) -> None:
    """A figure over its bar is named as missed, and it alone."""
    assert [bar.what.startswith(what) for bar in missed(sections(changed(path, value)))] == [True]


def test_a_stand_in_meets_no_bar() -> None:
    """Where the set that a bar speaks of is not there, the bar is said to be not measured, and no
    other set's hits are judged by it."""
    results = figures()
    results["tool_results"]["bfcl_200_replayed"] = results["tool_results"].pop("bfcl_full")
    part = sections(results)[-1]
    assert [bar.what for bar in part.bars] == [
        "wrong answers, tau_airline",
        "hits of reads, tau_airline",
        "wrong answers, bfcl_200_replayed",
    ]
    assert any("**not measured**" in note for note in part.notes)


def test_what_failed_is_named() -> None:
    """A benchmark that failed, was left out or has no data, and a peer that failed, are said in
    the report, never left out."""
    results: dict[str, Any] = {**figures(), "disk": {"error": "OSError: full"}}
    results["hit_ratio"] = {"absent": "no recorded accesses"}
    del results["redis"]
    text = markdown(
        "The cache", sections(results), "paceline bench cache", date(2026, 1, 2), "cache.json"
    )
    assert "Not measured: OSError: full." in text
    assert "Not measured: no recorded accesses." in text
    assert "Not measured: it was not run." in text
    assert "Failed: theine (async): ValueError: no" in text


def test_the_report_is_whole(tmp_path: Path) -> None:
    """The report has how it was made, a verdict for every bar, every peer, no name of a machine,
    and beside it the figures it was made of."""
    parts = report.write(figures(), "paceline bench cache", tmp_path / "cache.md")
    text = (tmp_path / "cache.md").read_text("utf-8")
    bars = [bar for part in parts for bar in part.bars]
    assert f"{len(bars)} of {len(bars)} bars met" in text
    assert text.count("| met |") == len(bars)
    assert "Made by `paceline bench cache` on " in text
    assert "| cachebox | 500 | 5.0 |" in text
    assert JUDGED in text
    assert "| peer | 9 of 12 | none (hangs) |" in text
    kept = msgspec.json.decode((tmp_path / "cache.json").read_bytes())
    assert {name: kept[name] for name in CACHE} == msgspec.to_builtins(figures())


def test_a_wrong_verdict_would_be_seen() -> None:
    """A report that calls everything met, or judges raw figures, fails the tests above."""
    honest = sections(changed("redis/invalidation_us/p99", 1_001))
    lenient = [
        msgspec.structs.replace(
            part, bars=[msgspec.structs.replace(bar, met=True) for bar in part.bars]
        )
        for part in honest
    ]
    assert missed(honest)
    assert not missed(lenient)
    assert isinstance(missed(honest)[0], Bar)


def test_groups_name_benchmarks_that_exist() -> None:
    """Each part of a group is a benchmark, each benchmark a module, and all are in a group."""
    root = Path(report.__file__).parent
    assert {part for parts in GROUPS.values() for part in parts} == set(BENCHMARKS)
    assert all((root / f"{each.module}.py").is_file() for each in BENCHMARKS.values())


def test_a_run_prints_figures_and_verdicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was run is printed with its bars; a benchmark that fails stops no other and makes the
    exit code 1; a part of a group, or a quick look, writes nothing; nothing names the place of
    the checkout."""

    def fail(**_: object) -> dict[str, object]:
        raise OSError(f"no room in {ROOT}/bench or {ROOT.parent}/shared")

    told: list[object] = []
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(report, "write", told.append)
    monkeypatch.setattr("bench.sharing.run", lambda **_: figures()["sharing"])
    monkeypatch.setattr("bench.disk.run", fail)
    assert main(["sharing"]) == 0
    assert main(["disk", "sharing", "hit_ratio"], quick=True) == 1
    said = capsys.readouterr()
    assert said.out.count("3 of 3 bars met") == 2
    assert "Not measured: OSError: no room in ./bench or ../shared." in said.out
    assert "Not measured: it takes minutes, and is left out by --quick." in said.out
    assert "disk failed: OSError: no room in ./bench or ../shared" in said.err
    assert told == []


def test_unknown_benchmarks_are_refused() -> None:
    """A name that is none runs nothing, and what there is is said."""
    with pytest.raises(UsageError) as raised:
        main(["disk", "speed"])
    assert "speed" in raised.value.message
    assert "tool_results" in raised.value.next_step
