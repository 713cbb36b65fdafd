"""A turn that is gone through before the user begins it, as far as that changes nothing.

What the user is likely to write is put to the model, the tools that it asks for are run, what they
return is put to it again, and so on until it has its answer. Each of these is an ordinary call of
`Priority.SPECULATIVE`, and the very one that the turn itself would make: so that finds them all.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, final

from paceline.call import Call, Outcome, Priority
from paceline.engine.states import ExecutionContext
from paceline.engine.supposed import SupposedTurn
from paceline.messages import ModelReply, ModelRequest
from paceline.path.job import Job
from paceline.speculation.speculator import Chance, Speculator, Tools

if TYPE_CHECKING:
    from paceline.engine.protocols import Preparation

__all__ = ["Models", "Rehearsal", "Talk"]

_MOST_STEPS: Final = 4


class Models(Protocol):
    """The models of a session, as far as they may be asked ahead."""

    def ahead(
        self, request: ModelRequest, context: ExecutionContext
    ) -> tuple[Call, Job, float | None] | None:
        """What asks the first model, if its answer is kept for who asks the same later; and about what
        that costs in US dollars, None where it may cost something and nobody knows how much."""
        ...

    def reply(self, outcome: Outcome) -> ModelReply | None:
        """The answer that came of it; None if none did."""
        ...


class Talk(Protocol):
    """What is said in a session."""

    @property
    def models(self) -> Models:
        """Those that it asks."""
        ...

    def suppose(self, text: str) -> SupposedTurn | None:
        """The turn that this message would begin; None where there is nothing to begin it with."""
        ...


@final
class Rehearsal:
    """Goes through the likely next turn of one session, for as long as nothing is said there. It takes
    no time of anybody: what it waits for tells it.

    It ends where a tool is not one that may be run ahead, where a launch is refused and nothing is
    left to wait for, where something fails, and after four answers of the model.
    """

    __slots__ = (
        "_asked", "_chance", "_context", "_foreseen", "_launch", "_prepared", "_results", "_running",
        "_speculator", "_talk", "_tools", "_turn", "_whole",
    )  # fmt: skip

    def __init__(
        self,
        talk: Talk | None,
        tools: Tools,
        context: ExecutionContext,
        speculator: Speculator,
        chance: Callable[[float, str | None], Chance],
        *,
        launch: Callable[[Call, Job, Chance, Callable[[Outcome], object]], str],
    ) -> None:
        """Without `talk` there is nothing to go through. `chance` is what is thought of a call of this
        tool, or of the model (None), in a turn of this probability; `launch` is as the speculator's."""
        self._talk = talk
        self._tools = tools
        self._context = context
        self._speculator = speculator
        self._chance = chance
        self._launch = launch
        self._turn: tuple[SupposedTurn, float] | None = None
        """The one that it is at, and how likely that is."""
        self._asked = 0
        self._foreseen: set[tuple[str, str]] = set()
        self._prepared: list[Preparation] = []
        self._results: list[str | None] = []
        """Of those that were begun, by their place."""
        self._running = 0
        self._whole = False
        """Whether those are all that the model asked for."""

    def begin(self, text: str, probability: float) -> None:
        """Goes through the turn that this message would begin, in place of any other."""
        self.clear()
        turn = None if self._talk is None else self._talk.suppose(text)
        if turn is not None:
            self._turn, self._asked = (turn, probability), 0
            self._ask(turn)

    def stop(self) -> None:
        """Begins nothing more. What runs goes on, for who asks for it."""
        self._turn = None

    def clear(self) -> None:
        """The same, and what it was at is over."""
        self.stop()
        self._foreseen.clear()

    def foresaw(self, name: str, arguments: str) -> bool:
        """Whether it had this tool use run ahead, in the turn that it was at last."""
        return (name, arguments) in self._foreseen

    def _at(self, turn: SupposedTurn) -> bool:
        return self._turn is not None and self._turn[0] is turn and turn.holds

    def _ask(self, turn: SupposedTurn) -> None:
        """Asks the model what it would do next."""
        if self._talk is None or self._asked >= _MOST_STEPS or not self._at(turn):
            return
        request = turn.request(self._tools.definitions())
        asked = self._talk.models.ahead(request, self._context)
        if asked is None or self._turn is None:
            return
        call, job, usd = asked
        chance = self._chance(self._turn[1], None)._replace(usd=usd)
        if self._begin(call, job, chance, partial(self._answered, turn)):
            self._asked += 1

    def _answered(self, turn: SupposedTurn, outcome: Outcome) -> None:
        """The model would say this."""
        reply = None if self._talk is None else self._talk.models.reply(outcome)
        if reply is None or not self._at(turn):
            return
        uses = turn.replied(reply)
        self._prepared, self._results, self._running = [], [], 0
        for use in uses:
            prepared = self._tools.ahead(use)
            if prepared is None:
                break  # those before it are asked for all the same
            self._prepared.append(prepared)
            self._speculator.proposed(use.name)
        self._whole = len(self._prepared) == len(uses)
        self._go_on(turn)

    def _go_on(self, turn: SupposedTurn) -> None:
        """Begins what there is a place for. When all of it is there, the model is told."""
        while len(self._results) < len(self._prepared) and self._run(turn, len(self._results)):
            self._results.append(None)
            self._running += 1
        if self._running or not self._whole:
            return
        texts = [text for text in self._results if text is not None]
        if len(texts) < len(self._prepared) or not texts:
            return
        if turn.stepped(list(zip(self._prepared, texts, strict=True))):
            self._ask(turn)

    def _run(self, turn: SupposedTurn, place: int) -> bool:
        if self._turn is None:
            return False
        prepared = self._prepared[place]
        call, job = self._tools.call(
            prepared, self._context, priority=Priority.SPECULATIVE, timeout_s=None
        )
        use = prepared.use
        chance = self._chance(self._turn[1], use.name)
        begun = self._begin(call, job, chance, partial(self._returned, turn, place))
        if begun:
            self._foreseen.add((use.name, use.arguments))
        return begun

    def _returned(self, turn: SupposedTurn, place: int, outcome: Outcome) -> None:
        """A tool would return this."""
        if not self._at(turn):
            return
        if outcome.error is not None:
            self.stop()
            return
        self._running -= 1
        self._results[place] = self._tools.text(outcome)
        self._go_on(turn)

    def _begin(
        self, call: Call, job: Job, chance: Chance, then: Callable[[Outcome], object]
    ) -> bool:
        return not (
            self._speculator.objection(call, chance) or self._launch(call, job, chance, then)
        )
