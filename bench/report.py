"""The report on the cache: every figure beside its limit, its peers and its bar.

`sections` makes it of what the benchmarks returned; verdicts are computed here and nowhere else,
see `bench/verdicts.py` for how.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import msgspec

from bench import verdicts
from bench.decorators import ASYNC_LIMIT, OURS, SCOPED, SYNC_LIMIT, Cost, Figures
from bench.generations import FEW, MANY
from bench.timing import LIMIT, Timed
from bench.verdicts import (
    AWAIT_NS,
    LRU_NS,
    Bar,
    Results,
    Section,
    Table,
    against,
    at_least,
    at_most,
    beside,
    counted,
    in_bytes,
    part,
    percent,
    points,
    time,
)

__all__ = ["REPORT", "TITLE", "sections", "write"]

TITLE: Final = "The cache"
REPORT: Final = Path(__file__).parent / "results" / "cache.md"

_DICT_NS: Final = 25.0  # of the machine that the bars were set on, as are the following
_READ_US: Final = 3.8
_WRITE_US: Final = 4.1
_MGET_US: Final = 72.0


def sections(results: Results, *, only_run: bool = False) -> list[Section]:
    """The report, by the sections of the requirements; `only_run` leaves out what was not run."""
    return [
        part(results, title, needed, make)
        for title, needed, make in (
            ("A cached call", "decorators", _cached_call),
            ("A cached call under the bugs that users report", "conformance", _conformance),
            ("The whole path of a call", "call_path", _call_path),
            ("One computation, and the way up", "sharing", _sharing),
            ("Hit ratio", "hit_ratio", _hit_ratio),
            ("The disk tier", "disk", _disk),
            ("The shared tier", "redis", _redis),
            ("What a write costs", "generations", _generations),
            ("Correctness of tool-result caching", "tool_results", _tool_results),
        )
        if needed in results or not only_run
    ]


def _cached_call(title: str, data: Any) -> Section:
    figures = msgspec.convert(data, Figures)
    sync, other, raw = figures.sync, figures.asynchronous, figures.raw
    lru, noop, find = "lru_cache", "await no-op", "dict.get"
    ours = sync[OURS]
    bars = [
        beside("sync hit: TTL, statistics, tags", _timed(ours.hit), lru, 3.5),
        beside("sync hit: TTL, statistics, tags, scope", _timed(sync[SCOPED].hit), lru, 3.5),
        beside("async hit: TTL, statistics, tags", _timed(other[OURS].hit), noop, 5),
        beside("async hit: TTL, statistics, tags, scope", _timed(other[SCOPED].hit), noop, 5),
        beside(
            "async miss and put, cancel-safe",
            _timed(other[OURS].miss), noop, 10_000 / AWAIT_NS, "10 us there",
        ),
        at_most("overhead of an entry, with a TTL", sync["paceline, without tags"].traced or 0, 200, in_bytes),
        at_most("overhead of an entry, with a TTL and a tag", ours.traced or 0, 200, in_bytes),
        beside("LRUCache.get", raw["LRUCache.get"], find, 6.5),
        beside(
            "LRUCache.put in a full cache",
            raw["LRUCache.put, full"], find, 2_000 / _DICT_NS, "2 us there",
        ),
    ]  # fmt: skip
    if "cachebox" in sync:
        peer = ("cachebox.cached", _timed(sync["cachebox"].hit))
        bars.append(
            against("sync hit beside the fastest that waits for others", _timed(ours.hit), peer, 1)
        )
    lru_ns, noop_ns = _timed(sync[SYNC_LIMIT].hit).median, _timed(other[ASYNC_LIMIT].hit).median
    notes = [
        (
            f"This machine: `lru_cache` {time(lru_ns)}, {lru_ns / LRU_NS:.1f} times the 50 ns of the "
            f"machine of the bars; `await` of a no-op {time(noop_ns)}, {noop_ns / AWAIT_NS:.1f} times "
            "its 57."
        ),
        (
            f"{figures.rounds} rounds, each candidate once a round in shuffled order, right after the "
            "limit. Nanoseconds. Hits are of 10,000 resident texts at random; "
            "misses of new texts with 1,000 kept, by what evicts. Peers are set up with a lifetime "
            "where they have one."
        ),
        (
            "Bytes: what the process grows by, an entry, key and value not counted; in brackets what "
            "Python traced, by which the bar is judged."
        ),
        *(f"Failed: {name}: {why}" for name, why in figures.failed.items()),
    ]
    tables = [
        _costs("sync", sync, "x lru_cache"),
        _costs("async", other, "x await"),
    ]
    return Section(title, bars, tables, notes)


def _timed(timed: Timed | None) -> Timed:
    """What was timed; no number, which meets no bar, if it was not."""
    return timed or Timed([float("nan")], [float("nan")])


def _costs(kind: str, costs: dict[str, Cost], ratio: str) -> Table:
    """By hit, the quickest first, the limits among them."""

    def cell(timed: Timed | None) -> str:
        return f"{timed.median:,.0f}" if timed is not None else ""

    columns = [f"{kind} decorator", "hit", ratio, "one key", "4 threads", "miss and put", "bytes"]
    rows = [
        [
            name,
            cell(cost.hit),
            f"{_timed(cost.hit).ratio:.1f}",
            cell(cost.one_key),
            cell(cost.threads),
            cell(cost.miss),
            "" if cost.grown is None else f"{cost.grown:,.0f}"
            + ("" if cost.traced is None else f" ({cost.traced:,.0f})"),
        ]
        for name, cost in sorted(costs.items(), key=lambda item: _timed(item[1].hit).ratio)
    ]  # fmt: skip
    if kind == "async":
        columns.remove("4 threads")
        rows = [row[:4] + row[5:] for row in rows]
    return Table(columns, rows)


def _conformance(title: str, data: Any) -> Section:
    bars: list[Bar] = []
    tables: list[Table] = []
    for kind, checks in (("async", 12), ("sync", 9)):
        results = data[kind]
        ours = results[OURS]
        peers = [each["passed"] for name, each in results.items() if name != OURS]
        bars.append(
            Bar(
                f"{kind} checks passed", f"{ours['passed']} of {ours['of']}",
                f"best peer {max(peers)}" if peers else "", "", f"{checks} of {checks}",
                ours["passed"] == ours["of"] == checks,
            )
        )  # fmt: skip
        ordered = sorted(results.items(), key=lambda item: -item[1]["passed"])
        rows = [
            [name, f"{each['passed']} of {each['of']}", _failures(each["failed"])]
            for name, each in ordered
        ]
        tables.append(Table([f"{kind} decorator", "passed", "fails"], rows))
    notes = [
        (
            "The checks are those of `paceline.testing`, on the bugs that users of caches report. Each "
            "runs in a process of its own; a peer's other ways to be set up may pass others."
        ),
    ]
    return Section(title, bars, tables, notes)


def _failures(failed: Mapping[str, str]) -> str:
    """The names of the checks; what hangs is said."""
    return ", ".join(
        check.removeprefix("check_").replace("_", " ")
        + (" (hangs)" if said.startswith("hangs") else "")
        for check, said in failed.items()
    )


def _call_path(title: str, data: Any) -> Section:
    ns, noop = _times(data), "await no-op"
    bars = [
        beside("hot hit, `Runtime.run`", ns["hit"], noop, 5_000 / AWAIT_NS, "5 us there"),
        beside(
            "the same with history on",
            ns["hit with history"], noop, 10_000 / AWAIT_NS, "10 us there",
        ),
    ]  # fmt: skip
    notes = [f"{data['rounds']} rounds; what a round came to is the median of its calls."]
    return Section(title, bars, notes=notes)


def _times(data: Any) -> dict[str, Timed]:
    """What a benchmark timed, by name."""
    return msgspec.convert(data["ns"], dict[str, Timed])


def _sharing(title: str, data: Any) -> Section:
    count = data["processes"]
    bars = [
        at_most(f"computations for {count} processes of one {what}", number, 1, counted)
        for what, number in (
            ("state directory", data["computations"]["disk"]),
            ("shared tier", data["computations"]["redis"]),
        )
    ]
    found = data["found"]
    way = Bar(
        "where a result of another machine is found, asked twice",
        ", then ".join(found), "", "", "cold, then hot", found == ["cold", "hot"],
    )  # fmt: skip
    return Section(title, [*bars, way], notes=[f"The most of {data['rounds']} rounds."])


def _hit_ratio(title: str, data: Any) -> Section:
    cells, means = data["cells"], data["means"]
    default = "auto"

    def share(cell: Any, policy: str) -> float:
        return 100 * cell["ratio"][policy] / cell["best"] if cell["best"] else 100.0

    every = fmean(share(cell, default) for cell in cells)
    worst = min(100 * (cell["ratio"][default] - cell["ratio"]["lru"]) for cell in cells)
    bars = [
        at_least(f"mean share of the optimum, all {len(cells)} cells", every, 77, percent),
        at_least("the same without cells of under 100 entries", means["all"][default], 77, percent),
        at_least("the same, cells of agents", means["agents"][default], 69, percent),
        at_least("worst cell over LRU, hit ratio", worst, -5, points),
        *(
            at_most(f"error of the miss-ratio curve, {name}", each["corrected"], 1.5, points)
            for name, each in data["curve_error_means"].items()
        ),
    ]
    policies = list(cells[0]["ratio"])
    rows = [
        [
            cell["trace"],
            counted(cell["capacity"]),
            *(f"{cell['ratio'][name]:.3f}" for name in policies),
            f"{cell['best']:.3f}",
            f"{share(cell, default):.0f}",
        ]
        for cell in cells
    ]
    columns = ["trace", "entries", *policies, "Belady", "auto, % of it"]
    mean_rows = [
        [group, *(percent(each[name]) for name in policies)] for group, each in means.items()
    ]
    curves = [
        [name, points(each["corrected"]), points(each["uncorrected"])]
        for name, each in data["curve_error_means"].items()
    ]
    costs = [[name, time(cost)] for name, cost in data["cost_ns"].items()]
    tables = [
        Table(["mean share of the optimum", *policies], mean_rows),
        Table(["curve from a sample of", "error", "without the correction"], curves),
        Table(["an access in the simulation, one put a miss", "takes"], costs),
        Table(columns, rows),
    ]
    notes = [
        "`auto` is the default of the runtime; `lru` is what `LRUCache` means.",
        (
            f"The cells are not the 57 that the bar of 77 % was set on, where LRU reached 66.2 %: here "
            f"LRU reaches {fmean(share(cell, 'lru') for cell in cells):.1f} %."
        ),
    ]
    return Section(title, bars, tables, notes)


def _disk(title: str, data: Any) -> Section:
    ns, read, write = _times(data), "bare SQLite read", "bare SQLite write"
    put = 8 / _WRITE_US
    bars = [
        beside("get, decoded", ns["get, decoded"], read, 6.5 / _READ_US, "6.5 us there"),
        beside(
            "put of a known key, written", ns["put, known key, written"], write, put, "8 us there"
        ),
        beside("put of a new key, written", ns["put, new key, written"], write, put, "8 us there"),
        beside(
            "warm start, an entry",
            ns["warm start, rows, decoded"], read, 10 / _READ_US, "100,000 in 1 s there",
        ),
    ]  # fmt: skip
    rows = [[name, time(timed.median), f"{timed.ratio:.2f}"] for name, timed in ns.items()]
    notes = ["Reads are made on the event loop; puts are timed until they are in the file."]
    return Section(title, bars, [Table(["operation, 843 bytes", "takes", "x limit"], rows)], notes)


def _redis(title: str, data: Any) -> Section:
    ns, delay = _times(data), data["invalidation_us"]
    bars = [
        beside("cold hit", ns["tier get beside client get"], "the client's GET", 1.15),
        beside(
            "32 reads at once",
            ns["tier 32 beside client MGET 32"], "one MGET of the client", 200 / _MGET_US, "200 us there",
        ),
        at_most("a removal seen by another process, p99", 1e3 * delay["p99"], 1e6, time),
    ]  # fmt: skip
    rows = [[name, time(timed.median), f"{timed.ratio:.2f}"] for name, timed in ns.items()]
    rows += [
        [f"a removal seen by another process, {name}", time(1e3 * delay[name]), ""]
        for name in ("min", "p50", "p99")
    ]
    notes = ["The last bar is absolute; it is judged as it is, on a machine that others load."]
    return Section(
        title, bars, [Table(["operation beside its limit", "takes", "x limit"], rows)], notes
    )


def _generations(title: str, data: Any) -> Section:
    bars = [beside(MANY, _times(data)[MANY], FEW.removeprefix(LIMIT), 2, "O(1)")]
    notes = ["A thousand times as many may cost twice as much: memory is not all equally near."]
    return Section(title, bars, notes=notes)


def _tool_results(title: str, data: Any) -> Section:
    bars: list[Bar] = []
    rows: list[list[str]] = []
    rule = "start state, writes"
    for name, least in (("tau_airline", 51.0), ("bfcl_full", 49.0), ("bfcl_200_replayed", None)):
        if name not in data:
            continue
        ours = data[name]["rules"][rule]
        bars.append(at_most(f"wrong answers, {name}", ours["wrong"], 0, counted))
        if least is not None:
            rate = 100 * ours["hit_rate"]
            bars.append(at_least(f"hits of reads, {name}", rate, least, percent))
    for name, each in data.items():
        for how, said in each["rules"].items():
            rows.append(
                [
                    name, how, counted(said["reads"]), percent(100 * said["hit_rate"]),
                    counted(said["wrong"]), percent(100 * said["wrong"] / max(said["hits"], 1)),
                    counted(said["unproven"]), f"{said['us_per_call']:.0f} us",
                ]
            )  # fmt: skip
    columns = ["set", "keyed by", "reads", "hits", "wrong", "of hits", "unproven", "a call"]
    notes = [
        (
            f"Judged is the rule `{rule}`. Unproven hits are of recorded results that are another "
            "call's, and prove nothing."
        ),
    ]
    if "bfcl_full" not in data:
        notes.append(
            "The bar of 49 % hits is **not measured**: it is of the whole of BFCL multi-turn, which is "
            "not here. Its 200 conversations begin in different states and share nothing; replayed, "
            "they show wrong answers, and a hit rate that says only how often they were replayed."
        )
    return Section(title, bars, [Table(columns, rows)], notes)


def write(results: Results, command: str, path: Path = REPORT) -> list[Section]:
    """Writes the report and, beside it, the figures it was made of."""
    parts = sections(results)
    verdicts.write(TITLE, results, parts, command, path)
    return parts
