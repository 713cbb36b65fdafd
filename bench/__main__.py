"""`make bench` and `paceline bench`: run benchmarks, print them, keep the figures in bench/results.

A group that is run in full writes its file: `cache`, `metrics`, `balance`, `engine` and `predict` a
report of that name with verdicts, `runtime` the figures `latest.json`. Ratios are shown beside those of the figures
that were kept before.
"""

import importlib
import signal
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from bench import (
    balance_report,
    difference,
    engine_report,
    metrics_report,
    predict_report,
    report,
    verdicts,
)
from bench.peers import ROOT
from bench.verdicts import Results, Section
from paceline.cli.output import FAILED, INTERRUPTED, OK, TERMINATED, line, note, problem, table
from paceline.errors import UsageError

__all__ = ["BENCHMARKS", "GROUPS", "main"]


class Benchmark(NamedTuple):
    """A module of `bench` and what it measures. `quick` are arguments for a first look; None
    leaves it out then."""

    module: str
    says: str
    quick: dict[str, object] | None


_LEAST: Final[dict[str, object]] = {"rounds": 2}
_OWN: Final[dict[str, object]] = {"rounds": 2, "peers": False}
BENCHMARKS: Final = {
    "decorators": Benchmark("decorators", "a cached call beside its peers: time and bytes", _OWN),
    "conformance": Benchmark("conformance", "decorators under the bugs that users report", _OWN),
    "call_path": Benchmark("call_path", "a hit and a miss through the whole runtime", _LEAST),
    "sharing": Benchmark("sharing", "processes that ask for one result at once", {"rounds": 1}),
    "hit_ratio": Benchmark("hit_ratio", "hits on recorded accesses, beside the optimum", None),
    "disk": Benchmark("disk", "the disk tier beside bare SQLite", _LEAST),
    "redis": Benchmark("redis", "the shared tier beside its client and the server", _LEAST),
    "generations": Benchmark("generations", "a write that makes results stale", _LEAST),
    "tool_results": Benchmark("tool_results", "wrong answers on recorded runs of agents", _OWN),
    "tiers": Benchmark("cache", "a hit in each tier, and a key", _LEAST),
    "metrics": Benchmark("metrics", "recording a call beside its peers", _OWN),
    "policies": Benchmark("balance", "strategies beside an oracle, in simulation", {"first": 1}),
    "picks": Benchmark("picks", "choosing an instance, beside a peer", _OWN),
    "resilience": Benchmark("resilience", "what keeping a call alive adds to it", _LEAST),
    "steps": Benchmark("engine", "the engine beside asyncio and its peers", _OWN),
    "predict": Benchmark("predict", "predictions on recorded sessions, and what one costs", None),
    "speculation": Benchmark(
        "speculation", "recorded sessions played with prediction and without", {"sessions": 5}
    ),
    "registry": Benchmark("registry", "looking up and loading agents", {}),
    "import_cost": Benchmark("import_cost", "importing the package", {"rounds": 3}),
}
GROUPS: Final = {
    "cache": (
        "decorators", "conformance", "call_path", "sharing", "hit_ratio", "disk", "redis",
        "generations", "tool_results",
    ),
    "metrics": ("metrics",),
    "balance": ("policies", "picks", "resilience"),
    "engine": ("steps",),
    "predict": ("predict", "speculation"),
    "runtime": ("call_path", "tiers", "metrics", "registry", "import_cost"),
}  # fmt: skip
REPORTS: Final = {
    "cache": report,
    "metrics": metrics_report,
    "balance": balance_report,
    "engine": engine_report,
    "predict": predict_report,
}
LATEST: Final = report.REPORT.with_name("latest.json")


def main(names: list[str], *, quick: bool = False) -> int:
    """Runs those that are named, groups included; lists what there is if none are.

    `quick` is for a first look: few rounds, without peers and what takes minutes; nothing is
    written. Returns 1 if one failed.
    """
    if not names:
        _list()
        return OK
    unknown = [name for name in names if name not in BENCHMARKS and name not in GROUPS]
    if unknown:
        raise UsageError(
            f"there is no benchmark {', '.join(unknown)}",
            next_step=f"Name one of {', '.join([*GROUPS, *BENCHMARKS])}.",
        )
    signal.signal(signal.SIGTERM, _terminated)
    wanted = dict.fromkeys(part for name in names for part in GROUPS.get(name, (name,)))
    results = {name: _run(name, quick=quick) for name in wanted}
    _show(results)
    _show_changes(results)
    if not quick:
        _write(names, results)
    return FAILED if any("error" in figures for figures in results.values()) else OK


def _terminated(*_: object) -> NoReturn:
    """Lets what was started be stopped."""
    sys.exit(TERMINATED)


