"""What recording a call costs: ours, its peers, and the least that the machine allows.

Each case runs right after its limit in every round, so that a busy machine slows both alike. Peers
run in their own environment, see `bench/peers.py`. `python -m bench.metrics` prints the figures.
"""

import gc
import importlib
import math
import random
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from time import thread_time_ns
from typing import Any, Final

import msgspec

from bench.peers import ROOT, peer_python
from bench.recorders import APPEND, CELL, CELL_APART, OWN, PEERS, SKETCH, SORTED, Recorder
from bench.timing import Case, Timed, measure
from paceline.call import Call, Caller, Kind, Outcome, Plan, Scope, ScopeLevel, Source
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Ending
from paceline.metrics.live import LiveSeries
from paceline.metrics.performance import track_performance
from paceline.testing.virtual_time import VirtualClock

__all__ = ["AWAIT", "BUSY", "OBSERVE", "SAMPLES", "TRACKED", "Figures", "main", "run"]

ROUNDS: Final = 15
AWAIT: Final = "limit: await of a no-op"
OBSERVE: Final = "paceline: a call of the runtime"
TRACKED: Final = "paceline: @track_performance"
BUSY: Final = "series of a day, 4 calls a second, two ways to end"
SAMPLES: Final = (1_000, 50_000, 1_000_000)

_TURN: Final = 2_000
_SORTED_TURN: Final = {1_000: 20, 50_000: 1}  # not at a million: one would take a second
_ERROR_VALUES: Final = 100_000
_MERGED: Final = 20_000
_QUANTILES: Final = (0.5, 0.95, 0.99, 0.999)
_THREADED: Final = 160_000
_WEIGHED: Final = 100
_WEIGHED_VALUES: Final = 5_000
_TIMEOUT_S: Final = 1_200


class Figures(msgspec.Struct):
    """By candidate: what a record takes by how many samples there are, worst relative error,
    bytes of one with 5,000 values, microseconds a merge; `tracked` is what a tracked call of
    a no-op takes in all. Limits are an `await` of a no-op."""

    rounds: int
    record: dict[str, dict[str, Timed]]
    worst_error: dict[str, float]
    merge_us: dict[str, float]
    tracked: dict[str, Timed]
    threads: dict[str, float]
    """Throughput of 8 threads over that of one."""
    own_bytes: dict[str, float]
    bytes: dict[str, float]
    failed: dict[str, str]


