"""What the warm tier costs, beside bare SQLite that reads and writes the same values.

Ours runs right after its limit in every round. The limit is a table of key and value in WAL mode, read by key in
autocommit and written a thousand rows to a transaction. Ours adds a lifetime, a checksum, what
the value is, an index by expiry, bounds, and write-behind; its puts are timed until they are
written. Every put is of a new value under a known key, or under a new one.
"""

import asyncio
import itertools
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bench.timing import Case, Timed, measure, ratios
from paceline.cache.disk.leases import FileLeases, Lease
from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import About
from paceline.clock import SystemClock
from paceline.codec import decode, encode
from paceline.errors import StorageError

__all__ = ["main", "run"]

ROUNDS = 7
ENTRIES = 20_000
_BATCH = 1_000
_WARM = 100_000
_HOUR_NS = 3_600_000_000_000
_LIMIT_BYTES = 512 * 1024 * 1024
_ABOUT = About(
    name="read_file", scope="user:ada", summary="path=/etc/hosts", tags=("file:/etc/hosts",),
    cost_ns=12_000_000, cost_usd=0.0001,
)  # fmt: skip
_PUT = "INSERT OR REPLACE INTO bare VALUES (?, ?)"
_GET = "SELECT value FROM bare WHERE key = ?"


def run(rounds: int = ROUNDS) -> dict[str, object]:
    """Nanoseconds an operation in each round, and ratios to the limit."""
    rng = random.Random(1)
    keys = [rng.randbytes(32) for _ in range(ENTRIES)]
    value = _value(0)
    with tempfile.TemporaryDirectory() as directory:
        tier = _opened(Path(directory) / "cache.db")
        warm = _warm(Path(directory) / "warm.db", value, rng)
        bare = _bare(Path(directory) / "bare.db")
        leases = FileLeases(
            Path(directory) / "leases", on_trouble=_unexpected, rng=random.Random(1)
        )
        try:
            _write(bare, [(key, value) for key in keys])
            for number, key in enumerate(keys):
                tier.put(key, value, _HOUR_NS, _ABOUT)
                if number % 5_000 == 0:
                    tier.flush()
            tier.flush()
            cases = [
                *_reads(bare, tier, rng.choices(keys, k=2_000)),
                *_loads(warm),
                *_writes(bare, tier, keys[:5_000], rng),
                *_leases(leases, keys[:2_000]),
            ]
            times = measure(cases, rounds)
        finally:
            bare.close()
            tier.close()
            warm.close()
            leases.close()
    return {"rounds": rounds, "ns": times, "ratio": ratios(times)}


def _reads(bare: sqlite3.Connection, tier: DiskTier, asked: list[bytes]) -> Iterator[Case]:
    count = len(asked)
    yield "limit: read", lambda: [bare.execute(_GET, (key,)).fetchone() for key in asked], count
    yield "get", lambda: [tier.get(key) for key in asked], count
    yield "get, decoded", lambda: [decode(_found(tier, key)) for key in asked], count
    yield "get_many", lambda: tier.get_many(asked), count
    yield "get of what is not there", lambda: [tier.get(key[:31]) for key in asked], count


def _writes(
    bare: sqlite3.Connection, tier: DiskTier, keys: list[bytes], rng: random.Random
) -> Iterator[Case]:
    turns = itertools.count(1)

    def changed() -> bytes:
        return _value(next(turns))

    def fresh() -> list[bytes]:
        return [rng.randbytes(32) for _ in keys]

    def put(under: Callable[[], list[bytes]]) -> None:
        new = changed()
        for key in under():
            tier.put(key, new, _HOUR_NS, _ABOUT)
        assert tier.flush()

    def put_bare(under: Callable[[], list[bytes]]) -> None:
        new = changed()
        _write(bare, [(key, new) for key in under()])

    def again() -> None:
        for key in keys:
            tier.put(key, same, _HOUR_NS, _ABOUT)
        assert tier.flush()

    same = changed()
    count = len(keys)
    yield "limit: write, known key", lambda: put_bare(lambda: keys), count
    yield "put, known key, written", lambda: put(lambda: keys), count
    yield "limit: write, new key", lambda: put_bare(fresh), count
    yield "put, new key, written", lambda: put(fresh), count
    yield "put of the same value, written", again, count


def _leases(leases: FileLeases, keys: list[bytes]) -> Iterator[Case]:
    def take() -> None:
        for key in keys:
            lease = leases.acquire(key)
            if lease is not None:
                lease.release()

    async def find() -> None:
        for key in keys:
            found = await leases.wait(key, lambda: None, patience_s=1, clock=SystemClock())
            assert isinstance(found, Lease)
            found.release()

    yield "lease taken and released", take, len(keys)
    yield "lease by wait, free", lambda: asyncio.run(find()), len(keys)


def _warm(path: Path, value: bytes, rng: random.Random) -> DiskTier:
    """A tier that was opened on a file of a hundred thousand rows."""
    tier = _opened(path)
    for number in range(_WARM):
        tier.put(rng.randbytes(32), value, _HOUR_NS, _ABOUT)
        if number % 5_000 == 0:
            tier.flush()
    tier.close()
    return _opened(path)


def _loads(tier: DiskTier) -> Iterator[Case]:
    """All rows at once, as at a warm start."""

    def load(rows: Callable[[DiskTier], int]) -> None:
        assert rows(tier) == _WARM

    yield "warm start, rows", lambda: load(_rows), _WARM
    yield "warm start, rows, decoded", lambda: load(_decoded), _WARM
    yield "warm start, bare rows", lambda: load(_bare_rows), _WARM


def _rows(tier: DiskTier) -> int:
    return len(dict(tier.hottest(_WARM)))


def _decoded(tier: DiskTier) -> int:
    return len({key: decode(found.value) for key, found in tier.hottest(_WARM)})


def _bare_rows(tier: DiskTier) -> int:
    db = sqlite3.connect(tier.path)
    try:
        rows = db.execute("SELECT key, payload, head FROM results")
        return len({row[0]: row for row in rows})
    finally:
        db.close()


def _value(number: int) -> bytes:
    return encode({"stdout": "x" * 780, "exit_code": number, "lines": [1, 2, 3]})


def _found(tier: DiskTier, key: bytes) -> bytes:
    found = tier.get(key)
    assert found is not None
    return found.value


def _opened(path: Path) -> DiskTier:
    return DiskTier(path, clock=SystemClock(), max_bytes=_LIMIT_BYTES, on_trouble=_unexpected)


def _bare(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA cache_size=-16384")
    db.execute("CREATE TABLE bare (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
    return db


def _write(db: sqlite3.Connection, rows: list[tuple[bytes, bytes]]) -> None:
    for start in range(0, len(rows), _BATCH):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(_PUT, rows[start : start + _BATCH])
        db.execute("COMMIT")


def _unexpected(exc: StorageError) -> None:
    raise exc


def main() -> None:
    """Prints the figures."""
    figures = msgspec.convert(run(), _Figures)
    for name, timed in figures.ns.items():
        print(f"{name:32}{timed.median:10,.0f} ns{timed.ratio:8.2f} x the limit")


class _Figures(msgspec.Struct):
    ns: dict[str, Timed]


if __name__ == "__main__":
    main()
