"""Keeping the warm tier within its bounds: the expired leave first, then what nobody asks for.

The order of eviction is SIEVE (Zhang et al., NSDI 2024): a hand moves from the oldest row to the
newest and removes what was not hit since it last came by; what was stays where it is. Of the
rows that are next in turn, those leave first which cost least to compute for their size.
"""

import sqlite3
from typing import Final, final

__all__ = ["Room"]

_EXPIRE: Final = """DELETE FROM results WHERE id IN
  (SELECT id FROM results WHERE until_ns <= ? ORDER BY until_ns LIMIT 1000)"""
_PAGES: Final = """
SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""
_COUNT: Final = "SELECT count(*) FROM results"
_NEXT: Final = """SELECT id, length(payload) + 200, cost_ns, used FROM results
WHERE id > ? ORDER BY id LIMIT 1000"""
_PARDON: Final = "UPDATE results SET used = 0 WHERE id = ?"
_REMOVE: Final = "DELETE FROM results WHERE id = ?"
_MAX_NOTED: Final = 10_000
_STEPS: Final = 32
"""Times the hand moves on by a thousand rows, at most, in one go."""

_Row = tuple[int, int, int, int]


@final
class Room:
    """The bounds of one file, and where the hand stands. Used on the writer's thread, but for `notes`."""

    def __init__(self, max_bytes: int, max_entries: int | None) -> None:
        self.evictions = 0
        self.expirations = 0
        self.crowded = False
        """Whether the file is half full, so that it matters which rows are hit."""
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._hand = 0
        self._noted: set[bytes] = set()

    def notes(self, key: bytes) -> bool:
        """Whether a hit of this row has to be noted in the file: it matters when some have to go,
        once until the next time. From any thread."""
        if not self.crowded or key in self._noted:
            return False
        if len(self._noted) >= _MAX_NOTED:
            self._noted = set()
        self._noted.add(key)
        return True

    def make(self, db: sqlite3.Connection, now_ns: int) -> None:
        """Removes some of the expired, and others as far as the bounds demand it.

        A quarter of the bytes is left free: what is written until the next time, and the parts
        of pages that cannot be used.
        """
        self._noted = set()
        self.expirations += max(0, db.execute(_EXPIRE, (now_ns,)).rowcount)
        taken: int = db.execute(_PAGES).fetchone()[0]
        bytes_over = taken - self._max_bytes * 3 // 4
        rows_over = 0
        self.crowded = taken > self._max_bytes // 2
        if self._max_entries is not None:
            rows: int = db.execute(_COUNT).fetchone()[0]
            rows_over = rows - self._max_entries
            self.crowded = self.crowded or rows > self._max_entries // 2
        for _ in range(_STEPS):
            if rows_over <= 0 and bytes_over <= 0:
                break
            window = db.execute(_NEXT, (self._hand,)).fetchall()
            if not window and not self._hand:
                break
            freed, removed = self._pass(db, window, bytes_over, rows_over)
            bytes_over -= freed
            rows_over -= removed

    def _pass(
        self, db: sqlite3.Connection, window: list[_Row], bytes_over: int, rows_over: int
    ) -> tuple[int, int]:
        """Moves the hand over these rows, as far as needed: the bytes and rows that are gone."""
        gone: list[_Row] = []
        freed = 0
        for row in sorted(_next_in_turn(window, bytes_over, rows_over), key=_worth):
            if freed >= bytes_over and len(gone) >= rows_over:
                break
            gone.append(row)
            freed += row[1]
        enough = freed >= bytes_over and len(gone) >= rows_over
        passed = max((row[0] for row in (gone if enough else window)), default=0)
        db.executemany(_REMOVE, [row[:1] for row in gone])
        db.executemany(_PARDON, [row[:1] for row in window if row[3] and row[0] <= passed])
        self._hand = passed  # 0 after the newest: from the oldest again
        self.evictions += len(gone)
        return freed, len(gone)


def _next_in_turn(window: list[_Row], bytes_over: int, rows_over: int) -> list[_Row]:
    """Twice as many rows that were not hit as have to go."""
    found: list[_Row] = []
    size = 0
    for row in window:
        if size >= 2 * bytes_over and len(found) >= 2 * rows_over:
            break
        if not row[3]:
            found.append(row)
            size += row[1]
    return found


def _worth(row: _Row) -> float:
    _, size, cost_ns, _ = row
    return cost_ns / size
