"""The sessions that predictions are tried on: those of a file, or our own."""

import codecs
import gzip
import io
import itertools
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, TextIO, cast, final

import msgspec

from paceline.cli.place import Place
from paceline.cli.ticking import Far
from paceline.errors import InvalidInputError, StorageError
from paceline.history.sessions import SessionReader, SessionSummary
from paceline.predict.events import Trajectory
from paceline.predict.readers import openai_messages, trajectories
from paceline.sessions.recorded import caller_of, trajectory
from paceline.speculation.scopes import circle_of

__all__ = ["MOST_SESSIONS", "own_session", "own_sessions", "read_sessions", "said_of"]

MOST_SESSIONS: Final = 10_000
_MOST_NAMED: Final = 5
_GZIP: Final = b"\x1f\x8b"
_BEFORE: Final = codecs.BOM_UTF8
"""What some programs begin a text with."""
_FILTERS: Final = {b"{": ".", b"[": ".[]"}
"""What takes the sessions out of a file of JSON that is no lines of them, by how it begins."""
_FORMS: Final = (
    'Give one session a line, as JSON: {"id": ..., "events": [...]} as in docs/prediction.md, or'
    ' {"messages": [...]} as OpenAI\'s chat completions have them.'
)
Read = Callable[[Iterator[bytes]], Iterator[Trajectory]]


def read_sessions(
    name: str, limit: int | None = None, far: Far = lambda _: None
) -> list[Trajectory]:
    """The first sessions of a file, gzipped or not, or of standard input for "-". `far` is told how much
    of it is read, if its length is known.

    Raises InvalidInputError, naming the line, for what cannot be read.
    """
    lines: _Lines | None = None
    with ExitStack() as parts:
        try:
            lines = _Lines(*_opened(name, parts), far)
            return list(itertools.islice(_form(lines)(iter(lines)), limit))
        except InvalidInputError as exc:
            raise InvalidInputError(f"{said_of(name)}: {exc}", next_step=exc.next_step) from exc
        except (UnicodeDecodeError, RecursionError) as exc:
            raise InvalidInputError(
                f"{said_of(name)}: line {lines.number or 1 if lines else 1} cannot be read: {exc}",
                next_step=_FORMS,
            ) from exc
        except (OSError, EOFError, zlib.error) as exc:
            told = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise InvalidInputError(
                f"{said_of(name)} cannot be read: {told}",
                next_step="Name a file of recorded sessions, .jsonl or .jsonl.gz, or - for"
                " standard input.",
            ) from exc


def own_sessions(
    place: Place, limit: int | None = None, far: Far = lambda _: None
) -> tuple[list[Trajectory], list[StorageError]]:
    """The sessions that are kept here, the oldest first, the latest of them; and why some cannot be
    read. `far` is told how many of them are read. Raises StorageError where none can."""
    reader = SessionReader(place.home.sessions)
    found: list[Trajectory] = []
    troubles: list[StorageError] = []
    listed = reader.listed(limit=limit or MOST_SESSIONS)
    for number, kept in enumerate(reversed(listed)):
        far(number / len(listed))
        try:
            found.append(_trajectory(reader, kept))
        except StorageError as exc:
            told = f"session {kept.id}: {exc}"
            troubles.append(StorageError(told, next_step=exc.next_step, category=exc.category))
    return found, troubles


def own_session(
    place: Place, begin: str, user: str | None = None
) -> tuple[SessionSummary, Trajectory]:
    """The one session whose id begins so. Raises InvalidInputError where there is none or there
    are several, StorageError."""
    reader = SessionReader(place.home.sessions)
    listed = reader.listed(user=user, limit=MOST_SESSIONS)
    found = [one for one in listed if one.id.startswith(begin)]
    exact = [one for one in found if one.id == begin]
    if len(exact or found) != 1:
        ids = ", ".join(one.id for one in found[:_MOST_NAMED])
        raise InvalidInputError(
            f"{len(found)} sessions begin with {begin}: {ids}"
            if found
            else f"there is no session {begin}" + (f" of {user}" if user else ""),
            next_step="`paceline chat --list` lists those that are kept.",
        )
    (kept,) = exact or found
    return kept, _trajectory(reader, kept)


def _trajectory(reader: SessionReader, kept: SessionSummary) -> Trajectory:
    return trajectory(kept, reader.load(kept.id), circle_of(caller_of(kept), "user"))


def said_of(name: str) -> str:
    """What a file is called, or standard input."""
    return "standard input" if name == "-" else name or '""'


def _opened(name: str, parts: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """The file, unpacked if it is packed, whatever it is called; and as it is."""
    if name == "-":
        stream: TextIO | None = sys.stdin
        if stream is None or stream.closed:
            raise InvalidInputError("it is closed", next_step="Pipe recorded sessions into it.")
        file: IO[bytes] = stream.buffer
    else:
        file = Path(name).open("rb")  # noqa: SIM115 (parts closes it)
        parts.callback(file.close)
    peeked = io.BufferedReader(cast("io.RawIOBase", file))
    parts.callback(peeked.detach)  # else it would close standard input
    if peeked.peek(len(_GZIP))[: len(_GZIP)] == _GZIP:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=peeked)), file
    return peeked, file


def _length(file: IO[bytes]) -> int:
    """In bytes; 0 where it is not known."""
    try:
        return os.fstat(file.fileno()).st_size
    except (OSError, ValueError):
        return 0


@final
class _Lines:
    """The lines of a file, of which one may be looked at before it is read."""

    def __init__(self, file: IO[bytes], as_it_is: IO[bytes], far: Far) -> None:
        self._file = file
        self._as_it_is = as_it_is
        self._length = _length(as_it_is)
        self._far = far
        self._ahead: list[bytes] = []
        self.number = 0
        """Of the line that was read last."""

    def first(self) -> bytes:
        """The first line that is not empty; all are still to be read."""
        for line in self._file:
            self._ahead.append(line if self._ahead else line.removeprefix(_BEFORE))
            if self._ahead[-1].strip():
                return self._ahead[-1]
        return b""

    def __iter__(self) -> Iterator[bytes]:
        for line in itertools.chain(self._ahead, self._file):
            self.number += 1
            if self._length:
                self._far(self._as_it_is.tell() / self._length)
            yield line


def _form(lines: _Lines) -> Read:
    """How a file is read, by its first session."""
    first = lines.first()
    if not first:
        return trajectories  # of no lines
    try:
        keys = msgspec.json.decode(first, type=dict[str, msgspec.Raw]).keys()
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        step = _FORMS
        if (taken := _FILTERS.get(first.strip()[:1])) is not None:
            step = (
                "Each session has to be on a line of its own. If that is all that is wrong:"
                f" jq -c '{taken}' FILE > sessions.jsonl"
            )
        raise InvalidInputError(
            f"its first line is no recorded session: {exc}", next_step=step
        ) from exc
    if "events" in keys:
        return trajectories
    if "messages" in keys:
        return openai_messages
    raise InvalidInputError(
        "its first line is no recorded session: it has neither events nor messages",
        next_step=_FORMS,
    )
