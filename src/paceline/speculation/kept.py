"""What was learnt of sessions, in one private file, from one start to the next.

The file is replaced as a whole: who reads it finds one that is complete, and of several processes
the one that writes last is remembered. What was forgotten stays forgotten: a process that learnt
before that may not write until it has read again.
"""

import contextlib
import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast, final

import msgspec

from paceline.call import EffectKind
from paceline.clock import Clock
from paceline.disk_space import full, storage_error
from paceline.errors import Category, CodecError, CorruptStoreError, StorageError

__all__ = ["MOST_BYTES", "KeptPredictions", "Learnt", "packed", "peek"]

MOST_BYTES: Final = 64 * 1024**2
"""More is not written: 10,000 patterns take some 5 MB."""

_MAGIC: Final = b"PLP1"
_HEAD: Final = struct.Struct(">4sQQI")
"""What it is, when something was forgotten, when it was written (ns), and the sum of the rest."""
_NOTHING: Final[Mapping[str, EffectKind]] = {}
_INTEGERS: Final = range(-(2**63), 2**64)


class Learnt(msgspec.Struct, frozen=True):
    """What is kept, as plain data: of the predictor, and of what launching was worth (None where
    nothing was launched). `effects` are those of tools by name; one whose calls differ has the worst.
    `at_ns` is when it was written, by the wall clock; `size` in bytes. `messages` are habits of what
    users write (None where they are not learnt)."""

    predictor: object
    ledger: object
    effects: Mapping[str, EffectKind]
    at_ns: int
    size: int
    messages: object = None


