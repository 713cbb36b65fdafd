"""How a session went, twice: all of it, and as much of it as others may learn from."""

from collections.abc import Callable, Iterable
from copy import copy
from typing import final

from paceline.predict.course import Course
from paceline.predict.events import Called, Event, Said, Step
from paceline.predict.outcomes import flags

__all__ = ["Courses"]


@final
class Courses:
    """`own` is all of it. `public` has calls of public tools alone, and what was said in turns in which
    there was one: a turn that led to nothing public leaves nothing in it. Only the turn under way is in
    it in any case, as nobody knows yet what it leads to. Of results it has the flags alone."""

    __slots__ = ("_before", "led", "names", "own", "public")

    def __init__(self, declared: Iterable[str], names: frozenset[str]) -> None:
        """`names` are the public tools."""
        self.names = names
        self.own = Course(declared)
        self.public = Course(each for each in declared if each in names)
        self._before = self.public.copy()
        """The public one before the turn."""
        self.led = False
        """Whether the turn led to a call of a public tool."""

    def hear(self, event: Event) -> None:
        """A message, or a step with its results."""
        self.own.hear(event)
        if not self.names:
            return
        if isinstance(event, Said):
            if event.by_user:
                self._before = self._lasting().copy()
                self.public, self.led = self._before.copy(), False
            self.public.hear(event)
            return
        calls = tuple(call for call in event.calls if call.name in self.names)
        if calls:
            self.public.hear(Step(calls, event.said))
            # Words in a result may be about one person, whoever may ask for them.
            self.public.marks = flags(calls[-1])
            self.led = True

    def ask(self, call: Called) -> None:
        """One more call of a step, whose results are not there yet."""
        self.own.ask(call)
        if call.name in self.names:
            self.public.ask(call)
            self.led = True

    def suppose(self, name: str, came: str) -> None:
        """Goes on as if a tool had been called, and this class of outcome had come of it."""
        self.own.suppose(name, came)
        if name in self.names:
            self.public.suppose(name, came)

    def suppose_answers(self, asked: Iterable[str], came: Callable[[str], str]) -> None:
        """Goes on as if the calls of the step under way had come to what calls of these tools come to."""
        names = list(asked)
        self.own.suppose_answers([came(name) for name in names])
        self.public.suppose_answers([came(name) for name in names if name in self.names])

    def copy(self) -> "Courses":
        """Others that go on by themselves."""
        return self._with(self.own.copy(), self.public.copy())

    def idle(self) -> "Courses":
        """As they are before the user speaks: what the next turn will begin with."""
        return self._with(self.own.idle(), self._lasting().idle())

    def ended(self) -> Course:
        """The public one at the end of a turn. Of one that led to nothing public it has no word: that
        such a turn was is all there is to learn of it."""
        if self.led:
            return self.public
        course = self._before.copy()
        course.hear(Said(""))
        return course

    def _lasting(self) -> Course:
        """The public one as it is when the turn is over."""
        return self.public if self.led else self._before

    def _with(self, own: Course, public: Course) -> "Courses":
        other = copy(self)
        other.own, other.public = own, public
        return other