def _list() -> None:
    rows = [
        [name, BENCHMARKS[name].says if parts == (name,) else "all of: " + ", ".join(parts)]
        for name, parts in GROUPS.items()
    ]
    rows += [[name, benchmark.says] for name, benchmark in BENCHMARKS.items() if name not in GROUPS]
    table(["benchmark", "what is measured"], rows, whole=["benchmark"])
    line("run them: paceline bench cache, paceline bench disk redis --quick")


def _run(name: str, *, quick: bool) -> dict[str, Any]:
    """Its figures, or the error that it ended with."""
    benchmark = BENCHMARKS[name]
    if quick and benchmark.quick is None:
        return {"absent": "it takes minutes, and is left out by --quick"}
    note(f"{name}: {benchmark.says} ...")
    try:
        module = importlib.import_module(f"bench.{benchmark.module}")
        figures = module.run(**(benchmark.quick or {}) if quick else {})
    except Exception as exc:  # noqa: BLE001 (the others are to run; it is shown, and in the report)
        figures = {"error": f"{type(exc).__name__}: {exc}"}
    figures = _anywhere(figures)
    if "error" in figures:
        note(f"{name} failed: {figures['error']}")
    return figures


def _anywhere(figures: dict[str, object]) -> dict[str, Any]:
    """As plain data, in which paths do not tell where this checkout is."""
    text = msgspec.json.encode(figures)
    for place, shown in ((ROOT, b"."), (ROOT.parent, b"..")):
        if place.name:  # else it is the root of the system, in every path
            text = text.replace(bytes(place), shown)
    return msgspec.json.decode(text)  # type: ignore[no-any-return]


def _show(results: dict[str, dict[str, Any]]) -> None:
    parts = [part for each in REPORTS.values() for part in each.sections(results, only_run=True)]
    for part in parts:
        _show_part(part)
    for name, figures in results.items():
        if not any(name in GROUPS[group] for group in REPORTS):
            line(f"\n{name}")
            line(msgspec.json.format(msgspec.json.encode(figures)).decode())
    bars, missed = sum(len(part.bars) for part in parts), verdicts.missed(parts)
    if bars:
        line(f"\n{bars - len(missed)} of {bars} bars met. {verdicts.JUDGED}")


def _show_changes(results: dict[str, dict[str, Any]]) -> None:
    """What is kept of the same benchmarks, beside what they came to now."""
    for file in _kept_in(results):
        try:
            kept = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
            both = {name: figures for name, figures in results.items() if name in kept}
            old = _ratios({name: kept[name] for name in both})
        except (msgspec.DecodeError, LookupError, TypeError) as exc:  # of other benchmarks
            note(f"{file.name} cannot be compared with: {type(exc).__name__}: {exc}")
            continue
        found = difference.as_table(difference.changes(old, _ratios(both)))
        if found.rows:
            line(f"\nbeside {file.name} ({kept.get('machine', 'of an unknown machine')})")
            table(found.columns, found.rows)


def _kept_in(results: dict[str, dict[str, Any]]) -> list[Path]:
    """The files of the groups that these benchmarks are of."""
    files = {name: each.REPORT.with_suffix(".json") for name, each in REPORTS.items()}
    files["runtime"] = LATEST
    return [
        file
        for group, file in files.items()
        if not results.keys().isdisjoint(GROUPS[group]) and file.exists()
    ]


def _ratios(results: Results) -> dict[str, float]:
    parts = [part for each in REPORTS.values() for part in each.sections(results, only_run=True)]
    return difference.ratios(parts, results)


def _show_part(part: Section) -> None:
    line(f"\n{part.title}")
    if part.bars:
        rows = [[cell.replace("*", "") for cell in bar.row()] for bar in part.bars]
        table(verdicts.BAR_COLUMNS, rows)
    for text in part.notes:
        line(text)
    for each in part.tables:
        line()
        table(each.columns, each.rows)


def _write(names: list[str], results: dict[str, dict[str, Any]]) -> None:
    """What the groups that were run in full leave behind."""
    for group, each in REPORTS.items():
        if group in names:
            kept = {name: results[name] for name in GROUPS[group]}
            each.write(kept, f"paceline bench {group}")
            line(f"written to bench/results/{each.REPORT.name}")
    if "runtime" in names:
        latest: dict[str, object] = {name: results[name] for name in GROUPS["runtime"]}
        latest["machine"] = verdicts.machine()
        content = msgspec.json.format(msgspec.json.encode(latest, order="sorted"))
        LATEST.write_bytes(content + b"\n")
        line(f"written to bench/results/{LATEST.name}")


def _command_line(arguments: list[str]) -> int:
    names = [argument for argument in arguments if argument != "--quick"]
    try:
        return main(names or list(GROUPS), quick="--quick" in arguments)
    except UsageError as exc:
        problem(exc)
        return 2
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(_command_line(sys.argv[1:]))
