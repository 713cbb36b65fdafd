"""What a turn writes down while it runs, so that no tool that must not run twice does, come what may."""

from collections.abc import Awaitable, Callable
from typing import final

from paceline.call import Outcome, Priority
from paceline.engine.conversation import Conversation
from paceline.engine.execution import cost_of
from paceline.engine.journal import Entry, Journal, Record, ToolBegan, ToolEnded, write
from paceline.engine.protocols import Preparation, Tools
from paceline.engine.states import ExecutionContext
from paceline.errors import PacelineError
from paceline.messages import ToolDefinition, ToolUse

__all__ = ["DurableTools", "Notes"]


@final
class Notes:
    """What is known of one turn: in its record, in the conversation, and in the journal if there is
    one. An entry is durable before it counts."""

    __slots__ = ("_conversation", "_journal", "_session_id", "_unsure", "record")

    def __init__(
        self,
        record: Record,
        conversation: Conversation,
        journal: Journal | None,
        session_id: str,
    ) -> None:
        self.record = record
        self._conversation = conversation
        self._journal = journal
        self._session_id = session_id
        self._unsure: Entry | None = None

    async def step(self, entry: Entry) -> None:
        """Notes how the turn goes on, one entry after another."""
        if self._journal is None:
            self.apply(entry)
            return
        self._unsure = entry
        await self.beside(entry)
        self._unsure = None

    async def beside(self, entry: Entry) -> None:
        """Notes what happens beside other things."""
        if self._journal is not None:
            await self._journal.append(self._session_id, write(entry))
        self.apply(entry)

    async def make_sure(self) -> None:
        """Notes the last step once more, if that was cut off and nobody knows whether it is
        there."""
        if self._unsure is not None:
            await self.step(self._unsure)

    def apply(self, entry: Entry) -> None:
        """Lets an entry count, durable or not."""
        messages = self.record.apply(entry)
        if messages:
            self._conversation.extend(messages, self.record.id)


@final
class DurableTools:
    """The tools of one turn, noted by `note`, which returns when an entry is durable."""

    __slots__ = ("_begun", "_note", "_tools", "_turn_id", "error")

    def __init__(
        self, tools: Tools, note: Callable[[Entry], Awaitable[None]], turn_id: str
    ) -> None:
        self._tools = tools
        self._note = note
        self._turn_id = turn_id
        # With the preparation itself, as an id may be given again once its object is gone.
        self._begun: dict[int, tuple[Preparation, int]] = {}
        self.error: PacelineError | None = None
        """Why the end of a tool could not be noted. The tool did run, so that is not its error."""

    async def begin(self, preparation: Preparation, index: int, call_id: str) -> None:
        """Notes that the tool of this use of the last reply is about to run."""
        await self._note(ToolBegan(self._turn_id, index, call_id))
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
            ended = ToolEnded(self._turn_id, index, text, error is not None, cost_usd)
            try:
                await self._note(ended)
            except PacelineError as exc:
                self.error = exc
        return outcome

    def text(self, outcome: Outcome) -> str:
        """As the tools."""
        return self._tools.text(outcome)
