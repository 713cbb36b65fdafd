"""What was learnt, in figures."""

import pytest

from paceline.errors import CodecError
from paceline.predict.arguments import ArgumentModel
from paceline.speculation.learnt import learnt_of, public_of
from tests.unit.predict.sessions import orders, predictor


def test_each_circle_is_told_with_its_calls() -> None:
    """Each circle is told with its calls by tool and its patterns, the one used last first. (S2-16)"""
    model = predictor(arguments=ArgumentModel)
    for scope in ("a", "b"):
        for trajectory in orders(20, scope=scope):
            model.learn(trajectory)
    found = learnt_of(model.save())
    assert [one.circle for one in found] == ["b", "a"]
    assert next(iter(found[0].calls.items())) == ("get_order", 20)
    assert sum(found[0].calls.values()) == 40
    assert found[0].patterns > 5


def test_what_all_learn_from_is_told_by_tool() -> None:
    """The calls of public tools are told by tool, whoever made them; nothing where there are none. (S2-16)"""
    model = predictor(arguments=ArgumentModel, public=["get_order"])
    assert public_of(model.save()) == {}
    for scope in ("a", "b"):
        for trajectory in orders(20, scope=scope):
            model.learn(trajectory)
    assert public_of(model.save()) == {"get_order": 40}


@pytest.mark.parametrize("saved", [None, {}, {"scopes": {"a": 1}}, {"scopes": {"a": {}}}])
def test_what_is_no_such_thing_is_refused(saved: object) -> None:
    """What no predictor saved raises CodecError. (S2-51)"""
    with pytest.raises(CodecError):
        learnt_of(saved)
