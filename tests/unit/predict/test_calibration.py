"""What predictions are worth."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict.calibration import Calibration


def scored(times: int, rate: float, *, name: str = "tool", confidence: float = 0.75) -> Calibration:
    calibration, rng = Calibration(), random.Random(1)
    for _ in range(times):
        calibration.record(name, confidence, right=rng.random() < rate)
    return calibration


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_what_came_true_is_believed(rate: float) -> None:
    """However sure the models are, the probability is the share that came true. (S2-51)"""
    assert scored(600, rate).probability("tool", 0.75) == pytest.approx(rate, abs=0.12)


def test_nothing_is_known_before_it_was_scored() -> None:
    """A tool is not known until predictions of it were scored in shadow. (S2-40, S2-51)"""
    calibration = Calibration()
    assert not calibration.known("tool", 0.75)
    for _ in range(20):
        calibration.record("other", 0.75, right=True)
    assert not calibration.known("tool", 0.75)
    calibration.record("tool", 0.75, right=True)
    assert not calibration.known("tool", 0.75)
    for _ in range(2):
        calibration.record("tool", 0.75, right=True)
    assert calibration.known("tool", 0.75)
    assert not calibration.known("tool", 0.05)


def test_a_new_tool_leans_on_the_others() -> None:
    """Of a tool that was never scored the others' experience is assumed, else the worse. (S2-51)"""
    assert scored(400, 0.1).probability("new", 0.75) < 0.3
    assert Calibration().probability("new", 0.75) < 0.5


def test_what_no_longer_comes_true_loses_its_worth() -> None:
    """Once predictions stop coming true, few more are needed to see it. (S2-40, S2-51)"""
    calibration = scored(300, 1.0)
    needed = 0
    while calibration.probability("tool", 0.75) > 0.5:
        calibration.record("tool", 0.75, right=False)
        needed += 1
    assert needed < 60


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1), st.booleans()), max_size=200))
def test_more_confidence_is_never_worth_less(records: list[tuple[str, float, bool]]) -> None:
    """A probability is between 0 and 1 and never falls where confidence rises. (S2-51)"""
    calibration = Calibration()
    for name, confidence, right in records:
        calibration.record(name, confidence, right=right)
    for name in "abc":
        chances = [calibration.probability(name, place / 50) for place in range(51)]
        assert chances == sorted(chances)
        assert 0 <= chances[0] <= chances[-1] <= 1


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1), st.booleans()), max_size=40),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_what_confidence_is_needed(
    records: list[tuple[str, float, bool]], confidence: float, probability: float
) -> None:
    """A prediction reaches a probability exactly if it is as confident as is needed for it. (S2-40)"""
    model = Calibration()
    for name, sure, right in records:
        model.record(name, sure, right=right)
    for name in "abc":
        for least in (probability, model.probability(name, probability)):
            reached = model.probability(name, confidence) >= least
            assert reached == (confidence >= model.needed(name, least))


def test_counts_are_kept() -> None:
    """What is saved and loaded is worth the same; what is not ours is refused. (S2-49)"""
    calibration, other = scored(50, 0.4), Calibration()
    other.load(calibration.save())
    assert other.probability("tool", 0.75) == calibration.probability("tool", 0.75)
    for saved in (3, {"": [[1.0, 1.0]]}):
        with pytest.raises(CodecError):
            other.load(saved)


def test_tools_are_bounded() -> None:
    """Of thousands of tools those scored least are dropped. (S2-51)"""
    calibration = scored(9, 1.0)
    for number in range(2_100):
        calibration.record(f"t{number}", 0.5, right=True)
    saved = calibration.save()
    assert isinstance(saved, dict)
    assert len(saved) == 2_001
    assert "tool" in saved
