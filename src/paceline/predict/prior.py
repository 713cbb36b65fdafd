"""What all sessions learn from together: what is done with tools that are the same for everybody."""

import hashlib
from collections.abc import Collection, Container, Generator, Mapping, Sequence
from typing import Final, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.courses import Courses
from paceline.predict.events import Called
from paceline.predict.knowledge import Knowledge, MakeArguments
from paceline.predict.moments import Moment
from paceline.predict.sequence import END
from paceline.predict.session import Guess, Session
from paceline.predict.values import canonical

__all__ = ["Prior"]

_MOST_VALUES: Final = 5_000  # of which it is known who used them
_SEVERAL: Final = ""


@final
class Prior:
    """Who has done little yet is proposed what others did with public tools.

    A value is only learnt once a second scope uses it for the same argument: until then there is but
    a number that stands for it, beside one that stands for the scope. And it is only learnt from public
    tools, and from what was said in turns with a call of one (see `Courses` and `Contexts`). Raises CodecError where `saved` is not what `saving`
    came to.
    """

    def __init__(self, arguments: MakeArguments, patterns: int, saved: object = None) -> None:
        state = _Saved() if saved is None else _converted(saved)
        self.knowledge = Knowledge(arguments, patterns, state.knowledge)
        self._used_by = state.used_by

    def learn(self, session: Session, call: Called) -> None:
        """A call that was made in a session."""
        if call.name not in session.public:
            return
        self.knowledge.sequence.observe(session.courses.public, call.name)
        private = self._private(session.scope, call)
        self.knowledge.arguments.observe(call, session.contexts.lead(), private)

    def learn_step(self, session: Session, calls: Sequence[Called]) -> None:
        """The calls of a step, before each of them is learnt of."""
        public = session.public
        if any(call.name in public for call in calls):
            self.knowledge.fans.learn(calls, session.contexts.lead(), public)

    def learn_first(self, session: Session, before: Courses, name: str) -> None:
        """What a turn of a session began with, as seen from before it."""
        if (name == END and session.public) or name in session.public:
            self.knowledge.sequence.observe(before.public, name)

    def learn_end(self, session: Session) -> None:
        """A turn of a session ended."""
        if session.public:
            self.knowledge.sequence.observe(session.courses.ended(), END)

    def took(
        self,
        session: Session,
        calls: Sequence[Called],
        took_s: Sequence[float | None],
        used: Sequence[Mapping[str, float]],
    ) -> None:
        """The seconds and the resources of calls in a session, as of `Knowledge`."""
        self.knowledge.took(calls, took_s, used, session.public)

    def score(
        self,
        proposed: Sequence[Guess],
        came: Container[tuple[str, str]],
        moment: Moment,
        public: Container[str],
    ) -> None:
        """Which of what was proposed came, as of `Knowledge`: of public tools."""
        known = [guess for guess in proposed if guess.proposal.name in public]
        self.knowledge.score(known, came, moment)

    def forget(self, *scopes: str) -> None:
        """Drops that it was one of these scopes that used a value: who uses it next is the first."""
        gone = {_number(scope) for scope in scopes}
        self._used_by = {value: by for value, by in self._used_by.items() if by not in gone}

    def saving(self) -> Generator[None, None, dict[str, object]]:
        """All of it as plain data, made bit by bit."""
        knowledge = yield from self.knowledge.saving()
        return {"knowledge": knowledge, "used_by": self._used_by.copy()}

    def _private(self, scope: str, call: Called) -> Collection[str]:
        """The arguments of a call whose values no other scope has used."""
        found: list[str] = []
        used_by, number = self._used_by, _number(scope)
        for name, value in call.arguments.items():
            key = _number(call.name, name, canonical(value))
            by = used_by.pop(key, number)
            used_by[key] = by if by == number else _SEVERAL
            if by == number:
                found.append(name)
        while len(used_by) > _MOST_VALUES:
            del used_by[next(iter(used_by))]
        return found


class _Saved(msgspec.Struct):
    """The form of what `Prior.saving` comes to."""

    knowledge: object = None
    used_by: dict[str, str] = {}


def _converted(saved: object) -> _Saved:
    try:
        return msgspec.convert(saved, _Saved)
    except msgspec.ValidationError as exc:
        raise CodecError(f"what all learnt from cannot be read: {exc}") from exc


def _number(*parts: str) -> str:
    text = "\n".join(parts).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=8).hexdigest()
