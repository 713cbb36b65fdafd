"""What a session offers, twice: all of it, and as much of it as others may learn from."""

from collections import deque
from collections.abc import Container
from typing import Final, final

from paceline.predict.context import Context
from paceline.predict.events import Called, Event, Said, Step, Tools

__all__ = ["Contexts"]

_MOST_WAITING: Final = 32  # messages of a turn, the last ones


@final
class Contexts:
    """`own` is all of it. `public` has calls of public tools alone, and what was said in turns in which
    there was one (see `Courses`). A context cannot go back: what is said waits until a public tool is
    called, and is dropped where none is. Sessions in which none ever is have no second context."""

    __slots__ = ("_led", "_public", "_waiting", "_year", "own")

    def __init__(self, scope: str, tools: Tools, year: int | None = None) -> None:
        self.own = Context(scope, tools, year=year)
        self._year = year
        self._public: Context | None = None
        self._waiting: deque[Said] = deque(maxlen=_MOST_WAITING)
        """What was said in the turn, as long as it led to nothing public."""
        self._led = False

    def lead(self) -> Context:
        """The public one, now that the turn leads to a call of a public tool: it hears what was said."""
        if self._public is None:
            self._public = Context(self.own.scope, self.own.tools, year=self._year)
        for said in self._waiting:
            self._public.say(said)
        self._waiting.clear()
        self._led = True
        return self._public

    def hear(self, event: Event, names: Container[str]) -> None:
        """A message, or a step with its results; `names` are the public tools."""
        self.own.hear(event)
        if isinstance(event, Step):
            calls = tuple(call for call in event.calls if call.name in names)
            if calls:
                self.lead().step(Step(calls, event.said))
            return
        if event.by_user:
            self._waiting.clear()
            self._led = False
        self._waiting.append(event)
        if self._led:
            self.lead()

    def ask(self, call: Called, names: Container[str]) -> None:
        """One more call of a step, whose results are not there yet."""
        self.own.ask(call)
        if call.name in names:
            self.lead().ask(call)
