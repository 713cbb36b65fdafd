"""The tools that a model wants called, put together from the pieces in which servers tell them. Pure.

Servers differ. Some number all calls of an answer 0, or not at all, and only a new id says that another
call begins; some repeat the id and the name in every piece, or all of a call at its end; some give the
arguments as an object, none at all, or no id.
"""

from typing import Final, final

import msgspec

from paceline.instances.closing import Closing
from paceline.messages import ToolUse

__all__ = ["Piece", "ToolCalls"]

_MOST: Final = 1_000
_NO_ARGUMENTS: Final = "{}"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()


class Piece(msgspec.Struct):
    """A part of a call, as the servers write it."""

    index: int | None = None
    id: str | None = None
    function: _Function | None = None


@final
class ToolCalls:
    """The calls of one answer, in the order in which they begin.

    A call that is told of as complete stays as it is: what would change it later is refused.
    """

    __slots__ = ("_at", "_calls", "_ids", "_told")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        """The last call of each number."""
        self._told = 0
        self._ids: set[str] = set()

    def __bool__(self) -> bool:
        return not all(call.blank for call in self._calls)

    def add(self, place: int, piece: Piece) -> None:
        """Adds a piece, the one at this place of several that come together.

        Raises ValueError for one that makes no sense.
        """
        index = place if piece.index is None else piece.index
        function = piece.function or _Function()
        name, arguments = function.name or "", _text(function.arguments)
        call = self._at.get(index)
        if call is None or call.ends_before(piece.id or "", name, arguments):
            if len(self._calls) >= _MOST:
                raise ValueError("more tool calls than make sense")
            call = self._at[index] = _Call()
            self._calls.append(call)
        call.add(piece.id or "", name, arguments)

    def complete(self, *, ended: bool = False) -> list[ToolUse]:
        """The calls that are complete since this was asked last: up to the first whose arguments are
        not closed, or all once the answer has `ended`.

        Raises ValueError for a call without a name.
        """
        found: list[ToolUse] = []
        for place, call in enumerate(self._calls[self._told :], self._told):
            if not (ended or (call.name and call.closed)):
                break
            self._told += 1
            if not call.blank:
                call.use = self._use(place, call)
                found.append(call.use)
        return found

    def message(self) -> list[dict[str, object]]:
        """All of them, as in a message. Raises ValueError for a call without a name."""
        self.complete(ended=True)
        return [_told(call.use) for call in self._calls if call.use is not None]

    def _use(self, place: int, call: "_Call") -> ToolUse:
        """The call, with an id that no other of this answer has."""
        if not call.name:
            raise ValueError("a tool call without a name")
        found, more = call.id or f"call_{place}", 0
        while found in self._ids:
            more += 1
            found = f"{call.id or 'call'}_{place}_{more}"
        self._ids.add(found)
        return ToolUse(found, call.name, call.text if call.text.strip() else _NO_ARGUMENTS)


@final
class _Call:
    """One call, as far as it has come: `closed` once its arguments are a whole object, and with a
    `use` once it was told of."""

    __slots__ = ("_closing", "_last", "_length", "_pieces", "closed", "id", "name", "use")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.closed = False
        self.use: ToolUse | None = None
        self._pieces: list[str] = []
        self._length = 0
        self._last = ""
        self._closing = Closing()

    @property
    def text(self) -> str:
        """The arguments so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def blank(self) -> bool:
        """Whether nothing was said of it but that it is there."""
        return not (self.id or self.name or self._length)

    def ends_before(self, id: str, name: str, arguments: str) -> bool:  # noqa: A002 (the word of the servers)
        """Whether this piece begins another call: what does so is named, and has another id; or none,
        and another name, or comes when the arguments of this one are closed and repeats nothing."""
        if not name or not self.name:
            return False
        if id and self.id:
            return id != self.id
        return name != self.name or (self._closing.closed and not self._repeats(arguments))

    def add(self, id: str, name: str, arguments: str) -> None:  # noqa: A002 (the word of the servers)
        """Raises ValueError for what would change it after it was told of."""
        if self.use is None:
            self.id = self.id or id
            self.name = name or self.name
        elif name and name != self.use.name:
            raise ValueError("a tool call that gets another name after its end")
        if self._repeats(arguments):
            return
        if self.use is not None:
            raise ValueError("a tool call that goes on after its end")
        self._pieces.append(arguments)
        self._length += len(arguments)
        self._last = arguments
        self.closed = self._closing.feed(arguments) and _is_json(self.text)

    def _repeats(self, arguments: str) -> bool:
        """Whether these say nothing new: all so far once more, which would make no JSON, or once
        closed the last piece or space."""
        if self._closing.closed and (arguments == self._last or not arguments.strip()):
            return True
        if not arguments or len(arguments) != self._length:
            return not arguments
        return arguments.lstrip().startswith("{") and arguments == self.text


def _text(arguments: msgspec.Raw) -> str:
    """Arguments as text, which they are already for most servers."""
    raw = bytes(arguments)
    if raw in {b"", b"null"}:
        return ""
    return msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw.decode()


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _told(use: ToolUse) -> dict[str, object]:
    function = {"name": use.name, "arguments": use.arguments}
    return {"id": use.id, "type": "function", "function": function}
