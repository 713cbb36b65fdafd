"""What sessions are gone on from: their journals, in one SQLite file.

An entry is written before the session goes on, so that killing its process loses nothing it had
begun. Entries of all sessions that wait at one moment are written together.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import sqlite3
import struct
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, final

import msgspec

from paceline.clock import Clock
from paceline.codec import decode, encode
from paceline.database import BatchWriter, Schema, connect, storage_errors
from paceline.errors import Category, StorageError, UsageError
from paceline.history.record import storable
from paceline.redaction import Redactor

__all__ = ["SessionReader", "SessionStore", "SessionSummary"]

_SCHEMA: Final = Schema(
    1,
    (
        """CREATE TABLE sessions (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT, tenant TEXT,
            title TEXT NOT NULL, began_ns INTEGER NOT NULL, at_ns INTEGER NOT NULL
        )""",
        """CREATE TABLE entries (
            seq INTEGER PRIMARY KEY, session INTEGER NOT NULL, entry BLOB NOT NULL
        )""",
        "CREATE INDEX entries_by_session ON entries (session, seq)",
        "CREATE INDEX sessions_by_time ON sessions (at_ns)",
    ),
)
_ADD: Final = "INSERT INTO entries (session, entry) VALUES (?, ?)"
_TOUCH: Final = "UPDATE sessions SET at_ns = ? WHERE number = ?"
_OPEN: Final = (
    "INSERT INTO sessions (id, user, tenant, title, began_ns, at_ns) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO NOTHING"
)
_LIST: Final = (
    "SELECT id, user, tenant, title, began_ns, at_ns,"
    " (SELECT count(*) FROM entries WHERE session = number),"
    " (SELECT count(*) FROM entries WHERE session = number AND substr(entry, 3, ?3) = ?4)"
    " FROM sessions"
    " WHERE (?1 IS NULL OR user = ?1) ORDER BY at_ns DESC LIMIT ?2"
)
_BEGINS_TURN: Final = b"\xa4type\xaaturn_began"
"""What the entry of `engine.journal` that begins a turn has behind its version and its size."""
_FIND: Final = "SELECT number, user, tenant FROM sessions WHERE id = ?"
_ENTRIES: Final = (
    "SELECT entry FROM entries JOIN sessions ON session = number WHERE id = ? ORDER BY seq"
)
_SAID: Final = "SELECT EXISTS (SELECT 1 FROM entries WHERE session = ?)"
_PRUNE: Final = (
    "DELETE FROM entries WHERE session IN (SELECT number FROM sessions WHERE number = ? AND at_ns < ?)",
    "DELETE FROM sessions WHERE number = ? AND at_ns < ?",
)
_TITLE: Final = 80
_BUSY: Final = (errno.EAGAIN, errno.EACCES)
_lock = struct.Struct("@hhqqi4x").pack
"""`struct flock` of Linux with 64 bits: type, whence, start, length, and a process, which is 0."""


class SessionSummary(msgspec.Struct, frozen=True):
    """One session that can be gone on with. Times by the wall clock; `title` is how its first
    message begins, and `turns` how many there were."""

    id: str
    user: str | None
    tenant: str | None
    title: str
    began_ns: int
    at_ns: int
    entries: int
    turns: int


@final
class SessionStore:
    """The journals of sessions. Secrets that are known are masked in what is kept.

    A session that is open holds the lock of one byte of a file beside this one: the lock ends with
    the process, however that ends.
    """

    def __init__(self, path: Path, *, clock: Clock, redactor: Redactor | None = None) -> None:
        """Opens the file, and makes it if it is not there. Raises StorageError."""
        self.path = path
        self._clock = clock
        self._redactor = redactor or Redactor()
        self._trouble: StorageError | None = None
        self._writer = BatchWriter(path, _SCHEMA, on_loss=self._lost, linger_s=0.0)
        self._locks: int | None = None
        self._closed = False
        self._open: dict[str, int] = {}
        """The sessions that are open here, and their numbers."""
        self._noted: dict[int, int] = {}
        """How much was lost when the first entry was written of which all that came since is there."""
        self._waiting: dict[int, int] = {}
        """Who waits until an entry is written, by session."""
        self._table = threading.Lock()

    def close(self) -> None:
        """Writes what is still to be written; lets go of all sessions."""
        self._writer.close()
        with self._table:
            self._closed = True
            self._open.clear()
            if self._locks is not None:
                os.close(self._locks)
                self._locks = None

    async def open(
        self,
        session_id: str,
        *,
        user: str | None = None,
        tenant: str | None = None,
        title: str = "",
        resume: bool = False,
    ) -> None:
        """Has a session go on here, and nowhere else until it is released; a new one, or with `resume`
        one that there is.

        Raises UsageError for one that goes on elsewhere, for a new one with the id of one that there
        is, and where this user has none to resume; StorageError.
        """
        if not resume:
            shown = self._redactor.text(storable(title))[:_TITLE]
            now_ns = self._clock.wall_ns()
            await self._write(_OPEN, (session_id, user, tenant, shown, now_ns, now_ns))
        claim = _Claim(session_id, (user, tenant), resume=resume)
        try:
            await asyncio.to_thread(self._take_up, claim)
        except asyncio.CancelledError:
            self._drop(claim)
            raise

    def release(self, session_id: str) -> None:
        """Lets the session go on elsewhere. Does nothing for one that is not open here."""
        with self._table:
            self._let_go(session_id)

    async def append(self, session_id: str, entry: bytes) -> None:
        """Adds an entry, plain data as `paceline.codec` has it, to the journal of a session that is
        open here; returns once it is written, so that killing this process does not lose it.

        Raises UsageError for one that is not open here, StorageError also for one that was noted
        before it.
        """
        number = self._number(session_id)
        since = self._noted.setdefault(number, self._writer.lost)
        self._waiting[number] = self._waiting.get(number, 0) + 1
        lost = False
        try:
            await self._write(
                _ADD,
                lambda: (number, self._masked(entry)),
                and_then=(_TOUCH, (self._clock.wall_ns(), number)),
                since=since,
            )
        except StorageError:
            lost = True
            raise
        finally:
            self._waiting[number] -= 1
            if not self._waiting[number]:
                del self._waiting[number]
                if lost:  # all who wrote beside it have been told, too
                    self._noted.pop(number, None)

    def note(self, session_id: str, entry: bytes) -> None:
        """Adds an entry, and does not wait until it is written: `append` says if one was not. Raises
        UsageError for a session that is not open here."""
        number = self._number(session_id)
        self._noted.setdefault(number, self._writer.lost)
        self._writer.submit(_ADD, lambda: (number, self._masked(entry)))

    def _number(self, session_id: str) -> int:
        number = self._open.get(session_id)
        if number is None:
            raise UsageError(f"the session {session_id} is not open here")
        return number

    async def load(self, session_id: str) -> list[bytes]:
        """All entries of a session, in their order. Raises StorageError."""
        return await asyncio.to_thread(self._load, session_id)

    async def listed(self, *, user: str | None = None, limit: int = 50) -> list[SessionSummary]:
        """The sessions there are, those of late first. Raises StorageError."""
        return await asyncio.to_thread(self._list, user, limit)

    def prune(self, max_age_s: float) -> int:
        """Removes the sessions in which nothing happened for so many seconds, but for those that are
        open anywhere; returns how many. Blocks. Raises StorageError."""
        oldest_ns = self._clock.wall_ns() - round(max_age_s * 1e9)
        with self._reading() as db:
            old = db.execute("SELECT number FROM sessions WHERE at_ns < ?", (oldest_ns,)).fetchall()
        with self._table:
            taken = [number for (number,) in old if self._take(number)]
            try:
                for number in taken:
                    for statement in _PRUNE:
                        self._writer.submit(statement, (number, oldest_ns))
                self._writer.flush()
            finally:
                for number in taken:
                    self._set(fcntl.F_UNLCK, number)
        return len(taken)

    async def _write(
        self,
        sql: str,
        parameters: tuple[object, ...] | Callable[[], tuple[object, ...]],
        *,
        and_then: tuple[str, tuple[object, ...]] | None = None,
        since: int | None = None,
    ) -> None:
        """Returns once it is written. Raises StorageError if it cannot be, or if more was lost by then
        than `since`."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        lost = self._writer.lost if since is None else since
        self._writer.submit(sql, parameters)
        if and_then is not None:
            self._writer.submit(*and_then)

        def told() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settled)

        def settled() -> None:
            if not written.done():
                written.set_result(None)

        self._writer.after_written(told)
        await written
        if self._writer.lost > lost:  # of this one, or of one beside it
            raise self._failure()

    def _failure(self) -> StorageError:
        trouble = self._trouble
        return StorageError(
            f"the session cannot be kept: {trouble or 'its journal is closed'}",
            next_step=None if trouble is None else trouble.next_step,
            category=None if trouble is None else trouble.category,
        )

    def _lost(self, error: StorageError) -> None:
        self._trouble = error

    def _masked(self, entry: bytes) -> bytes:
        """Without secrets. On the writer's thread."""
        plain = decode(entry)
        masked = self._redactor.data(plain)
        return entry if masked == plain else encode(masked)

    def _load(self, session_id: str) -> list[bytes]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT entry FROM entries JOIN sessions ON session = number WHERE id = ?"
                " ORDER BY seq",
                (session_id,),
            ).fetchall()
        return [row[0] for row in rows]

    def _list(self, user: str | None, limit: int) -> list[SessionSummary]:
        with self._reading() as db:
            return _listed(db, user, limit)

    def _take_up(self, claim: "_Claim") -> None:
        """Has the session go on here, unless nobody waits for that any more."""
        with self._reading() as db, self._table:
            if claim.dropped:
                return
            found = db.execute(_FIND, (claim.session_id,)).fetchone()
            if found is None or found[1:] != claim.owner:
                raise claim.taken() if found is not None and not claim.resume else claim.unknown()
            number: int = found[0]
            if not self._take(number):
                raise UsageError(
                    f"the session {claim.session_id} is open elsewhere",
                    next_step="End it there first.",
                    category=Category.UNAVAILABLE,
                )
            try:
                if not claim.resume and db.execute(_SAID, (number,)).fetchone()[0]:
                    raise claim.taken()
                self._open[claim.session_id] = number
                claim.held = True
            finally:
                if not claim.held:
                    self._set(fcntl.F_UNLCK, number)

    def _drop(self, claim: "_Claim") -> None:
        """Who claimed it was cancelled: nobody has it, whether the thread has ended or not."""
        with self._table:
            claim.dropped = True
            if claim.held:
                self._let_go(claim.session_id)

    def _let_go(self, session_id: str) -> None:
        number = self._open.pop(session_id, None)
        if number is not None:
            self._noted.pop(number, None)
            self._set(fcntl.F_UNLCK, number)

    def _take(self, number: int) -> bool:
        """Whether nobody had the lock of this session, who has it now. Raises StorageError."""
        if self._closed or number in self._open.values():
            return False
        with storage_errors(self.path):
            if self._locks is None:
                path = self.path.with_suffix(".locks")
                self._locks = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._set(fcntl.F_WRLCK, number)
            except OSError as exc:
                if exc.errno not in _BUSY:
                    raise
                return False
        return True

    def _set(self, kind: int, number: int) -> None:
        """Of the open file, and not of the process: two stores in one process are two."""
        if self._locks is not None:
            fcntl.fcntl(self._locks, fcntl.F_OFD_SETLK, _lock(kind, os.SEEK_SET, number, 1, 0))

    @contextlib.contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with (
            storage_errors(self.path),
            contextlib.closing(connect(self.path, _SCHEMA, read_only=True)) as db,
        ):
            yield db