def _values(count: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [int(rng.lognormvariate(17, 1.5)) for _ in range(count)]


def _tails(count: int) -> Iterable[list[int]]:
    """Of calls, with heavy tails: lognormal, Pareto, and fast hits beside slow models."""
    yield _values(count)
    rng = random.Random(2)
    yield [int(1e6 * rng.paretovariate(1.2)) for _ in range(count)]
    yield [
        int(rng.gauss(2e5, 2e4) if rng.random() < 0.7 else rng.lognormvariate(21.5, 0.6))
        for _ in range(count)
    ]


# --- records


def _turn(record: Callable[[int], object], values: Sequence[int]) -> Callable[[], None]:
    def work() -> None:
        for value in values:
            record(value)

    return work


def _await_case() -> Case:
    async def work() -> None:
        for _ in range(_TURN):
            await _noop()

    return AWAIT, lambda: _drive(work()), _TURN


async def _noop() -> None: ...


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs what never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("a no-op waited")


def _loop() -> None:
    for _ in range(_TURN):
        pass


def _record_costs(
    makers: dict[str, Callable[[], Recorder]], rounds: int, failed: dict[str, str]
) -> dict[str, dict[str, Timed]]:
    """By candidate, with so many values recorded before; without the loop itself."""
    cases = [_await_case()]
    for samples in SAMPLES:
        cases.append((f"{samples} {OBSERVE}", _observe(samples), _TURN))
        for name, make in makers.items():
            try:
                turn = _filled(name, make, samples)
            except Exception as exc:  # noqa: BLE001 (a peer that fails is told of, the others run)
                failed[name] = f"{type(exc).__name__}: {exc}"
                continue
            if turn is not None:
                cases.append((f"{samples} {name}", *turn))
    times = measure(cases, rounds, empty=("a loop", _loop, _TURN), clock=thread_time_ns)
    costs = {AWAIT: dict.fromkeys(map(str, SAMPLES), times.pop(AWAIT))}
    for case, timed in times.items():
        count, _, name = case.partition(" ")
        costs.setdefault(name, {})[count] = timed
    return costs


def _filled(
    name: str, make: Callable[[], Recorder], samples: int
) -> tuple[Callable[[], None], int] | None:
    """What a turn runs, and how many records that is; None if it would take minutes."""
    values = _values(_TURN, 3)
    recorder = make()
    fill = recorder.record
    if name == SORTED:
        if samples not in _SORTED_TURN:
            return None
        fill, values = recorder.state.append, values[: _SORTED_TURN[samples]]
    for value in _values(samples):
        fill(value)
    return _turn(recorder.record, values), len(values)


def _observe(samples: int) -> Callable[[], None]:
    call = Call("1", Kind.AGENT, "a", {}, Caller(), Scope(ScopeLevel.GLOBAL), Plan())
    outcomes = [
        Outcome("1", "a", Source.EXECUTED, "x", attempts=1, execute_ns=ns, total_ns=ns + 900)
        for ns in _values(_TURN, 3)
    ]
    observe = MetricsCollector().observe

    def work() -> None:
        for outcome in outcomes:
            observe(call, outcome)

    for _ in range(samples // _TURN):
        work()
    return work


# --- errors, merging, threads


def _worst_error(make: Callable[[], Recorder]) -> float:
    """The worst relative error of a quantile, over three distributions."""
    worst = 0.0
    for values in _tails(_ERROR_VALUES):
        recorder = make()
        for value in values:
            recorder.record(value)
        ordered = sorted(values)
        for q in _QUANTILES:
            exact = ordered[math.ceil(q * len(ordered)) - 1]
            assert recorder.quantile is not None
            found = recorder.quantile(q)
            worst = max(worst, math.inf if found is None else abs(found - exact) / exact)
    return worst


def _merge_case(name: str, make: Callable[[], Recorder]) -> Case:
    one, other = make(), make()
    for recorder, seed in ((one, 5), (other, 6)):
        for value in _values(_MERGED, seed):
            recorder.record(value)
    assert one.merge is not None
    merge, theirs = one.merge, other.state
    return name, lambda: merge(theirs), 1


def _throughput(make: Callable[[], Recorder], threads: int) -> float:
    """Records a second, of all threads together."""
    recorder, values = make(), _values(_TURN)
    turns = _THREADED // threads // _TURN

    def work() -> None:
        for _ in range(turns):
            for value in values:
                recorder.record(value)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * turns * _TURN / (time.perf_counter() - start)


def _thread_share(make: Callable[[], Recorder], rounds: int) -> float:
    """Throughput of 8 threads over that of one, in the middle of the rounds."""
    return statistics.median([_throughput(make, 8) / _throughput(make, 1) for _ in range(rounds)])


# --- tracked calls


Function = Callable[[], Coroutine[Any, Any, None]]


def _tracked_by_us() -> Function:
    async def work() -> None: ...

    return track_performance("a", MetricsCollector())(work)


def _tracked_by_prometheus() -> Function:
    client = importlib.import_module("prometheus_client")
    histogram = client.Histogram("t", "t", registry=client.CollectorRegistry())

    async def call() -> None:
        with histogram.time():
            await _noop()

    return call


def _tracked_by_spans() -> Function:
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    tracer = sdk.TracerProvider().get_tracer("bench")

    async def call() -> None:
        with tracer.start_as_current_span("a"):
            await _noop()

    return call


_TRACKED: Final = {
    "prometheus-client, Histogram.time": _tracked_by_prometheus,
    "OpenTelemetry SDK, span without exporter": _tracked_by_spans,
}


def _tracked_case(name: str, function: Function) -> Case:
    async def work() -> None:
        for _ in range(_TURN):
            await function()

    return name, lambda: _drive(work()), _TURN


# --- bytes


def _weight(name: str) -> float:
    """What each of many recorders takes: of ours what Python traces, else what the process grows
    by, since not all peers tell Python what they allocate."""
    make = {**OWN, **PEERS}[name]
    values = _values(_WEIGHED_VALUES)
    if name in OWN:
        tracemalloc.start()
    weigh = _traced if name in OWN else _resident
    kept = [make()]
    before = weigh()
    for _ in range(_WEIGHED):
        recorder = make()
        for value in values:
            recorder.record(value)
        kept.append(recorder)
    gc.collect()
    return round((weigh() - before) / _WEIGHED)


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * 4096


def _traced() -> int:
    return tracemalloc.get_traced_memory()[0]


def _own_bytes() -> dict[str, float]:
    """What Python traces of ours: an idle series, a sketch, and a series busy for a day."""
    found: dict[str, float] = {}

    def weigh(what: str, make: Callable[[], object]) -> None:
        gc.collect()
        before = _traced()
        kept = make()
        gc.collect()
        found[what] = _traced() - before
        del kept

    tracemalloc.start()
    weigh("sketch of a million values at full range", lambda: _full_sketch(1_000_000))
    weigh("series of one call", lambda: _series(1, 1))
    weigh(BUSY, lambda: _series(10, 100_800))
    tracemalloc.stop()
    return found


def _full_sketch(count: int) -> object:
    sketch = OWN[SKETCH]().state
    value = 1.0
    while value < 2**60:
        sketch.add(value)
        value *= 1.01
    for _ in range(count // 1_000):
        sketch.add_all([5.0] * 1_000)
    return sketch


def _series(calls: int, seconds: int) -> object:
    """A series with so many calls every five seconds, and then as many hits; all added up."""
    clock, rng = VirtualClock(), random.Random(1)
    series = LiveSeries("a", Kind.AGENT, {}, clock, clock.monotonic_ns())
    for _ in range(0, seconds, 5):
        now_ns = clock.monotonic_ns()
        for source in (Source.EXECUTED, Source.HOT)[: 2 if calls > 1 else 1]:
            cell = series.cell(source, None, Ending.SUCCESS)
            for _ in range(calls):
                ns = int(rng.lognormvariate(17, 1.5))
                cell.note(now_ns, ns + 900, ns, 0, 0)
        clock.advance(5)
    series.read()
    return series


# --- all of it


def _measure(rounds: int, *, peers: bool) -> Figures:
    makers = {**OWN, **(PEERS if peers else {})}
    failed: dict[str, str] = {}
    tracked = {TRACKED: _tracked_by_us, **(_TRACKED if peers else {})}
    tracked_cases = [_tracked_case(name, make()) for name, make in tracked.items()]
    cases = [_tracked_case(AWAIT, _noop), *tracked_cases]
    times = measure(cases, 4 * rounds, clock=thread_time_ns)
    del times[AWAIT]
    record = _record_costs(makers, rounds, failed)
    sketches = {
        name: make
        for name, make in makers.items()
        if name not in (APPEND, CELL_APART, SORTED, *failed)
    }
    merging = [
        _merge_case(name, make) for name, make in sketches.items() if make().merge is not None
    ]
    threaded = [CELL, *[name for name in PEERS if name.startswith("prometheus") and peers]]
    return Figures(
        rounds,
        record,
        {name: _worst_error(make) for name, make in sketches.items()},
        {name: timed.median / 1e3 for name, timed in measure(merging, rounds).items()},
        times,
        {name: _thread_share(makers[name], rounds) for name in threaded},
        _own_bytes(),
        {},
        failed,
    )


def run(rounds: int = ROUNDS, *, peers: bool = True) -> dict[str, object]:
    """See `Figures`. Without `peers` everything runs in this environment."""
    python = str(peer_python()) if peers else sys.executable
    told = _told(python, "--all" if peers else "--own", str(rounds))
    figures = msgspec.json.decode(told, type=Figures)
    for name in (CELL, SKETCH, *(PEERS if peers else ())):
        if name not in figures.failed:
            figures.bytes[name] = float(_told(python, "--bytes", name))
    return msgspec.to_builtins(figures)  # type: ignore[no-any-return]


def _told(python: str, *arguments: str) -> bytes:
    """What this module says in a process of its own."""
    done = subprocess.run(
        [python, "-m", "bench.metrics", *arguments],
        cwd=ROOT, capture_output=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the benchmark of records failed: {' '.join(last)[:200]}")
    return done.stdout.splitlines()[-1]


def main(arguments: list[str]) -> None:
    """Prints the figures; with arguments, what `run` asks of a process of its own."""
    match arguments:
        case ["--all" | "--own" as who, rounds]:
            print(msgspec.json.encode(_measure(int(rounds), peers=who == "--all")).decode())
        case ["--bytes", name]:
            print(_weight(name))
        case _:
            print(msgspec.json.format(msgspec.json.encode(run())).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
