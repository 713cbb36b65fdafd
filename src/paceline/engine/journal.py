"""The journal of a session: what happened, entry by entry, so that it can go on after a crash.

A turn that runs and a turn that is read back go through the same fold, `Record.apply`: what a session
knows of a turn is what its entries say. An entry is durable before what it announces is done, so a
tool that must not run twice is in the journal before it starts, and all that came before it. What tells
of the past alone is written in the same order, but not waited for.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, final

import msgspec

from paceline.call import Tokens
from paceline.codec import VERSION, encode
from paceline.engine.conversation import Compaction, clip_results
from paceline.engine.states import ConversationTurn, ToolCall, ToolStatus, TurnStatus
from paceline.errors import Category, CodecError, CorruptStoreError
from paceline.messages import AssistantMessage, Message, ToolMessage, ToolUse, UserMessage
from paceline.redaction import MASK

__all__ = [
    "Compacted",
    "Entry",
    "Journal",
    "Record",
    "Replied",
    "Restoration",
    "Restored",
    "StepEnded",
    "ToolBegan",
    "ToolEnded",
    "TurnBegan",
    "TurnEnded",
    "abandon",
    "backwards",
    "read",
    "restore",
    "write",
]

MASKED: Final = (
    "Not run: its arguments held a secret, which is not kept over an interruption. Ask for it again,"
    " with the secret, if it is still wanted."
)
UNCERTAIN: Final = (
    "This call was interrupted. It may or may not have taken effect: check before you repeat it."
)
_COMPLETED, _CACHED = ToolStatus.COMPLETED, ToolStatus.CACHED

CUT_OFF: Final = "This call was cut off or not run at all, as the turn was ended."


class Journal(Protocol):
    """Where sessions are written down."""

    async def append(self, session_id: str, entry: bytes) -> None:
        """Adds an entry to those of the session; returns when it and all before it would outlive a
        crash. Raises StorageError, also for one of those that were only noted."""
        ...

    def note(self, session_id: str, entry: bytes) -> None:
        """Adds an entry in the same order, behind one that was appended, and returns at once: it is
        written as soon as may be, and the next `append` says if it could not be."""
        ...

    async def load(self, session_id: str) -> list[bytes]:
        """The session's entries in the order they came; empty for one that is unknown."""
        ...


class TurnBegan(msgspec.Struct, frozen=True, gc=False, tag="turn_began"):
    """The user said something. `at_ns` is wall time."""

    turn_id: str
    text: str
    at_ns: int


class Replied(msgspec.Struct, frozen=True, gc=False, tag="replied"):
    """The model answered. If it asks for tools, they follow."""

    turn_id: str
    text: str = ""
    uses: tuple[ToolUse, ...] = ()
    tokens: Tokens | None = None
    cost_usd: float | None = None
    model: str = ""
    finish: str = "stop"


class ToolBegan(msgspec.Struct, frozen=True, gc=False, tag="tool_began"):
    """A tool that must not run twice is about to: the use at this index of the last reply."""

    turn_id: str
    index: int
    call_id: str


class ToolEnded(msgspec.Struct, frozen=True, gc=False, tag="tool_ended"):
    """It ended. `text` is its result, or what went wrong."""

    turn_id: str
    index: int
    text: str
    failed: bool = False
    cost_usd: float | None = None


class StepEnded(msgspec.Struct, frozen=True, gc=False, tag="step_ended"):
    """All tools of the last reply have ended; `calls` are in the order of its uses."""

    turn_id: str
    calls: tuple[ToolCall, ...]


class TurnEnded(msgspec.Struct, frozen=True, gc=False, tag="turn_ended"):
    """The turn is over. `partial` is what the user saw of an answer that was cut off; `tokens` and
    `cost_usd` are what was used for no reply."""

    turn_id: str
    status: TurnStatus
    execution_ns: int = 0
    error: str = ""
    category: Category | None = None
    partial: str = ""
    tokens: Tokens | None = None
    cost_usd: float | None = None


