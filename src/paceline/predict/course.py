"""How a session went so far, as far as it tells the next tool: contexts, and features of them."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

from paceline.predict.events import Called, Event, Said
from paceline.predict.outcomes import marks, outcome_class
from paceline.predict.prompts import name_stems, stems

__all__ = ["Course", "contexts_of", "features_of"]

_ORDER: Final = 3
_MOST_TOOLS: Final = 12  # of a session, that are remembered as used
_ASKED: Final = 24  # words of the user's message
_SAID: Final = 16  # words of the assistant's
_GOAL: Final = 12  # of the user's first
_NO_ARGUMENTS: Final[Mapping[str, object]] = {}


@final
class Course:
    """What the next tool is told by, of a session so far: kept as it goes on, never longer."""

    __slots__ = (
        "asked", "declared", "goal", "last", "marks", "moment", "opinions", "recent", "said",
        "so_far", "steps", "turn", "words",
    )  # fmt: skip

    def __init__(self, declared: Iterable[str] = ()) -> None:
        self.declared: dict[str, list[str]] = {}
        """Tools that may be called, by the words of their names."""
        for name in declared:
            for stem in name_stems(name):
                self.declared.setdefault(stem, []).append(name)
        self.moment = "start"
        """start, user, assistant, step, asked: within a step, its results not there yet; or idle:
        before the user says what the next turn is about."""
        self.recent: deque[tuple[str, str]] = deque(maxlen=_ORDER)
        self.so_far: dict[str, None] = {}
        self.turn: dict[str, int] = {}
        self.steps = 0
        self.goal: tuple[str, ...] = ()
        self.asked: tuple[str, ...] = ()
        self.said: tuple[str, ...] = ()
        self.marks: list[str] = []
        self.last = 0  # calls of the step under way
        self.words: dict[str, list[str]] = {}
        """The features of the messages, within a step and not, once they were asked for."""
        self.opinions: tuple[object, int, object] | None = None
        """What a model made of this moment, when it had observed so much."""

    def hear(self, event: Event) -> None:
        """A message, or a step with its results."""
        self.opinions = None
        if isinstance(event, Said):
            self._say(event)
            return
        for call in event.calls[self.last :]:
            self.ask(call)
        for place, call in enumerate(reversed(event.calls[-_ORDER:])):
            self.recent[-1 - place] = (call.name, outcome_class(call))
        if event.calls:
            self.marks = marks(event.calls[-1])
        if event.said:
            self._heard_of_model(event.said)
        self.moment, self.last = "step", 0
        self.steps += 1

    def ask(self, call: Called) -> None:
        """One more call of a step, whose results are not there yet."""
        self.opinions = None
        self.recent.append((call.name, "asked"))
        self.so_far[call.name] = None
        if len(self.so_far) > _MOST_TOOLS:
            del self.so_far[next(iter(self.so_far))]
        self.turn[call.name] = self.turn.get(call.name, 0) + 1
        self.moment = "asked"
        self.last += 1

    def suppose(self, name: str, came: str) -> None:
        """Goes on as if a tool had been called, and this class of outcome had come of it."""
        self.ask(Called(name, _NO_ARGUMENTS))
        self.suppose_answers([came])

    def suppose_answers(self, came: Sequence[str]) -> None:
        """Goes on as if these classes of outcome had come of the calls of the step under way."""
        self.opinions = None
        for place, each in enumerate(reversed(came[-_ORDER:])):
            self.recent[-1 - place] = (self.recent[-1 - place][0], each)
        self.moment, self.last = "step", 0
        self.steps += 1

    def copy(self) -> "Course":
        """Another that goes on by itself."""
        other = Course()
        other.declared = self.declared
        other.moment, other.recent, other.steps = self.moment, self.recent.copy(), self.steps
        other.so_far, other.turn = self.so_far.copy(), self.turn.copy()
        other.goal, other.asked, other.said = self.goal, self.asked, self.said
        other.marks, other.last = self.marks, self.last
        return other

    def idle(self) -> "Course":
        """As it is before the user speaks: what the next turn will begin with."""
        other = self.copy()
        other.moment = "idle"
        return other

    def _say(self, said: Said) -> None:
        if not said.by_user:
            self._heard_of_model(said.text)
            self.moment = "assistant"
            return
        self.words = {}
        self.asked = stems(said.text, most=_ASKED)
        self.goal = self.goal or self.asked
        self.moment, self.steps = "user", 0
        self.turn = {}

    def _heard_of_model(self, text: str) -> None:
        self.words = {}
        self.said = stems(text, most=_SAID)


def contexts_of(course: Course) -> list[str]:
    """The contexts of a moment, from none at all to the last calls, each with what came of it.

    Those of an idle session share none with the others: what a turn begins with, whatever the user
    will say, is another question than what comes after what was said.
    """
    key = course.moment
    contexts = [key] if key == "idle" else ["", key]
    recent = course.recent
    if not recent:
        return contexts
    name, came = recent[-1]
    contexts.append(key := f"{key} {name}")
    contexts.append(key := f"{key} {came}")
    for name, _ in list(recent)[-2::-1]:
        contexts.append(key := f"{key} {name}")
    return contexts


def features_of(course: Course) -> list[str]:
    """What the words, marks and tools of a moment are weighed by."""
    moment, within = course.moment, "+" if course.moment in {"step", "asked"} else "-"
    recent = course.recent
    features = ["b", "k" + moment, f"n{moment}{min(course.steps, 4)}"]
    if recent:
        name, came = recent[-1]
        features += (f"l{moment} {name}", f"o{moment} {name} {came}")
    if len(recent) > 1:
        features.append(f"m{recent[-2][0]}")
    if moment == "idle":
        return ["i" + each for each in (*features, *course.so_far)]
    features += [f"s{name}" for name in course.so_far]
    features += [f"t{name} {min(times, 3)}" for name, times in course.turn.items()]
    words = course.words.get(within)
    if words is None:
        words = [f"u{within}{stem}" for stem in course.asked]
        words += [f"a{within}{stem}" for stem in course.said]
        if course.goal is not course.asked:
            words += [f"g{stem}" for stem in course.goal[-_GOAL:]]
        course.words[within] = words
    features += words
    if within == "+":
        features += [f"r{mark}" for mark in course.marks]
    return features
