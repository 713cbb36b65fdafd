"""What recording a call costs, beside the least it could cost and beside sorting on every update.

`python -m bench.metrics` prints it.
"""

import bisect
import gc
import random
import time
from collections.abc import Callable

from paceline.call import Call, Caller, Kind, Outcome, Plan, Scope, ScopeLevel, Source
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.sketch import Sketch

__all__ = ["main", "run"]

_ROUNDS = 7
_CALLS = 20_000


def run() -> dict[str, object]:
    """Nanoseconds a record (best of several rounds), by what is done."""
    rng = random.Random(1)
    times = [int(rng.lognormvariate(15, 1.5)) for _ in range(_CALLS)]
    return {
        "unit": "ns per record, best of rounds",
        "counter and list append": _counter_and_append(times),
        "sketch add": _best(times, lambda: Sketch().add),
        "sorted list insert": _best(times, _sorted_list),
        "sort on every update, at 1,000": _sort_always(times[:1_000]),
        "collector observe, executed": _observe(times, Source.EXECUTED),
        "collector observe, hit": _observe(times, Source.HOT),
    }


def main() -> None:
    """Prints the figures."""
    for what, figure in run().items():
        print(f"{what:32} {figure:>12,}" if isinstance(figure, int) else f"{what:32} {figure}")


def _best(times: list[int], make: Callable[[], Callable[[int], None]]) -> int:
    """The fastest round, each on a fresh recorder, without what the loop itself takes."""
    rounds: list[float] = []
    gc.disable()
    try:
        for _ in range(_ROUNDS):
            record = make()
            start = time.perf_counter_ns()
            for value in times:
                record(value)
            middle = time.perf_counter_ns()
            for _value in times:
                pass
            rounds.append(2 * middle - start - time.perf_counter_ns())
    finally:
        gc.enable()
    return round(min(rounds) / len(times))


def _counter_and_append(times: list[int]) -> int:
    def make() -> Callable[[int], None]:
        count, kept = 0, list[int]()

        def record(value: int) -> None:
            nonlocal count
            count += 1
            kept.append(value)

        return record

    return _best(times, make)


def _sorted_list() -> Callable[[int], None]:
    kept: list[int] = []
    return lambda value: bisect.insort(kept, value)


def _sort_always(times: list[int]) -> int:
    """Each update appends and sorts all, as naive percentiles do."""
    kept = sorted(times)

    def record(value: int) -> None:
        sorted([*kept, value])

    return _best(times, lambda: record)


def _observe(times: list[int], source: Source) -> int:
    call = Call("1", Kind.AGENT, "a", {}, Caller(), Scope(ScopeLevel.GLOBAL), Plan())
    executed = source is Source.EXECUTED
    outcomes = {
        ns: Outcome("1", "a", source, "x", None, "", 1, 100, ns if executed else 0, ns + 1_000)
        for ns in times
    }

    def make() -> Callable[[int], None]:
        observe = MetricsCollector().observe
        return lambda ns: observe(call, outcomes[ns])

    return _best(times, make)


if __name__ == "__main__":
    main()
