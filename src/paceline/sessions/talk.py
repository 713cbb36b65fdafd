"""What is said in a session, for who goes on with it ahead."""

from collections.abc import Callable
from typing import final

from paceline.clock import Clock
from paceline.engine.session import Session
from paceline.engine.supposed import SupposedTurn
from paceline.sessions.asking import ModelCalls

__all__ = ["Talk"]


@final
class Talk:
    """The models of a session, and what they would be asked."""

    __slots__ = ("_clock", "_session", "models")

    def __init__(
        self, models: ModelCalls, session: Callable[[], Session | None], *, clock: Clock
    ) -> None:
        """`session` is None as long as it is not open."""
        self.models = models
        self._session = session
        self._clock = clock

    def suppose(self, text: str) -> SupposedTurn | None:
        """The turn that this message would begin now; None in a session that is not open, and where
        something else comes next."""
        session = self._session()
        if session is None or not session.awaits_message:
            return None
        return SupposedTurn(session.conversation, text, clock=self._clock)
