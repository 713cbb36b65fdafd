"""SQLite files of ours: opened with one set of rules, written in batches by one thread.

Rules: WAL, so that other processes read while one writes; an application id and a schema
version, so that a foreign, empty or newer file is told from ours; a busy time-out; no
connection shared between threads. Every sqlite3 exception ends here as a StorageError.
"""

import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, final

import msgspec

from paceline.disk_space import free_some, is_full, storage_error
from paceline.errors import Category, CorruptStoreError, StorageError

__all__ = ["BatchWriter", "Schema", "Work", "connect", "storage_errors"]

Parameters = tuple[object, ...]
Work = Callable[[sqlite3.Connection], object]
Statement = tuple[str | Work, Parameters | Callable[[], Parameters], int]
"""What to do, with which values, and how many bytes of the backlog it is."""

_BUSY_MS: Final = 5_000
_OURS: Final = 0x50414345  # "PACE"
_UNSAID: Final = ("disk I/O error", "unable to open")
"""What SQLite says, among other things, where there is no space for the files beside its own."""
_DAMAGE: Final = ("not a database", "malformed", "corrupt", "encrypted")


class Schema(msgspec.Struct, frozen=True):
    """What a file of one purpose looks like.

    `durable` waits for the disk at every commit (synchronous=FULL), for what must survive a
    power cut; otherwise a crash of the process loses nothing and a power cut the last commits.
    `max_bytes` bounds the file; a write beyond it fails as on a full disk. `cache_kib` is how much
    of the file a connection keeps in memory (None: SQLite's 2 MB).
    """

    version: int
    statements: tuple[str, ...]
    durable: bool = False
    max_bytes: int | None = None
    cache_kib: int | None = None


