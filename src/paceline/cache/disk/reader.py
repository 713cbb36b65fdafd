"""Looking into the file of the warm tier, which this or another process may be writing.

On connections of its own: nobody's look-up waits for a long list.
"""

import contextlib
import sqlite3
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Final, final

import msgspec

from paceline.cache.disk.rows import (
    GET,
    HOTTEST,
    SIZES,
    TABLES,
    VERSION,
    DamagedRowError,
    Found,
    Listed,
    Order,
    listed,
    unpack,
)
from paceline.clock import Clock
from paceline.database import Schema, connect, storage_errors

__all__ = ["DiskReader", "Share", "bounds"]

_SCHEMA: Final = Schema(version=VERSION, statements=TABLES)
_LONGEST_KEY: Final = 64
_ROWS: Final = "SELECT key, head, length(payload), used FROM results WHERE until_ns > ?1"
_NAMED: Final = f"{_ROWS} AND (?2 IS NULL OR name = ?2) ORDER BY "
_LIST: Final[dict[Order, str]] = {
    "stored": _NAMED + "substr(head, 5, 8) DESC, id DESC LIMIT ?3",
    "expiry": _NAMED + "until_ns LIMIT ?3",
    "size": _NAMED + "length(payload) DESC LIMIT ?3",
    "cost": _NAMED + "cost_ns DESC LIMIT ?3",
}
_FIND: Final = _ROWS + " AND key BETWEEN ?2 AND ?3 ORDER BY key LIMIT ?4"
_SHARES: Final = """SELECT name, count(*), total(length(payload)), total(cost_ns) FROM results
WHERE until_ns > ?1 GROUP BY name ORDER BY 2 DESC, 1"""
_NAMES: Final = "SELECT DISTINCT name FROM results WHERE substr(name, 1, length(?1)) = ?1"


class Share(msgspec.Struct, frozen=True):
    """What is stored of one agent: how many results, their bytes, and what they took to compute."""

    name: str
    entries: int
    bytes: int
    cost_s: float


@final
class DiskReader:
    """Reads a file of the warm tier. A missing one holds nothing.

    Each question opens the file anew: use it from any thread, and close nothing. All raise
    StorageError for a file that cannot be read.
    """

    __slots__ = ("_clock", "path")

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """Nothing is opened yet."""
        self.path = path
        self._clock = clock

    def entries(
        self, limit: int = 1_000, order: Order = "stored", *, name: str | None = None
    ) -> list[Listed]:
        """What is stored and valid, all or of one agent: the last stored, next to expire, largest
        or dearest first."""
        return self._listed(_LIST[order], name, max(0, limit))

    def find(self, prefix: str, limit: int = 2) -> list[Listed]:
        """What is stored under keys that begin so, in hexadecimal digits."""
        low, high = bounds(prefix)
        return self._listed(_FIND, low, high, limit)

    def find_all(self, keys: Iterable[bytes]) -> dict[bytes, Listed]:
        """What is stored under these keys."""
        found: dict[bytes, Listed] = {}
        now_ns = self._clock.wall_ns()
        with self._open() as db:
            for key in keys:
                for row in db.execute(_FIND, (now_ns, key, key, 1)):
                    if (one := listed(row, now_ns)) is not None:
                        found[key] = one
        return found

    def get(self, key: bytes) -> Found | None:
        """What is stored under this key; None for what is damaged or not valid any more."""
        with self._open() as db:
            row = db.execute(GET, (key,)).fetchone()
        return None if row is None else self._shown(key, row[0], row[1])

    def hottest(self, at_once: int) -> Generator[list[tuple[bytes, Found]]]:
        """What is most valuable, in lists: first what was hit, then the others, the newest of each
        first."""
        with self._open() as db:
            for used in (1, 0):
                last = 2**63 - 1
                while rows := db.execute(HOTTEST, (used, last, at_once)).fetchall():
                    last = rows[-1][0]
                    shown = [
                        (key, self._shown(key, payload, head)) for _, key, payload, head in rows
                    ]
                    yield [(key, found) for key, found in shown if found is not None]

    def shares(self) -> list[Share]:
        """What is stored of each agent, the most results first."""
        with self._open() as db:
            rows = db.execute(_SHARES, (self._clock.wall_ns(),)).fetchall()
        return [Share(name, count, int(size), cost / 1e9) for name, count, size, cost in rows]

    def names(self, prefix: str = "") -> list[str]:
        """The names of agents that begin so and have results here, valid or not."""
        with self._open() as db:
            return sorted(row[0] for row in db.execute(_NAMES, (prefix,)))

    def sizes(self) -> tuple[int, int]:
        """How many results there are, expired ones included, and the bytes in use in the file."""
        with self._open() as db:
            entries, size = db.execute(SIZES).fetchone()
        return entries, size if entries else 0

    def _shown(self, key: bytes, payload: bytes, head: bytes) -> Found | None:
        try:
            return unpack(key, payload, head, self._clock.wall_ns())
        except DamagedRowError:
            return None

    def _listed(self, sql: str, *parameters: object) -> list[Listed]:
        now_ns = self._clock.wall_ns()
        with self._open() as db:
            rows: list[Any] = db.execute(sql, (now_ns, *parameters)).fetchall()
        return [one for row in rows if (one := listed(row, now_ns)) is not None]

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        with storage_errors(self.path), contextlib.ExitStack() as stack:
            if self.path.exists() and self.path.stat().st_size:
                db = connect(self.path, _SCHEMA, read_only=True)
                stack.enter_context(contextlib.closing(db))
            else:
                db = stack.enter_context(contextlib.closing(sqlite3.connect(":memory:")))
                for statement in TABLES:
                    db.execute(statement)
            yield db


def bounds(prefix: str) -> tuple[bytes, bytes]:
    """The first and the last key that begin with these hexadecimal digits. Raises ValueError."""
    low = bytes.fromhex(prefix + "0" * (len(prefix) % 2))
    high = bytes.fromhex(prefix + "f" * (len(prefix) % 2))
    return low, high.ljust(_LONGEST_KEY, b"\xff")
