"""What caching decorators do under the bugs that users report: ours and its peers.

The checks are those of `paceline.testing`, twelve for async functions and nine for synchronous
ones. They run in an environment of its own (`bench/peers.py`), each in a process of its own, so
that a decorator that hangs costs no more than its check. Peers are set up for one call at a time
where they can be.
"""

import functools
import importlib
import itertools
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from bench.peers import ROOT, peer_python
from paceline.testing.cached_adapter import Adapter
from paceline.testing.cached_async_checks import ASYNC_CHECKS
from paceline.testing.cached_sync_checks import SYNC_CHECKS

__all__ = ["main", "run"]

TIMEOUT_S: Final = 60
PAUSE_S: Final = 0.05
SIZE: Final = 1_000
CHECKS: Final[dict[str, tuple[Callable[[Adapter], None], ...]]] = {
    "async": ASYNC_CHECKS,
    "sync": SYNC_CHECKS,
}
_numbers = itertools.count()


def _ours() -> Adapter:
    from paceline import LRUCache, cached  # noqa: PLC0415 (as users of each library would)

    return Adapter(
        lambda: cached(LRUCache(SIZE, 300)),
        lambda decorated, *args: decorated.invalidate(*args),
    )


def _clearing(decorator: Callable[[], Callable[[Any], Any]]) -> Adapter:
    """A peer that can only forget everything."""
    return Adapter(decorator, lambda decorated, *_: decorated.cache_clear(), PAUSE_S)


def _lru_cache() -> Adapter:
    return _clearing(lambda: functools.lru_cache(SIZE))


def _cachetools() -> Adapter:
    peer = importlib.import_module("cachetools")
    return Adapter(
        lambda: peer.cached(peer.LRUCache(SIZE), condition=threading.Condition()),
        lambda decorated, *args: decorated.cache.pop(decorated.cache_key(*args), None),
        PAUSE_S,
    )


def _cachetools_async() -> Adapter:
    peer = importlib.import_module("cachetools_async")
    tools = importlib.import_module("cachetools")

    def make(function: Callable[..., Any]) -> Any:
        cache = tools.LRUCache(SIZE)
        decorated = peer.cached(cache)(function)
        decorated.forget = lambda *args: cache.pop(tools.keys.hashkey(*args), None)
        return decorated

    def invalidate(decorated: Any, *args: Any) -> None:
        decorated.forget(*args)  # gives the future of the work, which nobody is to wait for

    return Adapter(lambda: make, invalidate, PAUSE_S)


def _cachebox() -> Adapter:
    peer = importlib.import_module("cachebox")
    return Adapter(
        lambda: peer.cached(peer.LRUCache(SIZE)),
        lambda decorated, *_: peer.clear_cached_cache(decorated),
        PAUSE_S,
    )


def _async_lru() -> Adapter:
    peer = importlib.import_module("async_lru")
    return Adapter(
        lambda: peer.alru_cache(maxsize=SIZE),
        lambda decorated, *args: decorated.cache_invalidate(*args),
        PAUSE_S,
    )


def _theine() -> Adapter:
    peer = importlib.import_module("theine")
    return Adapter(
        lambda: peer.Memoize(SIZE, None),
        lambda decorated, *_: decorated._cache.clear(),  # noqa: SLF001 (it offers no other way)
        PAUSE_S,
    )


def _moka(*, wait_concurrent: bool) -> Adapter:
    peer = importlib.import_module("moka_py")
    return _clearing(lambda: peer.cached(maxsize=SIZE, ttl=300, wait_concurrent=wait_concurrent))


def _aiocache(name: str) -> Adapter:
    decorator = getattr(importlib.import_module("aiocache"), name)
    return Adapter(
        lambda: decorator(ttl=300, namespace=f"bench{next(_numbers)}:"),
        lambda decorated, *_: decorated.cache.clear(namespace=decorated.cache.namespace),
        PAUSE_S,
    )


def _cashews(*, lock: bool) -> Adapter:
    peer = importlib.import_module("cashews")

    def make(function: Callable[..., Any]) -> Any:
        cache = peer.Cache()
        cache.setup("mem://")
        decorated = cache(ttl="5m", lock=lock)(function)
        decorated.forget = cache.clear
        return decorated

    return Adapter(lambda: make, lambda decorated, *_: decorated.forget(), PAUSE_S)