@contextlib.contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turns sqlite3 and file system exceptions about `path` into StorageErrors.

    Of category UNAVAILABLE, which is transient, for a file that another process holds locked;
    EXHAUSTED when the disk, or the limit of the file, is full.
    """
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:  # the last two: a parameter's
        text = str(exc)
        if any(word in text for word in _DAMAGE):
            raise CorruptStoreError(
                f"{path} is damaged: {text}",
                next_step=f"Move {path} away; a new one is made. `paceline doctor` checks all files.",
            ) from exc
        if any(words in text for words in _UNSAID) and is_full(path):
            raise StorageError(
                f"{path}: the disk is full ({text})",
                next_step=free_some(path.parent),
                category=Category.EXHAUSTED,
            ) from exc
        raise StorageError(
            f"{path}: {text}",
            next_step=_advice(text, path),
            category=_category(text),
        ) from exc
    except OSError as exc:
        raise storage_error(f"{path}: {exc.strerror or exc}", exc, path.parent) from exc


def _category(text: str) -> Category | None:
    if "locked" in text:
        return Category.UNAVAILABLE
    return Category.EXHAUSTED if "full" in text else None


def _advice(text: str, path: Path) -> str:
    if "full" in text:
        return (
            free_some(path.parent)
            if is_full(path)
            else (
                f"The disk, or the size limit of {path.name}, is full: free space or raise the limit."
            )
        )
    if "readonly" in text or "unable to open" in text:
        return f"Make {path.parent} writable, or set PACELINE_HOME to a directory that is."
    if "locked" in text:
        return "Another process holds the file for long; see who has it open (`fuser`)."
    return StorageError.advice


def connect(path: Path, schema: Schema, *, read_only: bool = False) -> sqlite3.Connection:
    """An open connection to a file of this schema, made (for its owner only) if it is not there.

    Autocommit; transactions are written out. Raises CorruptStoreError when the file is damaged,
    foreign or of another version (then of category INVALID: nothing is wrong with the file),
    StorageError when it cannot be opened.
    """
    with storage_errors(path):
        if path.exists() and not path.is_file():
            raise StorageError(
                f"{path} is not a file", next_step=f"Remove {path}; a new one is made."
            )
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Only a new file is touched: closing one that is open elsewhere drops SQLite's locks.
            with contextlib.suppress(FileExistsError):
                path.touch(mode=0o600, exist_ok=False)
        mode = "ro" if read_only else "rwc"
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path, schema, read_only=read_only)
        except BaseException:
            db.close()
            raise
        return db


def _prepare(db: sqlite3.Connection, path: Path, schema: Schema, *, read_only: bool) -> None:
    db.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    db.execute("BEGIN")  # one state of the file, whatever others commit between our questions
    try:
        current = _is_current(db, path, schema)  # first: a file of somebody else stays as it is
    finally:
        _rollback(db)
    if not read_only:
        db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={'FULL' if schema.durable else 'NORMAL'}")
    db.execute("PRAGMA temp_store=MEMORY")
    if schema.cache_kib is not None:
        db.execute(f"PRAGMA cache_size=-{schema.cache_kib}")
    if schema.max_bytes is not None:
        page = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={max(1, schema.max_bytes // page)}")
    if current:
        return
    if read_only:
        raise StorageError(f"{path} is empty", next_step="Run something first; it fills the file.")
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _is_current(db, path, schema):  # another process may have been first
            for statement in schema.statements:
                db.execute(statement)
            db.execute(f"PRAGMA application_id={_OURS}")
            db.execute(f"PRAGMA user_version={schema.version}")
        db.execute("COMMIT")
    except BaseException:
        _rollback(db)
        raise


def _rollback(db: sqlite3.Connection) -> None:
    # A full disk rolls back by itself; asking again would hide the first error.
    if db.in_transaction:
        db.execute("ROLLBACK")


def _is_current(db: sqlite3.Connection, path: Path, schema: Schema) -> bool:
    """Whether the file has this schema; False if it is new. Raises when it is something else."""
    owner = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if (owner, version) == (_OURS, schema.version):
        return True
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if owner == 0 and version == 0 and tables == 0:
        return False
    if owner == _OURS:
        raise CorruptStoreError(
            f"{path} has schema version {version}; this Paceline reads {schema.version}",
            next_step="Use the version of Paceline that wrote it, or move the file away.",
            category=Category.INVALID,
        )
    raise CorruptStoreError(
        f"{path} is a database of another program",
        next_step="Point PACELINE_HOME elsewhere, or move that file away.",
    )


@final
class BatchWriter:
    """Writes statements in the order they come, many to a transaction, on a thread of its own.

    The caller pays for an append to a queue. What arrives while a transaction commits shares
    the next one, so batches grow with the load. A batch that fails is lost and counted; later
    batches are tried anew. What could not even be made is of category EXECUTION. With `max_pending` statements waiting, further ones are lost and
    counted too: memory is bounded. `on_loss` is told (on the writer's thread) when losing
    starts, and when it goes on for a reason of another category. In a process forked off after
    opening, all is lost and counted: neither the thread nor the connection can be used there.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        *,
        on_loss: Callable[[StorageError], None],
        linger_s: float = 0.002,
        batch: int = 1_000,
        max_pending: int = 10_000,
    ) -> None:
        """Opens the file at once, so that a file that cannot be used is known here."""
        self.path = path
        self.lost = 0
        self._pid = os.getpid()
        self._db = connect(path, schema)
        self._on_loss = on_loss
        self._linger_s = linger_s
        self._batch = batch
        self._max_pending = max_pending
        self._queue: deque[Statement] = deque()
        self._after: deque[tuple[int, Callable[[], object]]] = deque()
        self._wake = threading.Event()
        self._hurry = threading.Event()  # somebody waits: no lingering
        self._order = threading.Lock()
        self._state = threading.Condition()
        self._submitted = 0
        self._submitted_bytes = 0
        self._settled = 0
        self._settled_bytes = 0
        self._refusing = False  # the queue was full, and has not been empty since
        self._closed = False
        self._losing: Category | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"paceline-{path.stem}-writer", daemon=True
        )
        self._thread.start()

    @property
    def settled(self) -> int:
        """The number of the last statement that is committed or counted as lost."""
        return self._settled

    @property
    def backlog_bytes(self) -> int:
        """The bytes of what waits to be written, as told to `submit`."""
        return self._submitted_bytes - self._settled_bytes

    def submit(
        self, sql: str, parameters: Parameters | Callable[[], Parameters], size: int = 0
    ) -> int:
        """Queues one statement; returns its number. After `close` it is counted as lost.

        Parameters that cost something to make may be given as a function, which the writer's
        thread calls; if it raises, this statement is lost. `size` is its part of the backlog.
        """
        return self._enqueue((sql, parameters, size))

    def run(self, work: Work) -> int:
        """Queues a function of the connection, called in its turn, in the same transaction.

        If it raises, what it did before stays done, and it is counted as lost.
        """
        return self._enqueue((work, (), 0))

    def after_written(self, callback: Callable[[], object]) -> None:
        """Calls `callback`, on the writer's thread, once all that was submitted before is
        committed or lost; at once when nothing is written any more."""
        with self._order:
            if not self._closed and os.getpid() == self._pid:
                self._after.append((self._submitted, callback))
                callback = self._wake.set
        callback()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until all that was submitted before is committed or lost; False on time-out."""
        if os.getpid() != self._pid:
            return True
        goal = self._submitted
        self._hurry.set()
        with self._state:
            return self._state.wait_for(lambda: self._settled >= goal, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what is queued, then closes the file. Closing again does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        with self._order:
            self._closed = True
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _enqueue(self, statement: Statement) -> int:
        if os.getpid() != self._pid:  # before any lock: a thread of the parent's may hold it
            self._forked()
            return self._submitted
        with self._order:
            if self._closed or len(self._queue) >= self._max_pending:
                self._refusing = True
                with self._state:
                    self.lost += 1
                return self._submitted
            self._queue.append(statement)
            self._submitted_bytes += statement[2]
            self._submitted += 1
            number = self._submitted
        # The writer clears this before it empties the queue, so what was appended is seen.
        if not self._wake.is_set():
            self._wake.set()
        return number

    def _forked(self) -> None:
        self.lost += 1
        if self._losing is not Category.INVALID:
            self._losing = Category.INVALID
            self._on_loss(
                StorageError(
                    f"{self.path} was opened before this process was forked off",
                    next_step="Open it anew in the child process, or start that by spawning.",
                    category=Category.INVALID,
                )
            )

    def _run(self) -> None:
        told = False
        try:
            while True:
                self._wake.wait()
                if len(self._queue) < self._batch:
                    self._hurry.wait(self._linger_s)
                self._wake.clear()
                self._hurry.clear()
                while self._queue:
                    self._commit([self._queue.popleft() for _ in range(self._take())])
                    if self._refusing and not told:
                        told = True
                        self._on_loss(self._refusal())
                told = self._refusing = False
                self._call_back()
                if self._closed and not self._queue:
                    self._call_back()  # what came between the last ones and the closing
                    return
        finally:
            self._db.close()

    def _refusal(self) -> StorageError:
        return StorageError(
            f"{self.path}: there was more to write than its disk takes",
            next_step="It is too slow for this load, or another process holds the file for long.",
            category=Category.UNAVAILABLE,
        )

    def _take(self) -> int:
        return min(self._batch, len(self._queue))

    def _commit(self, batch: list[Statement]) -> None:
        rows = [row for statement in batch if (row := self._made(statement)) is not None]
        lost = self.lost  # of those that could be made
        try:
            with storage_errors(self.path):
                self._write(rows)
            if self.lost == lost and len(rows) == len(batch):
                self._losing = None
        except StorageError as exc:
            self._lose(len(rows), exc)
        finally:
            size = sum(statement[2] for statement in batch)
            with self._state:
                self._settled += len(batch)
                self._settled_bytes += size
                self._state.notify_all()
        self._call_back()

    def _made(self, statement: Statement) -> tuple[str | Work, Parameters] | None:
        action, parameters, _ = statement
        try:
            return action, parameters() if callable(parameters) else parameters
        except Exception as exc:  # noqa: BLE001 (one bad row must not end the writing of all)
            self._lose(1, self._caused(exc))
            return None

    def _caused(self, exc: Exception) -> StorageError:
        error = StorageError(
            f"what was to be done to {self.path} failed: {exc!r}", category=Category.EXECUTION
        )
        error.__cause__ = exc
        return error

    def _lose(self, rows: int, error: StorageError) -> None:
        with self._state:
            self.lost += rows
        if error.category is not self._losing:
            self._losing = error.category
            self._on_loss(error)

    def _write(self, rows: list[tuple[str | Work, Parameters]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            start = 0
            for end in range(1, len(rows) + 1):
                action = rows[start][0]
                if end == len(rows) or rows[end][0] is not action:
                    self._perform(action, [row[1] for row in rows[start:end]])
                    start = end
            self._db.execute("COMMIT")
        except BaseException:
            _rollback(self._db)
            raise

    def _perform(self, action: str | Work, rows: list[Parameters]) -> None:
        if not isinstance(action, str):
            for _ in rows:
                self._work(action)
        elif len(rows) == 1:
            self._db.execute(action, rows[0])
        else:
            self._db.executemany(action, rows)

    def _work(self, work: Work) -> None:
        try:
            work(self._db)
        except (sqlite3.Error, OSError):
            raise
        except Exception as exc:  # noqa: BLE001 (somebody's function must not end the writing)
            self._lose(1, self._caused(exc))

    def _call_back(self) -> None:
        while self._after and self._after[0][0] <= self._settled:
            _, callback = self._after.popleft()
            try:
                callback()
            except Exception as exc:  # noqa: BLE001 (as above)
                self._on_loss(self._caused(exc))