class Compacted(msgspec.Struct, frozen=True, gc=False, tag="compacted"):
    """What the model is shown became shorter than what was said. If a model made the summary, that
    used so much, which counts as that turn's, be it over or not."""

    turn_id: str
    compaction: Compaction
    tokens: Tokens | None = None
    cost_usd: float | None = None


Entry = TurnBegan | Replied | ToolBegan | ToolEnded | StepEnded | TurnEnded | Compacted

# Made once: to make sense of a union takes longer than to decode an entry.
_decode: Final = msgspec.msgpack.Decoder(Entry).decode


def write(entry: Entry) -> bytes:
    """The stored form of an entry."""
    return encode(entry, Entry)


def read(data: bytes) -> Entry:
    """The entry. Raises CodecError for bytes that are damaged or of another version."""
    if data[:1] != bytes((VERSION,)):
        raise CodecError("the journal has an entry of another version of Paceline, or none of ours")
    try:
        entry: Entry = _decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise CodecError(f"an entry of the journal cannot be read: {exc}") from exc
    return entry


_NONE_BEGUN: Final[Mapping[int, str]] = {}
_NONE_ENDED: Final[Mapping[int, ToolEnded]] = {}


@final
class Record:
    """One turn, as far as its entries tell."""

    __slots__ = (
        "answer", "answered", "at_ns", "begun", "calls", "cost_usd", "end", "ended", "finish", "id",
        "models", "open_uses", "steps", "text", "tokens",
    )  # fmt: skip

    def __init__(self, began: TurnBegan) -> None:
        self.id = began.turn_id
        self.text = began.text
        self.at_ns = began.at_ns
        self.calls: list[ToolCall] = []
        self.steps = 0
        self.tokens: Tokens | None = None
        self.cost_usd: float | None = None
        self.models: tuple[str, ...] = ()
        self.answer = ""
        """What the model said last."""
        self.finish = ""
        """What it stopped for."""
        self.open_uses: tuple[ToolUse, ...] = ()
        """Tool uses whose results the model was not told."""
        self.answered = False
        """Whether it is the answer, which asks for no tools."""
        self.begun: Mapping[int, str] = _NONE_BEGUN
        """Which of those must not be run again, and the ids of their calls."""
        self.ended: Mapping[int, ToolEnded] = _NONE_ENDED
        """What came of those."""
        self.end: TurnEnded | None = None

    def apply(self, entry: Entry) -> Sequence[Message]:
        """Adds an entry; returns what it adds to the conversation. A use and its result are added
        together, so that the one never stands there without the other."""
        match entry:
            case Replied():
                return self._replied(entry)
            case StepEnded():
                return self._close_step(entry.calls)
            case TurnBegan():
                return (UserMessage(entry.text),)
            case TurnEnded():
                return self._ended(entry)
            case ToolBegan():
                self.begun = {**self.begun, entry.index: entry.call_id}
            case ToolEnded():
                self.ended = {**self.ended, entry.index: entry}
            case Compacted():
                self._use(entry.tokens, entry.cost_usd)
        return ()

    def call(self, index: int) -> ToolCall | None:
        """What came of a use of the last reply that must not be run (again); None if it may."""
        call_id = self.begun.get(index)
        if call_id is None:
            return None
        use = self.open_uses[index]
        ended = self.ended.get(index)
        if ended is None:
            return _ended(use, ToolStatus.CANCELLED, UNCERTAIN, call_id)
        status = ToolStatus.FAILED if ended.failed else ToolStatus.COMPLETED
        error = ended.text if ended.failed else ""
        call = ToolCall(call_id, use.name, use.arguments, status, ended.text, error)
        return msgspec.structs.replace(call, cost_usd=ended.cost_usd)

    def decided(self) -> tuple[dict[int, ToolCall], int]:
        """After a crash: what came of the uses that must not be run (again), by their index, and how
        many calls were numbered by then. One whose arguments are masked is no longer what was asked
        for, so it is not run."""
        decided = {index: self.call(index) for index in range(len(self.open_uses))}
        known = {index: call for index, call in decided.items() if call is not None}
        calls = (*self.calls, *known.values())
        made = max((int(call.id.rpartition(".")[2]) for call in calls), default=0)
        for index, use in enumerate(self.open_uses):
            if index not in known and MASK in use.arguments:
                made += 1
                known[index] = _ended(use, ToolStatus.REJECTED, MASKED, f"{self.id}.{made}")
        return known, made

    def turn(self) -> ConversationTurn:
        """All of it, as others see it."""
        end = self.end
        return ConversationTurn(
            self.id,
            self.text,
            (end.partial if end is not None else "") or self.answer,
            tuple(self.calls),
            TurnStatus.RUNNING if end is None else end.status,
            self.at_ns,
            None if end is None else end.execution_ns,
            self.steps,
            self.tokens,
            self.cost_usd,
            self.models,
            "" if end is None else end.error,
            None if end is None else end.category,
            self.finish,
        )

    def _replied(self, entry: Replied) -> Sequence[Message]:
        self.answer = entry.text
        self.finish = entry.finish
        self.open_uses = entry.uses
        self.begun, self.ended = _NONE_BEGUN, _NONE_ENDED
        self.steps += 1
        self.answered = not entry.uses
        if entry.tokens is not None or entry.cost_usd is not None:
            self._use(entry.tokens, entry.cost_usd)
        if entry.model and entry.model not in self.models:
            self.models += (entry.model,)
        return () if entry.uses else (AssistantMessage(entry.text),)

    def _close_step(self, calls: Sequence[ToolCall]) -> Sequence[Message]:
        uses = self.open_uses
        if not uses:
            return ()
        self.calls += calls
        self.open_uses = ()
        for call in calls:
            if call.cost_usd is not None:
                self._use(None, call.cost_usd)
        return (AssistantMessage(self.answer, uses), *map(_told, uses, calls))

    def _ended(self, entry: TurnEnded) -> Sequence[Message]:
        calls = [
            self.call(index) or _ended(use, ToolStatus.CANCELLED, CUT_OFF, f"{self.id}.{use.id}")
            for index, use in enumerate(self.open_uses)
        ]
        told = self._close_step(calls)
        self._use(entry.tokens, entry.cost_usd)
        self.end = entry
        return (*told, AssistantMessage(entry.partial)) if entry.partial else told

    def _use(self, tokens: Tokens | None, cost_usd: float | None) -> None:
        if tokens is not None:
            self.tokens = tokens if self.tokens is None else self.tokens.plus(tokens)
        if cost_usd is not None:
            self.cost_usd = cost_usd + (self.cost_usd or 0.0)