@final
class KeptPredictions:
    """The file. All methods block; call them off the event loop, one at a time."""

    __slots__ = ("_clock", "_most_bytes", "_on_trouble", "_since_ns", "path")

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        on_trouble: Callable[[StorageError], object],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Opens nothing. `on_trouble` hears of a file that cannot be used and was moved aside."""
        self.path = path
        self._clock = clock
        self._on_trouble = on_trouble
        self._most_bytes = most_bytes
        self._since_ns = clock.wall_ns()

    def load(self) -> Learnt | None:
        """What is kept; None if that is nothing, or the file cannot be used, which is told."""
        self._since_ns = self._clock.wall_ns()
        try:
            return peek(self.path, self._most_bytes)
        except CorruptStoreError as exc:
            self.set_aside(exc)
        except StorageError as exc:
            self._on_trouble(exc)
        return None

    def save(
        self,
        predictor: object,
        ledger: object = None,
        effects: Mapping[str, EffectKind] = _NOTHING,
        messages: object = None,
    ) -> bool:
        """Writes plain data in place of what is kept, private to its owner.

        False, and nothing written, if something was forgotten since this process read the file or
        was made: what it knows is to be dropped, and read anew. Raises StorageError: of category
        EXHAUSTED on a full disk and for more than may be kept, and then the file stays as it was;
        CodecError for what is no plain data.
        """
        content = packed(_Document(predictor, ledger, effects, messages))
        with self._alone():
            forgot_ns = self._forgot_ns()
            if forgot_ns > self._since_ns:
                return False
            self._write(content, forgot_ns)
        return True

    def forget(self, left: Learnt | None = None) -> bool:
        """Leaves only this behind, by default nothing. What was moved aside is removed too.

        Running processes drop what they know: False where they cannot be told, as the disk is so
        full that not even this can be written. Raises as `save`; nothing is left behind on a full
        disk as well, as that needs no space.
        """
        content = packed(_Document(None, None, {}) if left is None else _document(left))
        with self._alone():
            forgot_ns = max(self._clock.wall_ns(), self._forgot_ns() + 1)
            if left is None:
                told = self._write_or_unlink(content, forgot_ns)
            else:
                told = True
                with _all_would_do():
                    self._write(content, forgot_ns)
            self.aside.unlink(missing_ok=True)
        self._since_ns = self._clock.wall_ns()
        return told

    def _write_or_unlink(self, nothing: bytes, forgot_ns: int) -> bool:
        """Writes that there is nothing; whether there is space for that, once all else is gone."""
        for _ in range(2):
            try:
                self._write(nothing, forgot_ns)
            except OSError as exc:
                if not full(exc):
                    raise
                self.path.unlink(missing_ok=True)
                self.aside.unlink(missing_ok=True)
            else:
                return True
        return False

    def set_aside(self, error: StorageError) -> None:
        """Moves the file away, of which `error` says why it cannot be used, and tells of it."""
        try:
            with _storage_errors(self.path):
                self.path.replace(self.aside)
        except StorageError as exc:
            self._on_trouble(exc)
            return
        self._on_trouble(
            CorruptStoreError(
                f"{error}; it was moved aside",
                next_step=f"Learning begins anew; delete {self.aside} when you like.",
            )
        )

    @property
    def aside(self) -> Path:
        """Where a file is moved that cannot be used."""
        return self.path.with_name(f"{self.path.name}.damaged")

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """No other process writes."""
        with _storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                yield
            finally:
                os.close(directory)

    def _forgot_ns(self) -> int:
        """When something was forgotten last; 0 for never, and for a file that says nothing."""
        try:
            with self.path.open("rb") as file:
                return _head(self.path, file.read(_HEAD.size)).forgot_ns
        except (FileNotFoundError, CorruptStoreError):
            return 0

    def _write(self, content: bytes, forgot_ns: int) -> None:
        head = _HEAD.pack(_MAGIC, forgot_ns, self._clock.wall_ns(), zlib.crc32(content))
        size = len(head) + len(content)
        if size > self._most_bytes:
            raise StorageError(
                f"what was learnt takes {size:,} bytes, and {self._most_bytes:,} are kept at most",
                next_step="Forget some of it with `paceline predict forget`.",
                category=Category.EXHAUSTED,
            )
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            left.unlink(missing_ok=True)  # of a process that was killed: only one writes at a time
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(file, "wb") as out:  # noqa: PTH123 (it is open already)
                out.write(head)
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)


def peek(path: Path, most_bytes: int = MOST_BYTES) -> Learnt | None:
    """What is kept there, None for nothing; nothing is changed.

    Raises StorageError: CorruptStoreError for a file that is damaged or not one of ours.
    """
    try:
        with _storage_errors(path), path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except _MissingError:
        return None
    head = _head(path, data[: _HEAD.size])
    if len(data) > most_bytes:
        raise _damaged(f"{path} is larger than what is kept ever is")
    content = memoryview(data)[_HEAD.size :]
    if zlib.crc32(content) != head.checksum:
        raise _damaged(f"{path} is damaged: its content is not what was written")
    try:
        document = msgspec.msgpack.decode(content, type=_Document)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise _damaged(f"{path} cannot be read: {exc}") from exc
    if document.predictor is None:
        return None
    return Learnt(
        document.predictor,
        document.ledger,
        document.effects,
        head.at_ns,
        len(data),
        document.messages,
    )


class _Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """All of the file but its head. Where there are no habits of messages it is as it was before
    there were any."""

    predictor: object
    ledger: object
    effects: Mapping[str, EffectKind]
    messages: object = None


class _Head(NamedTuple):
    magic: bytes
    forgot_ns: int
    at_ns: int
    checksum: int


class _MissingError(StorageError):
    """There is no such file."""


def _damaged(why: str) -> CorruptStoreError:
    return CorruptStoreError(
        why, next_step="`paceline predict forget --all` removes it; learning begins anew."
    )


def _head(path: Path, data: bytes) -> _Head:
    if len(data) < _HEAD.size or data[: len(_MAGIC)] != _MAGIC:
        raise CorruptStoreError(
            f"{path} is damaged, of another version of Paceline, or not one of its files",
            next_step="Move it away, or remove it with `paceline predict forget --all`.",
        )
    return _Head(*_HEAD.unpack(data))


def _document(learnt: Learnt) -> _Document:
    return _Document(learnt.predictor, learnt.ledger, learnt.effects, learnt.messages)


def packed(data: object) -> bytes:
    """Plain data in the form of the file. Raises CodecError for what is none."""
    try:
        try:
            return msgspec.msgpack.encode(data)
        except (OverflowError, UnicodeEncodeError):  # one value of many, which must not cost all
            return msgspec.msgpack.encode(_portable(msgspec.to_builtins(data)))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise CodecError(
            f"what was learnt cannot be kept: {exc}",
            next_step="Please report it; `paceline predict forget --all` begins anew.",
        ) from exc


def _portable(data: object) -> object:
    """Plain data without what has no form in the file: whole numbers beyond 64 bits and characters
    beyond UTF-8, which become text that says what they were."""
    if isinstance(data, dict):
        items = cast("dict[object, object]", data).items()
        return {_portable(key): _portable(value) for key, value in items}
    if isinstance(data, (list, tuple)):
        return [_portable(part) for part in cast("Sequence[object]", data)]
    if isinstance(data, int) and data not in _INTEGERS:
        return str(data)
    return data.encode(errors="backslashreplace").decode() if isinstance(data, str) else data


@contextlib.contextmanager
def _all_would_do() -> Generator[None]:
    """Says of a full disk how something can be forgotten all the same."""
    try:
        yield
    except OSError as exc:
        if not full(exc):
            raise
        raise StorageError(
            f"nothing was forgotten: {exc.strerror or exc}",
            next_step="Free some space, or forget all that was learnt, which needs none:"
            " `paceline predict forget --all`.",
            category=Category.EXHAUSTED,
        ) from exc


@contextlib.contextmanager
def _storage_errors(path: Path) -> Generator[None]:
    """Turns what the file system says about `path` into StorageErrors."""
    try:
        yield
    except FileNotFoundError as exc:
        raise _MissingError(f"{path}: {exc.strerror}") from exc
    except OSError as exc:
        # A directory would stay in the way of every file that is made.
        step = f"Remove {path}; a new one is made." if isinstance(exc, IsADirectoryError) else None
        raise storage_error(
            f"{path}: {exc.strerror or exc}", exc, path.parent, next_step=step
        ) from exc
