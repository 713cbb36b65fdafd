"""What a turn writes down while it runs, so that no tool that must not run twice does, come what may."""

from typing import final

from paceline.call import Outcome, Priority
from paceline.engine.conversation import Conversation
from paceline.engine.execution import cost_of
from paceline.engine.journal import (
    Compacted,
    Entry,
    Journal,
    Record,
    Replied,
    StepEnded,
    ToolBegan,
    ToolEnded,
    TurnBegan,
    write,
)
from paceline.engine.protocols import Foresight, Preparation, Tools
from paceline.engine.states import ExecutionContext
from paceline.errors import Category, PacelineError
from paceline.messages import ModelRequest, ToolDefinition, ToolUse

__all__ = ["DurableTools", "Notes"]


@final
class Notes:
    """What is known of one turn: in its record, in the conversation, and in the journal if there is
    one. What announces something is durable before it counts; what tells of the past alone is on its
    way, and would be missing after a crash as if that had come a moment sooner."""

    __slots__ = (
        "_conversation", "_foresight", "_journal", "_session_id", "_unsure", "error", "record",
    )  # fmt: skip

    def __init__(
        self,
        record: Record,
        conversation: Conversation,
        journal: Journal | None,
        session_id: str,
        foresight: Foresight | None = None,
    ) -> None:
        self.record = record
        self._foresight = foresight
        self._conversation = conversation
        self._journal = journal
        self._session_id = session_id
        self._unsure: TurnBegan | None = None
        self.error: PacelineError | None = None
        """Why the journal has not all of it, so that the turn must not go on."""

    async def begin(self, began: TurnBegan) -> None:
        """Notes that the turn begins."""
        self._unsure = began
        await self.announce(began)
        self._unsure = None

    async def announce(self, entry: Entry) -> None:
        """Notes what may not be done before that is durable, and all that came before it."""
        if self._journal is not None:
            try:
                await self._journal.append(self._session_id, write(entry))
            except PacelineError as exc:
                self.error = exc
                raise
        self.apply(entry)

    def tell(self, entry: Replied | StepEnded | Compacted) -> None:
        """Notes what is past. If that cannot be written, the next announcement raises."""
        if self._journal is not None:
            self._journal.note(self._session_id, write(entry))
        self.apply(entry)

    async def report(self, entry: ToolEnded) -> None:
        """Notes what was done and must not be forgotten: after a crash nobody could know. Returns once
        it is durable, or cannot be, so that the turn must not go on."""
        self.apply(entry)
        if self._journal is not None:
            try:
                await self._journal.append(self._session_id, write(entry))
            except PacelineError as exc:
                self.error = exc

    async def make_sure(self) -> None:
        """Notes the beginning once more, if that was cut off and nobody knows whether it is
        there."""
        if self._unsure is not None:
            await self.begin(self._unsure)

    def request(self, tools: tuple[ToolDefinition, ...]) -> ModelRequest:
        """What the model is asked now."""
        return ModelRequest(self._conversation.messages(), tools)

    def asked_again(self, request: ModelRequest, error: PacelineError) -> ModelRequest:
        """What the model is asked after this error: the same, or if that was too long what is left of
        the conversation, which is noted."""
        if error.category is not Category.TOO_LONG:
            return request
        self.tell(Compacted(self.record.id, self._conversation.compaction))
        return self.request(request.tools)

    def apply(self, entry: Entry) -> None:
        """Lets an entry count, durable or not."""
        messages = self.record.apply(entry)
        if messages:
            self._conversation.extend(messages, self.record.id)
        if self._foresight is not None:
            self._foresight.heard(entry)


@final
class DurableTools:
    """The tools of one turn, whose beginning and end are in its notes."""

    __slots__ = ("_begun", "_notes", "_tools")

    def __init__(self, tools: Tools, notes: Notes) -> None:
        self._tools = tools
        self._notes = notes
        # With the preparation itself, as an id may be given again once its object is gone.
        self._begun: dict[int, tuple[Preparation, int]] = {}

    async def begin(self, preparation: Preparation, index: int, call_id: str) -> None:
        """Notes that the tool of this use of the last reply is about to run."""
        if self._notes.error is None:
            await self._notes.announce(ToolBegan(self._notes.record.id, index, call_id))
        if self._notes.error is not None:  # of one beside it, too
            raise self._notes.error
        self._begun[id(preparation)] = preparation, index

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """As the tools."""
        return self._tools.definitions()

    def prepare(self, use: ToolUse) -> Preparation:
        """As the tools."""
        return self._tools.prepare(use)

    async def run(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> Outcome:
        """As the tools; the end of what began is noted."""
        outcome = await self._tools.run(
            preparation, context, priority=priority, timeout_s=timeout_s
        )
        _, index = self._begun.pop(id(preparation), (None, None))
        if index is not None:
            error = outcome.error
            text = self._tools.text(outcome) if error is None else error.message
            cost_usd = cost_of(preparation, outcome)
            turn_id = self._notes.record.id
            await self._notes.report(ToolEnded(turn_id, index, text, error is not None, cost_usd))
        return outcome

    def text(self, outcome: Outcome) -> str:
        """As the tools."""
        return self._tools.text(outcome)