class Restored(msgspec.Struct, frozen=True):
    """A session read back: what was said, each message with the id of its turn, since what the
    `compaction` stands for; the turns that are over; and the one that was not. `begun` is how many
    turns there were, `tokens` and `cost_usd` what those used that are over, be they kept or not."""

    messages: tuple[tuple[str, Message], ...] = ()
    turns: tuple[ConversationTurn, ...] = ()
    interrupted: Record | None = None
    begun: int = 0
    tokens: Tokens | None = None
    cost_usd: float | None = None
    compaction: Compaction | None = None


def abandon(record: Record) -> Sequence[Message]:
    """Ends a turn that nobody goes on with; returns what that adds to the conversation."""
    return record.apply(TurnEnded(record.id, TurnStatus.CANCELLED, error="interrupted"))


@final
class Restoration:
    """Reads a session back, entry by entry. Only the last `keep` turns are kept, None for all.

    A turn that was neither ended nor gone on with counts as cancelled once another began. An entry
    that is there twice in a row counts once: it was not known whether it was there.
    """

    __slots__ = (
        "_begun", "_compaction", "_cost_usd", "_last", "_past", "_record", "_said", "_tokens",
    )  # fmt: skip

    def __init__(self, keep: int | None = None) -> None:
        self._past: deque[tuple[Record, list[Message]]] = deque(maxlen=keep)
        self._record: Record | None = None
        self._said: list[Message] = []  # in its course
        self._last: bytes | None = None
        self._begun = 0
        self._compaction: Compaction | None = None
        self._tokens: Tokens | None = None
        self._cost_usd: float | None = None

    def add(self, data: bytes) -> None:
        """The next entry. Raises CodecError if it cannot be read, CorruptStoreError if it is one of
        no turn."""
        if data == self._last:
            return
        entry, record = read(data), self._record
        if isinstance(entry, Compacted):  # it may come between any two others
            self._compact(entry)
            return
        self._last = data
        if isinstance(entry, TurnBegan):
            if record is not None:
                self._said += abandon(record)
                self._close(record)
            self._begun += 1
            record = self._record = Record(entry)
        elif record is None or record.id != entry.turn_id:
            raise CorruptStoreError(
                f"the journal has an entry of turn {entry.turn_id!r}, which does not run there"
            )
        self._said += record.apply(entry)
        if record.end is not None:
            self._close(record)

    def restored(self) -> Restored:
        """What the entries tell."""
        past = [(record.id, said) for record, said in self._past]
        if self._record is not None:
            past.append((self._record.id, self._said))
        compaction = self._compaction
        if compaction is not None:
            ids = [turn_id for turn_id, _ in past]
            if compaction.first in ids:
                past = past[ids.index(compaction.first) :]
                shown = past[0][1]
                past[0] = compaction.first, shown[:1] + shown[1 + compaction.skipped :]
        return Restored(
            tuple((turn_id, message) for turn_id, said in past for message in said),
            tuple(record.turn() for record, _ in self._past),
            self._record,
            self._begun,
            self._tokens,
            self._cost_usd,
            compaction,
        )

    def _compact(self, entry: Compacted) -> None:
        self._compaction = entry.compaction
        if entry.compaction.longest:
            for said in (self._said, *(said for _, said in self._past)):
                said[:] = clip_results(said, entry.compaction.longest)
        if self._record is not None and self._record.id == entry.turn_id:
            self._record.apply(entry)
            return
        for record, _ in self._past:
            if record.id == entry.turn_id:
                record.apply(entry)
        self._add(entry.tokens, entry.cost_usd)

    def _close(self, record: Record) -> None:
        self._past.append((record, self._said))
        self._record, self._said = None, []
        self._add(record.tokens, record.cost_usd)

    def _add(self, tokens: Tokens | None, cost_usd: float | None) -> None:
        if tokens is not None:
            self._tokens = tokens if self._tokens is None else self._tokens.plus(tokens)
        if cost_usd is not None:
            self._cost_usd = cost_usd + (self._cost_usd or 0.0)


def restore(entries: Iterable[bytes]) -> Restored:
    """What the entries of a session tell, all at once. Raises as `Restoration.add`."""
    restoration = Restoration()
    for data in entries:
        restoration.add(data)
    return restoration.restored()


def backwards(entries: Sequence[bytes]) -> Iterator[Entry]:
    """The entries of a session, the latest first; one that is there twice in a row counts once. Raises
    CodecError for one that cannot be read."""
    last: bytes | None = None
    for data in reversed(entries):
        if data != last:
            entry = read(data)
            if not isinstance(entry, Compacted):  # it may come between any two others
                last = data
            yield entry


def _told(use: ToolUse, call: ToolCall) -> ToolMessage:
    delivered = call.status is _COMPLETED or call.status is _CACHED
    return ToolMessage(use.id, use.name, call.result, not delivered)


def _ended(use: ToolUse, status: ToolStatus, text: str, call_id: str) -> ToolCall:
    return ToolCall(call_id, use.name, use.arguments, status, text, text)
