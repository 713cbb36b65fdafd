"""What a cached call costs: ours, its peers, and the least that the machine allows.

Each candidate runs once a round, in an order that is shuffled anew each round, right after the limit
that it is judged by, so that a busy machine slows both alike: a hit of `lru_cache`, an `await` of a
no-op, or without a decorator `dict.get`. Loops of one thread are timed by that thread's processor time, loops of
four by the wall clock. Hits are of 10,000 resident texts at random, and of one text over and
over; misses are of texts never asked before, with 1,000 kept. What an entry takes is measured
in processes of their own: by what the process grows, since not all peers tell Python what they
allocate, and of ours and the limits also as Python traces it. Peers run in their own environment, see `bench/peers.py`.
"""

import asyncio
import functools
import gc
import importlib
import itertools
import random
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from time import monotonic_ns, perf_counter_ns, thread_time_ns
from typing import Any, Final, NamedTuple

import msgspec

from bench.peers import ROOT, peer_python
from bench.timing import Timed

__all__ = ["ASYNC_LIMIT", "OURS", "SCOPED", "SYNC_LIMIT", "Cost", "Figures", "main", "run"]

ROUNDS: Final = 9
OURS: Final = "paceline"
SCOPED: Final = "paceline, with a scope"
SYNC_LIMIT: Final = "limit: functools.lru_cache"
ASYNC_LIMIT: Final = "limit: await of a no-op"

_CALL: Final = "limit: plain call"
_TASK: Final = "limit: a task and a shield"
_KEEP_NOTHING: Final = (_CALL, ASYNC_LIMIT, _TASK)
_RESIDENT: Final = 10_000
_KEPT: Final = 1_000
_TTL_S: Final = 300
_THREADS: Final = 4
_TURN_NS: Final = 8_000_000
_OPERATIONS: Final = range(100, 100_000)
_ASKED_RAW: Final = 20_000
_ASKED_BY_THREADS: Final = 40_000
_RAW_LIMIT: Final = ("limit: dict.get", "raw")
_RAW_GETS: Final = ("limit: dict.get", "limit: dict.get, a lifetime", "LRUCache.get")
_TRACED: Final = 20_000
_GROWN: Final = 50_000
_TIMEOUT_S: Final = 600
_user: ContextVar[str] = ContextVar("user", default="ada")

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]


class Cost(msgspec.Struct):
    """What a call takes, beside the limit, and bytes an entry.

    `traced` is what Python allocated, `grown` what the process grew by.
    """

    hit: Timed | None = None
    one_key: Timed | None = None
    threads: Timed | None = None
    miss: Timed | None = None
    traced: float | None = None
    grown: float | None = None


class Figures(msgspec.Struct):
    """By decorator; `raw` is of methods, without a decorator. `failed` says what went wrong."""

    rounds: int
    sync: dict[str, Cost]
    asynchronous: dict[str, Cost]
    raw: dict[str, Timed]
    failed: dict[str, str]


class Candidate(NamedTuple):
    """A decorator, made for a capacity, and the kinds of functions it is for."""

    kinds: str
    make: Callable[[int], Decorator]


# --- who takes part


def _plain(_: int) -> Decorator:
    return lambda function: function


def _by_hand(_: int) -> Decorator:
    """A wrapper and a dictionary, which grows for ever."""

    def decorate(function: Function) -> Function:
        kept: dict[object, object] = {}

        def call(*args: object, **kwargs: object) -> object:
            key = (args, tuple(kwargs.items())) if kwargs else args
            try:
                return kept[key]
            except KeyError:
                value = kept[key] = function(*args, **kwargs)
                return value

        return call

    return decorate


def _by_hand_async(_: int) -> Decorator:
    def decorate(function: Function) -> Function:
        kept: dict[object, object] = {}

        async def call(*args: object, **kwargs: object) -> object:
            key = (args, tuple(kwargs.items())) if kwargs else args
            try:
                return kept[key]
            except KeyError:
                value = kept[key] = await function(*args, **kwargs)
                return value

        return call

    return decorate


def _shielded(_: int) -> Decorator:
    """What a computation that outlives its caller needs at the least: a task of its own."""

    def decorate(function: Function) -> Function:
        async def call(text: str) -> object:
            return await asyncio.shield(asyncio.create_task(function(text)))

        return call

    return decorate