def _warp_cache() -> Adapter:
    peer = importlib.import_module("warp_cache")
    return _clearing(lambda: peer.cache(max_size=SIZE, ttl=300))


DECORATORS: Final[Mapping[str, tuple[str, Callable[[], Adapter]]]] = {
    "paceline": ("async sync", _ours),
    "async-lru": ("async", _async_lru),
    "cachetools-async": ("async", _cachetools_async),
    "cachetools, with a condition": ("sync", _cachetools),
    "cachebox": ("async sync", _cachebox),
    "theine": ("async sync", _theine),
    "cashews": ("async", lambda: _cashews(lock=False)),
    "cashews, with a lock": ("async", lambda: _cashews(lock=True)),
    "aiocache.cached": ("async", lambda: _aiocache("cached")),
    "aiocache.cached_stampede": ("async", lambda: _aiocache("cached_stampede")),
    "warp-cache": ("async sync", _warp_cache),
    "moka-py": ("async sync", lambda: _moka(wait_concurrent=False)),
    "moka-py, wait_concurrent": ("async sync", lambda: _moka(wait_concurrent=True)),
    "functools.lru_cache": ("sync", _lru_cache),
}
"""By name: which kinds of functions it is for, and how it is set up."""


def run(rounds: int = 1, *, peers: bool = True) -> dict[str, object]:
    """For both kinds of functions, which checks each decorator passes, and how it fails others.

    With more rounds a check is passed that was passed in each. Without `peers` ours alone is
    checked, in this environment.
    """
    python = str(peer_python()) if peers else sys.executable
    jobs = [
        (kind, name, check.__name__)
        for kind, checks in CHECKS.items()
        for name, (kinds, _) in DECORATORS.items()
        if kind in kinds.split() and (peers or name == "paceline")
        for check in checks
    ]
    with ThreadPoolExecutor(2) as pool:
        try:
            seen = list(pool.map(lambda job: _judge(python, job, rounds), jobs))
        except BaseException:  # an interrupt, say: what did not begin is not to
            pool.shutdown(cancel_futures=True)
            raise
    figures: dict[str, dict[str, dict[str, str]]] = {}
    for (kind, name, check), told in zip(jobs, seen, strict=True):
        figures.setdefault(kind, {}).setdefault(name, {})[check] = told
    return {
        kind: {
            name: {
                "passed": sum(told == "ok" for told in checks.values()),
                "of": len(checks),
                "failed": {check: told for check, told in checks.items() if told != "ok"},
            }
            for name, checks in decorators.items()
        }
        for kind, decorators in figures.items()
    }


def _judge(python: str, job: tuple[str, str, str], rounds: int) -> str:
    """What came of a check: ok, or what was seen."""
    for _ in range(rounds):
        try:
            done = subprocess.run(
                [python, "-m", "bench.conformance", *job],
                cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"hangs: no end after {TIMEOUT_S} s"
        told = done.stdout.strip()
        if told != "ok":
            return told or f"the process ended with {done.returncode}"
    return "ok"


def _check(kind: str, name: str, wanted: str) -> str:
    """Runs one check, here."""
    warnings.simplefilter("ignore")
    logging.disable()
    check = next(check for check in CHECKS[kind] if check.__name__ == wanted)
    try:
        check(DECORATORS[name][1]())
    except AssertionError as exc:
        return str(exc)
    except Exception as exc:  # noqa: BLE001 (whatever a peer raises is what was seen)
        return f"{type(exc).__name__}: {exc}"
    return "ok"


def main(arguments: list[str]) -> None:
    """Prints the table; with a kind, a decorator and a check, what comes of that one."""
    if arguments:
        kind, name, check = arguments
        print(_check(kind, name, check), flush=True)
        return
    for kind, decorators in run().items():
        print(f"\n{kind}")
        assert isinstance(decorators, dict)
        for name, result in sorted(decorators.items(), key=lambda item: -item[1]["passed"]):
            print(f"{result['passed']:3} of {result['of']}  {name}")
            for check, told in result["failed"].items():
                print(f"{'':12}{check}: {told.splitlines()[0][:150]}")


if __name__ == "__main__":
    main(sys.argv[1:])
