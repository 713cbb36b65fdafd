"""Tool calls made of the pieces in which servers tell them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.instances.completion import Completion
from paceline.messages import TextPart, ToolUse, UsePart

OSLO = '{"city": "Oslo"}'
ROME = '{"city": "Rome"}'


def piece(index: int | None = 0, arguments: object = None, **more: Any) -> dict[str, Any]:
    """A piece of a call."""
    name = more.pop("name", None)
    function = {"name": name, "arguments": arguments}
    return {"index": index, "function": function, **more}


def told(*deltas: dict[str, Any] | list[dict[str, Any]]) -> tuple[list[ToolUse], Completion]:
    """The uses that are heard of these pieces, each alone or several together, before the end."""
    completion, heard = Completion(), []
    for delta in deltas:
        calls = delta if isinstance(delta, list) else [delta]
        data = json.dumps({"choices": [{"delta": {"tool_calls": calls}}]}).encode()
        heard += [part.use for part in completion.add(data) if isinstance(part, UsePart)]
    return heard, completion


def all_of(*deltas: dict[str, Any] | list[dict[str, Any]]) -> list[ToolUse]:
    """All uses that are heard; the message has the same."""
    heard, completion = told(*deltas)
    heard += [part.use for part in completion.end() if isinstance(part, UsePart)]
    calls: Any = completion.message().get("tool_calls", [])
    assert heard == [
        ToolUse(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in calls
    ]
    return heard


def test_a_use_is_heard_the_moment_its_arguments_close() -> None:
    """A tool use is told with the piece that closes its arguments, while the answer goes on (S2-41)."""
    heard, completion = told(
        piece(0, "", id="c1", name="weather"), piece(0, '{"city": '), piece(0, '"Oslo"')
    )
    assert heard == []
    data = {"choices": [{"delta": {"tool_calls": [piece(0, "}")]}}]}
    assert completion.add(json.dumps(data).encode()) == [UsePart(ToolUse("c1", "weather", OSLO))]
    assert not completion.finish_reason


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.data())
def test_any_interleaving_gives_each_use_once(cities: list[str], data: st.DataObject) -> None:
    """However the pieces of several calls are mixed, each use is heard once, whole, and in the order
    in which the calls begin (S2-41)."""
    wanted = [json.dumps({"city": city}) for city in cities]
    left = [[text[at : at + 3] for at in range(0, len(text), 3)] for text in wanted]
    pieces = [piece(n, "", id=f"c{n}", name="weather") for n in range(len(wanted))]
    while any(left):
        n = data.draw(st.sampled_from([n for n, parts in enumerate(left) if parts]))
        pieces.append(piece(n, left[n].pop(0)))
    assert all_of(*pieces) == [ToolUse(f"c{n}", "weather", text) for n, text in enumerate(wanted)]


def test_an_earlier_call_is_waited_for() -> None:
    """A call that closes before one that began earlier is heard after it, so that calls are heard in
    the order of the reply (S2-41)."""
    first, second = piece(0, '{"city":', id="c1", name="a"), piece(1, "{}", id="c2", name="b")
    assert told(first, second)[0] == []
    assert [use.id for use in told(first, second, piece(0, ' "Oslo"}'))[0]] == ["c1", "c2"]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [piece(0, OSLO, id="c1", name="a"), piece(0, ROME, id="c2", name="b")], id="one index"
        ),
        pytest.param(
            [piece(0, OSLO, name="a", id="c1"), piece(None, ROME, name="b", id="c2")], id="no index"
        ),
        pytest.param(
            [[piece(None, OSLO, name="a", id="c1"), piece(None, ROME, name="b", id="c2")]],
            id="together",
        ),
        pytest.param(
            [piece(1, OSLO, name="a", id="c1"), piece(0, ROME, name="b", id="c2")],
            id="out of order",
        ),
        pytest.param(
            [piece(7, OSLO, name="a", id="c1"), piece(9, ROME, name="b", id="c2")], id="with gaps"
        ),
        pytest.param(
            [piece(0, json.loads(OSLO), name="a", id="c1"), piece(1, ROME, name="b", id="c2")],
            id="an object",
        ),
        pytest.param(
            [
                piece(0, "", id="c1", name="a"),
                piece(0, OSLO[:5], id="random", name=None),
                piece(0, OSLO[5:], id="again", name=None),
                piece(1, ROME, id="c2", name="b"),
            ],
            id="an id for each piece",
        ),
        pytest.param(
            [
                piece(0, OSLO[:5], id="c1", name="a"),
                piece(0, OSLO[5:], id="c1", name="a"),
                piece(1, ROME, id="c2", name="b"),
            ],
            id="a name in each piece",
        ),
        pytest.param(
            [
                piece(0, "", id="c1", name="a"),
                piece(0, OSLO),
                piece(0, OSLO, id="c1", name="a"),
                piece(1, ROME, id="c2", name="b"),
            ],
            id="all once more at its end",
        ),
    ],
)
def test_servers_number_and_cut_as_they_like(pieces: list[Any]) -> None:
    """Numbers that are missing, equal, out of order or have gaps, arguments as an object, and ids or
    names that are repeated, all give the same two calls (S2-41)."""
    uses = all_of(*pieces)
    assert [(use.id, use.name) for use in uses] == [("c1", "a"), ("c2", "b")]
    assert [json.loads(use.arguments) for use in uses] == [json.loads(OSLO), json.loads(ROME)]


@pytest.mark.parametrize("twice", range(4))
def test_an_event_that_comes_twice_changes_nothing(twice: int) -> None:
    """Duplicated events are noticed where they cannot be meant: the begin of a call, and everything
    once its arguments are closed (S2-41)."""
    pieces = [
        piece(0, '{"', id="c1", name="weather"),
        piece(0, 'city": "Oslo"}'),
        piece(1, "", id="c2", name="time"),
        piece(1, "{}"),
    ]
    pieces.insert(twice, pieces[twice])
    assert all_of(*pieces) == [ToolUse("c1", "weather", OSLO), ToolUse("c2", "time", "{}")]


@pytest.mark.parametrize("arguments", ["", None, "  ", "{}", {}])
def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    """A call without arguments has those of an empty object, however the server says it (S2-41)."""
    uses = all_of(piece(0, arguments, id="c1", name="a"), piece(1, arguments, id="c2", name="b"))
    assert [(use.id, use.arguments.strip()) for use in uses] == [("c1", "{}"), ("c2", "{}")]


def test_another_name_is_another_call() -> None:
    """Without ids and numbers, a name that is another one begins another call (S2-41)."""
    uses = all_of(piece(0, "", name="a"), piece(0, "", name="b"))
    assert [use.name for use in uses] == ["a", "b"]


def test_missing_and_repeated_ids_are_made_up_for() -> None:
    """Each use of an answer has an id that no other of it has (S2-41)."""
    uses = all_of(
        piece(0, OSLO, name="a"),
        piece(1, ROME, name="b"),
        piece(2, ROME, name="b", id="call_0"),
        piece(3, ROME, name="b", id="x"),
        piece(4, ROME, name="b", id="x"),
    )
    assert len({use.id for use in uses}) == len(uses) == 5
    assert uses[3].id == "x"
    assert all(use.id for use in uses)


@pytest.mark.parametrize(
    "arguments", ['{"city": "Os', '{"city": Oslo}', "not json", "[1]", '{"a": 1}}', '{"a": [1}}']
)
def test_what_is_no_json_is_told_at_the_end_as_it_is(arguments: str) -> None:
    """Arguments that are no object are handed on as the model wrote them, once there are no more, so
    that it can be told (S2-41)."""
    heard, completion = told(piece(0, arguments, id="c1", name="a"))
    assert heard == []
    assert completion.end() == [UsePart(ToolUse("c1", "a", arguments))]
    assert completion.end() == []


@pytest.mark.parametrize(
    "more",
    [piece(0, ', "x"'), piece(0, "}"), piece(0, ROME, id="c1"), piece(0, "", id="c1", name="b")],
)
def test_a_use_that_was_heard_does_not_change(more: dict[str, Any]) -> None:
    """What would change a use after it was heard is refused, so that none is run with other arguments
    than the answer has in the end (S2-41)."""
    with pytest.raises(ValueError, match="tool call"):
        told(piece(0, OSLO, id="c1", name="a"), more)


def test_a_call_without_a_name_is_refused() -> None:
    """Nobody could run it, and servers refuse a conversation that has one (S2-41)."""
    _, completion = told(piece(0, OSLO, id="c1"))
    with pytest.raises(ValueError, match="without a name"):
        completion.end()
    assert all_of({"index": 0}) == []


def test_a_refusal_is_heard_as_the_text() -> None:
    """What a model says in place of an answer is heard whole at its end, unless there is a text; what
    it thinks aloud is not heard (S2-41)."""
    completion = Completion()
    for delta in ({"refusal": "I "}, {"refusal": "won't."}, {"reasoning": "Hm"}):
        data = json.dumps({"choices": [{"delta": delta}]}).encode()
        assert completion.add(data) == []
    assert completion.end() == [TextPart("I won't.")]
    data = json.dumps({"choices": [{"message": {"content": "Hi", "refusal": "no"}}]}).encode()
    completion = Completion()
    assert completion.add(data) == [TextPart("Hi")]
    assert completion.end() == []