def _ours(size: int, policy: str = "lru", **options: Any) -> Decorator:
    from paceline import LRUCache, cached  # noqa: PLC0415 (as users of each library would)

    return cached(LRUCache(size, _TTL_S, policy=policy), **{"tags": ("bench",), **options})


def _cachetools(size: int) -> Decorator:
    peer = importlib.import_module("cachetools")
    return peer.cached(peer.LRUCache(size), lock=threading.RLock())  # type: ignore[no-any-return]


def _cachetools_single(size: int) -> Decorator:
    peer = importlib.import_module("cachetools")
    cache = peer.TTLCache(size, _TTL_S)
    return peer.cached(cache, condition=threading.Condition())  # type: ignore[no-any-return]


def _cachetools_async(size: int) -> Decorator:
    peer = importlib.import_module("cachetools_async")
    cache = importlib.import_module("cachetools").LRUCache(size)
    return peer.cached(cache)  # type: ignore[no-any-return]


def _cachebox(size: int) -> Decorator:
    peer = importlib.import_module("cachebox")
    return peer.cached(peer.LRUCache(size))  # type: ignore[no-any-return]


def _async_lru(size: int) -> Decorator:
    peer = importlib.import_module("async_lru")
    return peer.alru_cache(maxsize=size, ttl=_TTL_S)  # type: ignore[no-any-return]


def _theine(size: int) -> Decorator:
    peer = importlib.import_module("theine")
    return peer.Memoize(size, timedelta(seconds=_TTL_S))  # type: ignore[no-any-return]


def _moka(size: int, *, wait: bool = False) -> Decorator:
    peer = importlib.import_module("moka_py")
    return peer.cached(maxsize=size, ttl=_TTL_S, wait_concurrent=wait)  # type: ignore[no-any-return]


def _warp(size: int) -> Decorator:
    peer = importlib.import_module("warp_cache")
    return peer.cache(max_size=size, ttl=_TTL_S)  # type: ignore[no-any-return]


_names = itertools.count()


def _aiocache(_: int) -> Decorator:
    peer = importlib.import_module("aiocache")
    return peer.cached(ttl=_TTL_S, namespace=f"bench{next(_names)}:")  # type: ignore[no-any-return]


def _cashews(size: int) -> Decorator:
    cache = importlib.import_module("cashews").Cache()
    cache.setup("mem://", size=size)
    return cache(ttl=timedelta(seconds=_TTL_S))  # type: ignore[no-any-return]


LIMITS: Final[dict[str, Candidate]] = {
    _CALL: Candidate("sync", _plain),
    SYNC_LIMIT: Candidate("sync", functools.lru_cache),
    "limit: wrapper and dict by hand": Candidate("sync", _by_hand),
    ASYNC_LIMIT: Candidate("async", _plain),
    "limit: async wrapper and dict by hand": Candidate("async", _by_hand_async),
    _TASK: Candidate("async", _shielded),
}
OWN: Final[dict[str, Candidate]] = {
    OURS: Candidate("sync async", _ours),
    SCOPED: Candidate("sync async", lambda size: _ours(size, scope=_user.get)),
    "paceline, without tags": Candidate("sync async", lambda size: _ours(size, tags=())),
    "paceline, policy auto": Candidate("sync async", lambda size: _ours(size, policy="auto")),
}
PEERS: Final[dict[str, Candidate]] = {
    "cachetools, with a lock": Candidate("sync", _cachetools),
    "cachetools, TTL and a condition": Candidate("sync", _cachetools_single),
    "cachetools-async": Candidate("async", _cachetools_async),
    "cachebox": Candidate("sync async", _cachebox),
    "async-lru": Candidate("async", _async_lru),
    "theine": Candidate("sync async", _theine),
    "moka-py": Candidate("sync async", _moka),
    "moka-py, wait_concurrent": Candidate("sync async", lambda size: _moka(size, wait=True)),
    "warp-cache": Candidate("sync async", _warp),
    "aiocache": Candidate("async", _aiocache),
    "cashews": Candidate("async", _cashews),
}


# --- what is timed


class Case(NamedTuple):
    """What is timed of whom: `turn(n)` gets n calls ready, which `run` makes."""

    name: str
    what: str
    ready: Callable[[int], Callable[[], Any]]


def _sync_function() -> Function:
    def work(text: str) -> str:
        return text

    return work


