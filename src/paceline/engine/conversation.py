"""What a model is shown of a conversation, within a number of turns and of tokens.

A conversation is a row of turns, a turn a row of steps: what the user said, then each answer with
the results of the tools it wanted, which models refuse to see apart. Whole turns give way, the
oldest first; if the running turn alone is too long, its oldest steps do, but never the message it
began with nor the latest step. A summary stands for what is gone.

Showing the conversation costs what was added since, not what was said in all. When tokens are
short a quarter of them is freed at once, so that between two such moments the messages only grow
at the end, and what a provider has read of them before it need not read again.

A model that says that it was shown too much says so of all that long: half of it gives way, and as
much is not shown again.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import pairwise
from math import inf
from typing import Final, final

import msgspec

from paceline.call import Tokens
from paceline.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolMessage,
    ToolUse,
    UserMessage,
)

__all__ = ["Compaction", "Conversation", "Summarise", "Summary", "clip_results", "estimate_tokens"]

_CHARACTERS: Final = 4
"""Of one token, about; English text and code."""
_FREED: Final = 0.75
_HALF: Final = 0.5
_REFUSED: Final = 0.9
"""Of what a model refused, what it may be shown."""
_TOLD: Final = 0.125
"""Of that, what a summary may be."""
_SHORTEST: Final = 400
"""Characters that are left of the result of a tool in any case."""
_SHARE: Final = 4
_WAITING: Final = 20
_LINE: Final = 200
_LINES: Final = 40
_UNSUMMED: Final = 2_000
_LONGEST: Final = 8_000
_HEADING: Final = "Earlier in this conversation, shortened (a record, no instructions):"


class Summary(msgspec.Struct, frozen=True):
    """What stands for messages that are no longer shown, and what it took to make it."""

    text: str
    tokens: Tokens | None = None
    cost_usd: float | None = None


Summarise = Callable[[str, tuple[Message, ...]], "str | Summary | Awaitable[str | Summary]"]
"""Makes a summary of the one so far and of messages that are dropped."""


class Compaction(msgspec.Struct, frozen=True):
    """How a conversation is shown shorter than it was: `summary` stands for all before the turn
    `first`, and for the `skipped` messages of that one which follow what it began with. Results of
    tools were clipped to `longest` characters just now, 0 for not at all. `max_tokens` are what it is
    bound to since a model refused it, 0 if none did."""

    summary: str
    first: str
    skipped: int = 0
    longest: int = 0
    max_tokens: float = 0.0


def estimate_tokens(message: Message) -> int:
    """About how many tokens a message has: a quarter of its characters, and one for its role."""
    length = len(message.text)
    if isinstance(message, AssistantMessage):
        for use in message.uses:
            length += len(use.name) + len(use.arguments)
    return 1 + length // _CHARACTERS


class _Turn:
    __slots__ = ("id", "messages", "skipped")

    def __init__(self, turn_id: str) -> None:
        self.id = turn_id
        self.messages: list[Message] = []
        self.skipped = 0

    def copy(self) -> "_Turn":
        """The same, for itself."""
        turn = copy(self)
        turn.messages = self.messages.copy()
        return turn

    def steps(self) -> Iterator[list[Message]]:
        """Messages that only make sense together: what was said, and results of tools."""
        said = [n for n, one in enumerate(self.messages) if not n or not _is_result(one)]
        for begin, end in pairwise((*said, len(self.messages))):
            yield self.messages[begin:end]


@final
class Conversation:
    """The messages of a session, from the system's own to the latest.

    `max_turns` and `max_tokens` (by `estimate`, the system's and pinned messages included) bound
    what is shown; 0 is no bound. What is dropped leaves a line for each turn in the summary at
    once; `summarise`, where there is one, makes a better one when `compact` is awaited.
    """

    __slots__ = (
        "_added",
        "_bounded",
        "_dropped",
        "_estimate",
        "_lines",
        "_longest",
        "_max_tokens",
        "_max_turns",
        "_most_told",
        "_pinned",
        "_read",
        "_rebuild",
        "_shown",
        "_summarise",
        "_summary",
        "_summed",
        "_system",
        "_tokens",
        "_told",
        "_turns",
        "_unsummed",
        "stale",
    )

    def __init__(
        self,
        system: str = "",
        *,
        max_turns: int = 100,
        max_tokens: int = 0,
        estimate: Callable[[Message], int] = estimate_tokens,
        summarise: Summarise | None = None,
    ) -> None:
        if max_turns < 0 or max_tokens < 0:
            raise ValueError("a bound of a conversation is 0 or more")
        self._system: tuple[Message, ...] = (SystemMessage(system),) if system else ()
        self._max_turns = max_turns or inf
        self._max_tokens = max_tokens or inf
        self._estimate = estimate
        self._summarise = summarise
        self._pinned: tuple[Message, ...] = ()
        self._turns: list[_Turn] = []
        self._bounded = max_tokens > 0
        self._tokens = self._weigh(self._system)
        self._summary: UserMessage | None = None
        self._summed = ""  # what `summarise` made of all before the lines
        self._lines: list[str] = []
        self._told = 0  # lines ever
        self._most_told = inf  # characters of the summary
        self._longest = 0
        self._read = 0.0  # tokens that a model may be able to read, once one refused more
        self._unsummed: list[Message] = []
        self.stale = False
        """Whether there is enough for `compact` to do: all that made place for tokens, or a quarter
        of the turns."""
        self._dropped = 0
        self._shown: tuple[Message, ...] = self._system
        self._added: list[Message] = []
        self._rebuild = False

    @property
    def tokens(self) -> int:
        """About how many tokens it has as it is shown."""
        return self._tokens if self._bounded else sum(map(self._estimate, self.messages()))

    @property
    def turns(self) -> int:
        """How many turns are shown."""
        return len(self._turns)

    @property
    def memory(self) -> int | None:
        """How many of the last turns it is made of, those that it only tells of included; None for
        all. What was said before may be left out when it is filled again."""
        if self._summarise is not None or self._max_turns == inf:
            return None
        return int(self._max_turns) + _LINES

    @property
    def dropped(self) -> int:
        """How many turns are no longer shown."""
        return self._dropped

    @property
    def summary(self) -> str:
        """What stands for all that is no longer shown."""
        return "" if self._summary is None else self._summary.text

    def add(self, message: Message, turn_id: str) -> None:
        """Adds what was said last; a turn id other than the one before begins a new turn."""
        self.extend((message,), turn_id)

    def extend(self, messages: Sequence[Message], turn_id: str) -> None:
        """Adds several."""
        turns = self._turns
        if not turns or turns[-1].id != turn_id:
            turns.append(_Turn(turn_id))
        turns[-1].messages += messages
        self._added += messages
        if self._bounded:  # else nobody needs to know
            self._tokens += self._weigh(messages)
        if len(turns) > self._max_turns or self._tokens > self._max_tokens:
            self._bound()

    def messages(self) -> tuple[Message, ...]:
        """All that a model is shown: the system's, pinned ones, the summary, then the turns. The
        same object until something changes."""
        if self._rebuild:
            self._shown = (
                *self._system,
                *self._pinned,
                *(() if self._summary is None else (self._summary,)),
                *(message for turn in self._turns for message in turn.messages),
            )
        elif self._added:
            self._shown += tuple(self._added)
        else:
            return self._shown
        self._rebuild = False
        self._added.clear()
        return self._shown

    def pin(self, message: SystemMessage | UserMessage) -> None:
        """Shows a message before all turns, whatever is dropped."""
        self._pinned += (message,)
        self._tokens += self._weigh((message,))
        self._rebuild = True
        self._bound()

    def unpin(self, message: SystemMessage | UserMessage) -> bool:
        """Takes a pinned message away; returns whether it was there."""
        if message not in self._pinned:
            return False
        at = self._pinned.index(message)
        self._pinned = self._pinned[:at] + self._pinned[at + 1 :]
        self._tokens -= self._weigh((message,))
        self._rebuild = True
        return True

    def unanswered(self) -> tuple[ToolUse, ...]:
        """The tool uses of the latest step without a result so far; a model expects one for each
        before anything else is said."""
        if not self._turns:
            return ()
        *_, (first, *results) = self._turns[-1].steps()
        if not isinstance(first, AssistantMessage):
            return ()
        answered = [m.use_id for m in results if isinstance(m, ToolMessage)]
        left: list[ToolUse] = []
        for use in first.uses:  # ids need not be unique, so each result answers one use
            if use.id in answered:
                answered.remove(use.id)
            else:
                left.append(use)
        return tuple(left)

    def copy(self) -> "Conversation":
        """The same, for itself: what is said in the one is not said in the other."""
        other = copy(self)  # which keeps the lists: from now on we have others
        self._turns = [turn.copy() for turn in self._turns]
        self._lines, self._unsummed = self._lines.copy(), self._unsummed.copy()
        self._added = self._added.copy()
        return other

    @property
    def compaction(self) -> Compaction:
        """What there is to know to show it again as it is shown now, besides what was said."""
        first = self._turns[0] if self._turns else None
        return Compaction(
            self._body(),
            "" if first is None else first.id,
            0 if first is None else first.skipped,
            self._longest,
            self._read,
        )

    def restore(self, compaction: Compaction) -> None:
        """Before anything is said: begins with the summary of what was said before. What was shown
        beside it is to be added."""
        self._summed = compaction.summary
        if compaction.max_tokens:
            self._stay_below(compaction.max_tokens)
        if compaction.summary:
            self._tell()

    def shorten(self) -> bool:
        """A model says that this is too long: leaves out about half, the oldest first, and of the
        results of tools that are left so much that it fits. From now on it stays shorter than what
        was refused. False if there is nothing that may be left out."""
        shown, told = sum(map(self._estimate, self.messages())), self._told
        self._longest = 0
        self._stay_below(shown * _REFUSED)
        enough = shown * _HALF
        self._drop(enough)
        if self._told > told or len(self._body()) > self._most_told:
            self._tell()
        if self._tokens > enough and self._turns:
            self._clip(self._turns[-1], enough)
        return self._tokens < shown

    async def compact(self) -> Summary | None:
        """Has `summarise` make the summary of what was dropped since it was asked last; returns it,
        None if there was too little. What it raises is raised, and the summary stays as it was."""
        if self._summarise is None or not self.stale:
            return None
        dropped, told = tuple(self._unsummed), self._told
        self._unsummed.clear()
        self.stale = False
        try:
            made = self._summarise(self._summed, dropped)
            made = made if isinstance(made, (str, Summary)) else await made
        except BaseException:
            self._unsummed[:0] = dropped
            self.stale = True
            raise
        summary = Summary(made) if isinstance(made, str) else made
        self._summed = _clipped(summary.text, _LONGEST)
        del self._lines[: max(0, len(self._lines) - (self._told - told))]
        self._longest = 0
        self._tell()
        self._bound()
        return summary

    def _bound(self) -> None:
        """Drops what is too much."""
        turns, told = self._turns, self._told
        while len(turns) > self._max_turns:
            self._drop_turn()
        if self._tokens > self._max_tokens:
            self._drop(self._max_tokens * _FREED)
        if self._told > told:
            self._tell()

    def _stay_below(self, tokens: float) -> None:
        self._bounded, self._read = True, tokens
        self._tokens = self._weigh(self.messages())
        self._max_tokens = min(self._max_tokens, tokens)
        self._most_told = max(_LINE, tokens * _CHARACTERS * _TOLD)

    def _drop(self, enough: float) -> None:
        """Drops the oldest until so many tokens are left."""
        told = self._told
        while self._tokens > enough and len(self._turns) > 1:
            self._drop_turn()
        if self._tokens > enough and self._turns:
            self._drop_steps(self._turns[0], enough)
        self.stale = self.stale or (self._summarise is not None and self._told > told)

    def _clip(self, turn: _Turn, enough: float) -> None:
        """Shortens what tools said in a turn, the longest first, until so many tokens are left."""
        longest = max((len(m.text) for m in turn.messages if _is_result(m)), default=0)
        others, clipped = self._tokens - self._weigh(turn.messages), turn.messages
        while self._tokens > enough and longest > _SHORTEST:
            longest = self._longest = max(_SHORTEST, longest // 2)
            clipped = clip_results(turn.messages, longest)
            self._tokens = others + self._weigh(clipped)
        turn.messages = clipped
        self._rebuild = True

    def _drop_turn(self) -> None:
        turn = self._turns.pop(0)
        self._dropped += 1
        self._forget(turn.messages)
        self._note(turn.messages)

    def _drop_steps(self, turn: _Turn, enough: float) -> None:
        """Drops the oldest steps of a turn, but the first and the last, until so many tokens
        are left."""
        first, *others = turn.steps()
        count = 0
        for step in others[:-1]:
            if self._tokens <= enough:
                break
            self._forget(step)
            self._note(step)
            count += len(step)
        turn.skipped += count
        self._rebuild = self._rebuild or count > 0
        del turn.messages[len(first) : len(first) + count]

    def _forget(self, messages: list[Message]) -> None:
        self._tokens -= self._weigh(messages)
        if self._summarise is not None:
            self._unsummed += messages
            del self._unsummed[:-_UNSUMMED]

    def _note(self, messages: Iterable[Message]) -> None:
        self._lines.append(_digest(messages))
        del self._lines[:-_LINES]
        self._told += 1
        enough = min(self._max_turns, _WAITING * _SHARE)
        if self._summarise is not None and len(self._lines) * _SHARE >= enough:
            self.stale = True

    def _tell(self) -> None:
        """Makes the summary anew of what there is for it."""
        if self._summary is not None:
            self._tokens -= self._weigh((self._summary,))
        most = self._most_told
        while len(self._lines) > 1 and len(self._body()) > most:
            del self._lines[0]
        if len(self._body()) > most:
            self._summed = _clipped(self._summed, int(most))
        self._summary = UserMessage(f"{_HEADING}\n{self._body()}")
        self._tokens += self._weigh((self._summary,))
        self._rebuild = True

    def _body(self) -> str:
        return "\n".join([*([self._summed] if self._summed else []), *self._lines])

    def _weigh(self, messages: Iterable[Message]) -> int:
        """Tokens, as far as they count."""
        return sum(map(self._estimate, messages)) if self._bounded else 0


def clip_results(messages: Iterable[Message], longest: int) -> list[Message]:
    """The same with so many characters at most of each result of a tool: its head and tail."""
    return [
        msgspec.structs.replace(message, text=_middle_out(message.text, longest))
        if isinstance(message, ToolMessage) and len(message.text) > longest
        else message
        for message in messages
    ]


def _middle_out(text: str, most: int) -> str:
    note = f"\n[... {len(text) - most:,} characters left out: the conversation was too long ...]\n"
    head = max(0, most - len(note)) * 2 // 3
    tail = max(0, most - len(note) - head)
    return f"{text[:head]}{note}{text[len(text) - tail :]}"


def _is_result(message: Message) -> bool:
    return isinstance(message, ToolMessage)


def _digest(messages: Iterable[Message]) -> str:
    """One line of what was said and done. What tools returned is left out: it is anybody's."""
    parts: list[str] = []
    for message in messages:
        if isinstance(message, AssistantMessage) and message.uses:
            parts.append("tools: " + ", ".join(use.name for use in message.uses))
        elif isinstance(message, UserMessage | AssistantMessage) and message.text:
            who = "user" if isinstance(message, UserMessage) else "answer"
            parts.append(f"{who}: {_clipped(' '.join(message.text.split()), _LINE)}")
    return "- " + _clipped("; ".join(parts), 3 * _LINE)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"
