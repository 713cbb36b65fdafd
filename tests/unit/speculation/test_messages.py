"""Which messages follow which."""

from paceline.predict.arguments import ArgumentModel
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.messages import NextMessage
from paceline.testing.virtual_time import VirtualClock


def predictor() -> PerformancePredictor:
    return PerformancePredictor(clock=VirtualClock(), arguments=ArgumentModel)


def said(knows: PerformancePredictor, *texts: str, scope: str = "user ada") -> NextMessage:
    """A session in which this was said, and before each it was asked what comes."""
    session = NextMessage(knows, scope)
    for text in texts:
        session.likely()
        session.said(text)
    return session


def test_a_habit_of_messages_is_learnt() -> None:
    """What a user always writes after something is expected once that has come true often enough, and
    never of another user (S2-40, S2-50)."""
    knows = predictor()
    for _ in range(30):
        said(knows, "standup", "and the open bugs?")
    found = said(knows, "standup").likely()
    assert found is not None
    assert found[0] == "and the open bugs?"
    assert found[1] > 0.5
    assert said(knows, "standup", scope="user bob").likely() is None


def test_new_messages_are_not_expected() -> None:
    """Of who never writes the same nothing is expected (S2-51)."""
    knows = predictor()
    for number in range(30):
        texts = [f"question {number} number {turn * number}" for turn in range(3)]
        assert said(knows, *texts).likely() is None
