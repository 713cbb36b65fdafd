"""What a user is likely to write next, word for word, so that a model can be asked ahead."""

import hashlib
from collections.abc import Generator, Mapping
from typing import Annotated, Final, cast, final

import msgspec

from paceline.clock import Clock
from paceline.errors import CodecError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.events import Called, Said, Step
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.kept import packed
from paceline.speculation.learnt import learnt_of
from paceline.speculation.scopes import lasting

__all__ = ["MOST_BYTES", "Messages", "NextMessage", "fitting", "heard_of"]

MOST_BYTES: Final = 8 * 1024**2
"""What habits of messages may take of the file."""

_SAYS: Final = "says"
_TEXT: Final = "text"
_LEAST: Final = 0.1
_LOOKED_AT: Final = 3
_PATTERNS: Final = 1_000
_LONGEST: Final = 1_000
"""Characters of a message that may be a habit."""
_MOST_SEEN: Final = 256
"""Messages of a circle of which it is known that they were written before."""
_VERSION: Final = 1


@final
class Messages:
    """What is written in the sessions of each circle, and what after it.

    Of a message that is new nothing is remembered but a number that stands for it: most of what
    people write they write once. Its text is learnt from the second time on, if it is not long.
    """

    __slots__ = ("_scopes", "_seen", "predictor")

    def __init__(self, clock: Clock, *, scopes: int = 100) -> None:
        """Of at most so many circles, those used last."""
        self._scopes = scopes
        self._seen: dict[str, dict[int, None]] = {}
        self.predictor = PerformancePredictor(
            clock=clock, arguments=ArgumentModel, patterns=_PATTERNS, scopes=scopes
        )

    def familiar(self, scope: str, text: str) -> bool:
        """Whether it was written before, and is short enough to be a habit."""
        return _number(text) in self._seen.get(scope, ())

    def wrote(self, scope: str, text: str) -> None:
        """Somebody of this circle wrote this."""
        if len(text) > _LONGEST:
            return
        seen = self._seen[scope] = self._seen.pop(scope, {})
        number = _number(text)
        seen.pop(number, None)
        seen[number] = None
        if len(seen) > _MOST_SEEN:
            del seen[next(iter(seen))]
        if len(self._seen) > self._scopes:
            del self._seen[next(iter(self._seen))]

    def forget(self, scope: str) -> None:
        """Drops all that was learnt of a circle."""
        self.predictor.forget(scope)
        self._seen.pop(scope, None)

    def save(self) -> object:
        """All that was learnt, as plain data."""
        saving = self.saving()
        while True:
            try:
                next(saving)
            except StopIteration as over:
                return over.value

    def saving(self) -> Generator[None, None, object]:
        """The same bit by bit, as `PerformancePredictor.saving`."""
        self.predictor.update_predictions()
        habits = yield from self.predictor.saving()
        seen = {scope: list(each) for scope, each in self._seen.items()}
        return {"version": _VERSION, "habits": habits, "seen": seen}

    def load(self, saved: object) -> None:
        """Takes the place of all that was learnt; raises CodecError where it is not what `save`
        returned, and then nothing changes."""
        data = _read(saved)
        self.predictor.load(data.habits)
        self._seen = {scope: dict.fromkeys(each) for scope, each in data.seen.items()}


def heard_of(saved: object) -> Mapping[str, int]:
    """How many messages were learnt of, by circle, in what `Messages.save` returned. Raises CodecError
    for anything else."""
    return {one.circle: sum(one.calls.values()) for one in learnt_of(_read(saved).habits)}


def fitting(saved: object, most_bytes: int = MOST_BYTES) -> object:
    """What `Messages.save` returned, as far as it is to be kept: without what sessions learnt for
    themselves alone, and without the circles used longest ago where all are too much."""
    data = _read(saved)
    habits = cast("dict[str, object]", lasting(data.habits))
    scopes = cast("dict[str, object]", habits["scopes"])
    kept: dict[str, object] = {}
    left = most_bytes
    for scope, each in reversed(scopes.items()):
        left -= len(packed(each))
        if left < 0:
            break
        kept[scope] = each
    seen = {scope: each for scope, each in data.seen.items() if scope in kept}
    habits = {**habits, "scopes": dict(reversed(kept.items()))}
    return {"version": _VERSION, "habits": habits, "seen": seen}


@final
class NextMessage:
    """What follows in one session of a circle.

    To the predictor a message is the call of a tool, the only one there is, with the text as its
    argument; so what is said of calls holds for messages: what a prediction is worth is known before
    anything comes of it.
    """

    __slots__ = ("_messages", "_scope", "_session")

    def __init__(self, messages: Messages, scope: str) -> None:
        self._messages = messages
        self._scope = scope
        self._session = messages.predictor.session(scope)

    def said(self, text: str) -> None:
        """The user wrote this."""
        step = self._step(text)
        self._messages.wrote(self._scope, text)
        self._messages.predictor.observe(self._session, step)

    def recalled(self, text: str) -> None:
        """The user wrote this before the session was gone on with: then it was learnt of."""
        self._session.hear(self._step(text))

    def over(self) -> None:
        """The user wrote no more."""
        self._messages.predictor.observe(self._session, Said("", by_user=False))

    def likely(self) -> tuple[str, float] | None:
        """What may come next, with its probability; None where that is not known well enough."""
        predictor = self._messages.predictor
        for proposal in predictor.propose(self._session, _LOOKED_AT):
            text = proposal.arguments.get(_TEXT)
            known = predictor.known(self._session, proposal)
            if isinstance(text, str) and known and proposal.probability >= _LEAST:
                return text, proposal.probability
        return None

    def _step(self, text: str) -> Step:
        familiar = self._messages.familiar(self._scope, text)
        return Step((Called(_SAYS, {_TEXT: text} if familiar else {}),))


class _Saved(msgspec.Struct):
    """The form of `Messages.save`."""

    version: int
    habits: object
    seen: dict[str, list[Annotated[int, msgspec.Meta(ge=0)]]]


def _read(saved: object) -> _Saved:
    try:
        data = msgspec.convert(saved, _Saved)
    except msgspec.ValidationError as exc:
        raise CodecError(f"saved habits of messages cannot be read: {exc}") from exc
    if data.version != _VERSION:
        raise CodecError(f"saved habits of messages are of version {data.version}, and not 1")
    return data


def _number(text: str) -> int:
    """It stands for a text, which cannot be told from it."""
    data = text.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
