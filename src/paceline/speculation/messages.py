"""What a user is likely to write next, word for word, so that a model can be asked ahead."""

from typing import Final, final

from paceline.predict.events import Called, Said, Step
from paceline.predict.predictor import PerformancePredictor, Session

__all__ = ["NextMessage"]

_SAYS: Final = "says"
_TEXT: Final = "text"
_LEAST: Final = 0.1


@final
class NextMessage:
    """Learns which messages follow which in the sessions of one circle.

    To the predictor a message is the call of a tool, the only one there is, with the text as its
    argument; so what is said of calls holds for messages: what a prediction is worth is known before
    anything comes of it.
    """

    __slots__ = ("_predictor", "_session")

    def __init__(self, predictor: PerformancePredictor, scope: str) -> None:
        """`predictor` is for messages alone."""
        self._predictor = predictor
        self._session: Session = predictor.session(scope)

    def said(self, text: str) -> None:
        """The user wrote this."""
        self._predictor.observe(self._session, Step((Called(_SAYS, {_TEXT: text}),)))

    def over(self) -> None:
        """The user wrote no more."""
        self._predictor.observe(self._session, Said("", by_user=False))

    def likely(self) -> tuple[str, float] | None:
        """What may come next, with its probability; None where that is not known well enough."""
        for proposal in self._predictor.propose(self._session, 1):
            text = proposal.arguments.get(_TEXT)
            known = self._predictor.known(self._session, proposal)
            if isinstance(text, str) and known and proposal.probability >= _LEAST:
                return text, proposal.probability
        return None
