"""What a session needs of others: models to ask, tools to run, and a journal to go on from."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from paceline.call import Effect, Outcome, Priority
from paceline.engine.journal import Entry
from paceline.engine.states import ExecutionContext, PerformanceHints
from paceline.messages import Hear, ModelRequest, ToolDefinition, ToolUse

if TYPE_CHECKING:
    from paceline.predict.execution import ExecutionPattern

__all__ = ["Foresight", "Models", "Preparation", "Tools"]


class Preparation(msgspec.Struct, frozen=True):
    """A tool use that can be run: its arguments are those the tool takes.

    `arguments` are values by name; `key` is the same for calls that ask the same thing of the same
    tool; `effect` is that of this very call, `timeout_s` the limit of one execution, None for the
    default; `approval` says that a person has to agree first. `question` is what the user is asked
    where the tool is a question; it is not run then. `cost_usd` is what an execution costs, if its
    outcome does not say.
    """

    use: ToolUse
    arguments: dict[str, object]
    key: str
    effect: Effect
    timeout_s: float | None = None
    approval: bool = False
    question: str | None = None
    cost_usd: float = 0.0


class Tools(Protocol):
    """The tools of a session, each run on the one call path."""

    def definitions(self) -> tuple[ToolDefinition, ...]:
        """All that the model may use; the same object until they change."""
        ...

    def prepare(self, use: ToolUse) -> Preparation:
        """The use, checked. Raises InvalidInputError for arguments that are not JSON or not those
        of the tool, saying which; UnknownAgentError with the nearest names. Runs nothing."""
        ...

    def run(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> Awaitable[Outcome]:
        """Runs it once it is awaited, within so many seconds; what fails is in the outcome. Retries are made there, as
        the effect allows. Cancelled, it stops what it started. `value` is what the tool returned."""
        ...

    def text(self, outcome: Outcome) -> str:
        """The value of a successful outcome as the model is told it, bounded in length."""
        ...


class Models(Protocol):
    """The model of a session, asked on the one call path."""

    async def ask(
        self,
        request: ModelRequest,
        context: ExecutionContext,
        *,
        hear: Hear | None,
        timeout_s: float | None,
    ) -> Outcome:
        """What came of it; the value of a successful one is a ModelReply. `hear` is told the parts
        as they come, and all of what is served again at once."""
        ...

    @property
    def answered(self) -> bool:
        """Whether the first of them has ever answered here: what was there may well come back."""
        ...

    def fallbacks(self) -> Sequence[str]:
        """The models that are asked in turn when the first cannot answer; names, for people."""
        ...


class Foresight(Protocol):
    """Who looks ahead in one session: told of each turn as it goes on. All of it
    returns at once, raises nothing, and changes nothing that the session can see."""

    @property
    def hints(self) -> PerformanceHints:
        """What is likely to come, as far as that is known."""
        ...

    @property
    def pattern(self) -> "ExecutionPattern | None":
        """The calls that are likely until the turn ends, and what they take; None if none is."""
        ...

    def recall(self, entries: Iterable[Entry]) -> None:
        """The session is gone on with: what its journal says of what was before, the latest first."""
        ...

    def asking(self) -> None:
        """The model is asked."""
        ...

    def heard(self, entry: Entry) -> None:
        """What the journal of the session would say next."""
        ...