def _async_function() -> Function:
    async def work(text: str) -> str:
        return text

    return work


def _asked(rng: random.Random) -> list[str]:
    texts = [f"text {number}" for number in range(_RESIDENT)]
    return rng.choices(texts, k=_OPERATIONS.stop)


def _sync_cases(name: str, candidate: Candidate, asked: list[str]) -> Iterator[Case]:
    function = candidate.make(2 * _RESIDENT)(_sync_function())
    small = candidate.make(_KEPT)(_sync_function())
    numbers = itertools.count()

    def over(texts: list[str], of: Function) -> Callable[[], None]:
        def calls() -> None:
            for text in texts:
                of(text)

        return calls

    for text in asked:
        function(text)
    for _ in range(2 * _KEPT):
        small(f"new {next(numbers)}")
    yield Case(name, "hit", lambda n: over(asked[:n], function))
    yield Case(name, "one_key", lambda n: over(asked[:1] * n, function))
    yield Case(name, "threads", lambda n: _in_threads(over(asked[: n // _THREADS], function)))
    yield Case(name, "miss", lambda n: over([f"new {next(numbers)}" for _ in range(n)], small))


def _in_threads(calls: Callable[[], None]) -> Callable[[], None]:
    def start() -> None:
        threads = [threading.Thread(target=calls) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return start


async def _async_cases(name: str, candidate: Candidate, asked: list[str]) -> list[Case]:
    function = candidate.make(2 * _RESIDENT)(_async_function())
    small = candidate.make(_KEPT)(_async_function())
    numbers = itertools.count()

    def over(texts: list[str], of: Function) -> Callable[[], Awaitable[None]]:
        async def calls() -> None:
            for text in texts:
                await of(text)

        return calls

    await over(asked, function)()
    await over([f"new {next(numbers)}" for _ in range(2 * _KEPT)], small)()
    return [
        Case(name, "hit", lambda n: over(asked[:n], function)),
        Case(name, "one_key", lambda n: over(asked[:1] * n, function)),
        Case(name, "miss", lambda n: over([f"new {next(numbers)}" for _ in range(n)], small)),
    ]


class _Mortal:
    __slots__ = ("ends_ns", "value")

    def __init__(self, value: str, ends_ns: int) -> None:
        self.value = value
        self.ends_ns = ends_ns


def _get_by_hand(asked: list[str]) -> Function:
    """The least that a get with a lifetime takes: no bound, no order of use, no statistics."""
    find = {text: _Mortal("value", monotonic_ns() + _TTL_S * 10**9) for text in asked}.get
    now_ns = monotonic_ns

    def get(key: str, default: str | None = None) -> str | None:
        found = find(key)
        return found.value if found is not None and now_ns() < found.ends_ns else default

    return get


def _raw_cases(asked: list[str]) -> Iterator[Case]:
    from paceline import LRUCache  # noqa: PLC0415

    plain = dict.fromkeys(asked, "value")
    by_hand = _get_by_hand(asked)
    cache = LRUCache(2 * _RESIDENT, _TTL_S)
    for text in asked:
        cache.put(text, "value")
    small = LRUCache(_KEPT, _TTL_S)
    numbers = itertools.count()

    def gets(get: Function, n: int) -> Callable[[], None]:
        texts = asked[:n]

        def calls() -> None:
            for text in texts:
                get(text)

        return calls

    def puts(n: int) -> Callable[[], None]:
        texts = [f"new {next(numbers)}" for _ in range(n)]

        def calls() -> None:
            for text in texts:
                small.put(text, "value")

        return calls

    yield Case("limit: dict.get", "raw", lambda n: gets(plain.get, n))
    yield Case("limit: dict.get, a lifetime", "raw", lambda n: gets(by_hand, n))
    yield Case("LRUCache.get", "raw", lambda n: gets(cache.get, n))
    yield Case("LRUCache.put, full", "raw", puts)


# --- timing


class Times:
    """Times by candidate and case, and who failed."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self.failed: dict[str, str] = {}

    def note(self, case: Case, elapsed: float, limit: float) -> None:
        self._rounds.setdefault((case.name, case.what), []).append((elapsed, limit))

    def fail(self, name: str, kind: str, exc: Exception) -> None:
        self.failed[f"{name} ({kind})"] = f"{type(exc).__name__}: {exc}"[:200]

    def of(self, name: str, what: str) -> Timed | None:
        rounds = self._rounds.get((name, what))
        return Timed.of(rounds) if rounds else None

    def all_of(self, what: str) -> dict[str, Timed]:
        """By name of the candidate."""
        return {name: Timed.of(rounds) for (name, w), rounds in self._rounds.items() if w == what}


def _time_sync(case: Case, operations: int) -> float:
    """Nanoseconds a call."""
    clock = perf_counter_ns if case.what == "threads" else thread_time_ns
    calls = case.ready(operations)
    gc.collect()
    gc.disable()
    start = clock()
    calls()
    elapsed = clock() - start
    gc.enable()
    return elapsed / operations


async def _time_async(case: Case, operations: int) -> float:
    calls = case.ready(operations)
    gc.collect()
    gc.disable()
    start = thread_time_ns()
    await calls()
    elapsed = thread_time_ns() - start
    gc.enable()
    return elapsed / operations


def _operations(estimate_ns: float) -> int:
    """As many as fit into a turn; a multiple of the number of threads."""
    fitting = int(_TURN_NS / max(estimate_ns, 1.0))
    return min(max(fitting, _OPERATIONS.start), _OPERATIONS.stop) // _THREADS * _THREADS


def _measure_sync(candidates: dict[str, Candidate], rounds: int, times: Times) -> None:
    rng = random.Random(1)
    asked = _asked(rng)
    cases = list(_raw_cases(asked))
    for name, candidate in candidates.items():
        try:
            cases += _sync_cases(name, candidate, asked)
        except Exception as exc:  # noqa: BLE001 (whatever a peer raises is what it does)
            times.fail(name, "sync", exc)
    gc.freeze()
    counts = {case[:2]: _operations(_time_sync(case, 400)) for case in cases}
    for name in _RAW_GETS:  # the more often each text is asked for, the nearer its memory is
        counts[name, "raw"] = _ASKED_RAW
    for name in candidates:  # enough that it does not matter how long a thread takes to start
        counts[name, "threads"] = _ASKED_BY_THREADS
    limits = {case[:2]: case for case in cases}
    for _ in range(rounds):
        rng.shuffle(cases)
        for case in cases:
            limit = limits[_RAW_LIMIT if case.what == "raw" else (SYNC_LIMIT, "hit")]
            limit_ns = _time_sync(limit, counts[limit[:2]])
            times.note(case, _time_sync(case, counts[case[:2]]), limit_ns)
    gc.unfreeze()


async def _measure_async(candidates: dict[str, Candidate], rounds: int, times: Times) -> None:
    rng = random.Random(2)
    asked = _asked(rng)
    cases: list[Case] = []
    for name, candidate in candidates.items():
        try:
            cases += await _async_cases(name, candidate, asked)
        except Exception as exc:  # noqa: BLE001 (as above)
            times.fail(name, "async", exc)
    gc.freeze()
    counts = {case[:2]: _operations(await _time_async(case, 400)) for case in cases}
    limit = next(case for case in cases if case[:2] == (ASYNC_LIMIT, "hit"))
    for _ in range(rounds):
        rng.shuffle(cases)
        for case in cases:
            limit_ns = await _time_async(limit, counts[limit[:2]])
            times.note(case, await _time_async(case, counts[case[:2]]), limit_ns)
    gc.unfreeze()


def _measure(candidates: dict[str, Candidate], rounds: int) -> Figures:
    """In this process: all times."""
    shown: dict[str, dict[str, Cost]] = {}
    failed: dict[str, str] = {}
    raw: dict[str, Timed] = {}
    for kind in ("sync", "async"):
        times = Times()
        chosen = {name: each for name, each in candidates.items() if kind in each.kinds.split()}
        if kind == "sync":
            _measure_sync(chosen, rounds, times)
            raw = times.all_of("raw")
        else:
            asyncio.run(_measure_async(chosen, rounds, times))
        shown[kind] = {
            name: Cost(
                hit=times.of(name, "hit"),
                one_key=times.of(name, "one_key"),
                threads=times.of(name, "threads"),
                miss=times.of(name, "miss"),
            )
            for name in chosen
            if times.of(name, "hit") is not None
        }
        failed |= times.failed
    return Figures(rounds, shown["sync"], shown["async"], raw, failed)


# --- bytes an entry


def _fill(kind: str, candidate: Candidate, texts: list[str], measure: Callable[[], int]) -> float:
    """By how much what `measure` tells grows, an entry."""
    decorate = candidate.make(2 * len(texts))

    async def fill_async() -> int:
        function = decorate(_async_function())
        await function("first")
        before = measure()
        for text in texts:
            await function(text)
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        return measure() - before

    def fill() -> int:
        function = decorate(_sync_function())
        function("first")
        before = measure()
        for text in texts:
            function(text)
        gc.collect()
        return measure() - before

    return (fill() if kind == "sync" else asyncio.run(fill_async())) / len(texts)


def _resident() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not say how large a process is")


def _bytes(kind: str, name: str) -> tuple[float | None, float]:
    """Of one candidate, here: traced and grown. Peers, many of which are slow when they are
    traced, are not."""
    candidate = {**LIMITS, **OWN, **PEERS}[name]
    grown = round(_fill(kind, candidate, [f"grown {n}" for n in range(_GROWN)], _resident), 1)
    if name in PEERS:
        return None, grown
    texts = [f"traced {n}" for n in range(_TRACED)]
    tracemalloc.start()
    traced = _fill(kind, candidate, texts, lambda: tracemalloc.get_traced_memory()[0])
    return round(traced, 1), grown


def _weigh(python: str, figures: Figures) -> None:
    jobs = [
        (kind, name, cost)
        for kind, costs in (("sync", figures.sync), ("async", figures.asynchronous))
        for name, cost in costs.items()
        if name not in _KEEP_NOTHING
    ]
    with ThreadPoolExecutor(2) as pool:
        try:
            told = list(pool.map(lambda job: _told(python, "--bytes", *job[:2]), jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for (kind, name, cost), (output, error) in zip(jobs, told, strict=True):
        if error:
            figures.failed[f"{name} ({kind}, bytes)"] = error
        else:
            cost.traced, cost.grown = msgspec.json.decode(output, type=tuple[float | None, float])


def _told(python: str, *arguments: str) -> tuple[bytes, str]:
    """What this module says in a process of its own, or what went wrong there."""
    try:
        done = subprocess.run(
            [python, "-m", "bench.decorators", *arguments],
            cwd=ROOT, capture_output=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return b"", f"no end after {_TIMEOUT_S} s"
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return b"", " ".join(last)[:200] or f"the process ended with {done.returncode}"
    return done.stdout.splitlines()[-1], ""


def run(rounds: int = ROUNDS, *, peers: bool = True) -> dict[str, object]:
    """See `Figures`. Without `peers` everything runs in this environment."""
    python = str(peer_python()) if peers else sys.executable
    output, error = _told(python, "--times", str(rounds), "all" if peers else "own")
    if error:
        raise RuntimeError(f"the benchmark of cached calls failed: {error}")
    figures = msgspec.json.decode(output, type=Figures)
    _weigh(python, figures)
    return msgspec.to_builtins(figures)  # type: ignore[no-any-return]


def main(arguments: list[str]) -> None:
    """Prints the figures; with arguments, what `run` asks of a process of its own."""
    match arguments:
        case ["--times", rounds, who]:
            candidates = {**LIMITS, **OWN, **(PEERS if who == "all" else {})}
            print(msgspec.json.encode(_measure(candidates, int(rounds))).decode())
        case ["--bytes", kind, name]:
            print(msgspec.json.encode(_bytes(kind, name)).decode())
        case _:
            _show(msgspec.convert(run(), Figures))


def _show(figures: Figures) -> None:
    for kind, costs in (("sync", figures.sync), ("async", figures.asynchronous)):
        print(f"{kind:40}" + "".join(f"{name:>10}" for name in Cost.__struct_fields__))
        for name, cost in costs.items():
            values = [value.median if isinstance(value, Timed) else value for value in _each(cost)]
            row = [f"{value:10,.0f}" if value is not None else " " * 10 for value in values]
            print(f"{name:40}" + "".join(row))
    for name, timed in figures.raw.items():
        print(f"{name:40}{timed.median:10,.0f}")
    for name, error in figures.failed.items():
        print(f"failed: {name}: {error}")


def _each(cost: Cost) -> tuple[Any, ...]:
    return msgspec.structs.astuple(cost)


if __name__ == "__main__":
    main(sys.argv[1:])