@final
class _Claim:
    """Somebody wants to go on with a session; the fields that change do so under the table's lock."""

    __slots__ = ("dropped", "held", "owner", "resume", "session_id")

    def __init__(
        self, session_id: str, owner: tuple[str | None, str | None], *, resume: bool
    ) -> None:
        self.session_id = session_id
        self.owner = owner
        self.resume = resume
        self.held = self.dropped = False

    def unknown(self) -> UsageError:
        return UsageError(
            f"there is no session {self.session_id} of this user",
            next_step="List the sessions there are with `paceline chat --list`.",
            category=Category.NOT_FOUND,
        )

    def taken(self) -> UsageError:
        return UsageError(
            f"there is a session {self.session_id} already",
            next_step="Resume it, or choose another id.",
        )


@final
class SessionReader:
    """The journals of sessions, to look at: nothing in them changes. All methods block, and raise
    StorageError; where there is no file, or nothing in it yet, there are no sessions."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        """Opens nothing yet."""
        self.path = path

    def listed(self, *, user: str | None = None, limit: int = 50) -> list[SessionSummary]:
        """The sessions there are, of one user or of all, those of late first."""
        with self._reading() as db:
            if db is None:
                return []
            return _listed(db, user, limit)

    def load(self, session_id: str) -> list[bytes]:
        """All entries of a session, in their order."""
        with self._reading() as db:
            return [] if db is None else [row[0] for row in db.execute(_ENTRIES, (session_id,))]

    @contextlib.contextmanager
    def _reading(self) -> Generator[sqlite3.Connection | None]:
        with storage_errors(self.path):
            if not self.path.exists() or not self.path.stat().st_size:
                yield None
                return
            with contextlib.closing(connect(self.path, _SCHEMA, read_only=True)) as db:
                yield db


def _listed(db: sqlite3.Connection, user: str | None, limit: int) -> list[SessionSummary]:
    asked = (user, limit, len(_BEGINS_TURN), _BEGINS_TURN)
    return [SessionSummary(*row) for row in db.execute(_LIST, asked)]
