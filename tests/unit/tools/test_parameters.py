"""What a model is told of a function's parameters, and what becomes of what it writes."""

import dataclasses
import datetime as dt
import enum
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from paceline.errors import AgentLoadError, InvalidInputError
from paceline.tools.function import function_tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Item:
    sku: str
    count: int = 1


class Node(msgspec.Struct):
    name: str
    below: list["Node"] = []


class Where(TypedDict, total=False):
    city: str


class Strict(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise KeyError("negative")


def schema(fn: Callable[..., object]) -> Any:
    """Of the function as a tool."""
    return function_tool(fn).definition.parameters


def properties(fn: Callable[..., object]) -> Any:
    """Those in its schema."""
    return schema(fn)["properties"]


def check(fn: Callable[..., object], **arguments: object) -> Mapping[str, object]:
    """What the function would get."""
    return function_tool(fn).check(arguments)


def refusal(fn: Callable[..., object], **arguments: object) -> InvalidInputError:
    """Why it would get nothing."""
    with pytest.raises(InvalidInputError) as caught:
        check(fn, **arguments)
    return caught.value


def wide(
    *,
    number: int,
    text: str,
    flag: bool,
    ratio: float,
    names: list[str],
    table: dict[str, int],
    pair: tuple[int, str],
    item: Item,
    colour: Colour,
    anything: Any,
    mode: Literal["a", "b"] = "a",
    limit: int | None = None,
) -> None:
    pass


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
RIGHT = st.fixed_dictionaries(
    {
        "number": st.integers(-(2**63), 2**63),
        "text": st.text(),
        "flag": st.booleans(),
        "ratio": FLOATS,
        "names": st.lists(st.text()),
        "table": st.dictionaries(st.text(), st.integers(0, 9)),
        "pair": st.tuples(st.integers(0, 9), st.text()).map(list),
        "item": st.fixed_dictionaries({"sku": st.text(), "count": st.integers(0, 9)}),
        "colour": st.sampled_from(["red", "blue"]),
        "anything": JSON,
    },
    optional={"mode": st.sampled_from(["a", "b"]), "limit": st.none() | st.integers(0, 9)},
)
PLAIN = ("number", "text", "flag", "ratio", "names", "table", "anything", "mode", "limit")
WIDE = function_tool(wide)


@given(RIGHT)
def test_what_is_right_arrives_unchanged(arguments: dict[str, Any]) -> None:
    """Arguments of the types that are declared reach the function as they were written, data in its
    declared types, and each as its parameter. (S2-35)"""
    checked = WIDE.check(arguments)
    assert {name: checked[name] for name in PLAIN if name in arguments} == {
        name: arguments[name] for name in PLAIN if name in arguments
    }
    assert (checked["pair"], checked["item"], checked["colour"]) == (
        tuple(arguments["pair"]),
        Item(**arguments["item"]),
        Colour(arguments["colour"]),
    )
    assert list(checked) == list(WIDE.definition.parameters["properties"])  # type: ignore[call-overload]


@given(
    st.dictionaries(st.sampled_from([*PLAIN, "pair", "item", "colour", "x"]), JSON) | RIGHT, JSON
)
def test_whatever_is_written_is_taken_or_refused(arguments: dict[str, Any], other: Any) -> None:
    """Whatever JSON a model writes, it is refused as invalid input, or what the function gets is of
    the declared types. (S2-35)"""
    arguments["item"] = other
    try:
        checked = WIDE.check(arguments)
    except InvalidInputError:
        return
    plain = msgspec.to_builtins(checked)
    assert WIDE.check(plain) == checked
    assert isinstance(checked["item"], Item)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, {"type": "integer"}),
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Any, {}),
        (dt.date, {"type": "string", "format": "date"}),
        (Annotated[int, Meta(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
        (Annotated[int, Meta(description="Of it.")], {"type": "integer", "description": "Of it."}),
    ],
)
def test_annotations_become_a_schema(hint: Any, expected: object) -> None:
    """A parameter has in the schema the type of its annotation, and is required without a default.
    (S2-35)"""

    def fn(x) -> None: ...

    fn.__annotations__["x"] = hint
    assert schema(fn) == {
        "type": "object",
        "properties": {"x": expected},
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_tuple_has_its_places() -> None:
    """A tuple is an array with as many items as it has."""

    def fn(pair: tuple[int, str]) -> None: ...

    pair = properties(fn)["pair"]
    assert (pair["type"], pair["minItems"], pair["maxItems"]) == ("array", 2, 2)
    assert check(fn, pair=[1, "a"]) == {"pair": (1, "a")}


def test_what_is_not_annotated_takes_anything() -> None:
    """A parameter without annotation takes any value as it is."""

    def fn(x, y=3) -> None: ...

    assert properties(fn) == {"x": {}, "y": {"default": 3}}
    value = {"a": [None, "5"]}
    assert check(fn, x=value) == {"x": value, "y": 3}


def test_no_parameters_is_a_schema_too() -> None:
    """A function without parameters has a schema that allows none."""

    def fn() -> None: ...

    assert schema(fn)["properties"] == {}
    assert schema(fn)["additionalProperties"] is False
    assert check(fn) == {}
    assert "takes no arguments" in refusal(fn, x=1).next_step


def test_a_schema_is_complete_in_itself() -> None:
    """Types of a function's own are described in its schema, those that contain themselves too, and
    every reference leads there."""

    def fn(items: list[Item], node: Node, where: Where, colour: Colour) -> None: ...

    made = schema(fn)
    text = msgspec.json.encode(made).decode()
    assert {ref.partition('"')[0] for ref in text.split('"$ref":"#/$defs/')[1:]} == set(
        made["$defs"]
    )
    assert set(made["$defs"]) == {"Item", "Node", "Where", "Colour"}
    assert made["$defs"]["Item"]["required"] == ["sku"]


def test_a_type_may_have_any_name() -> None:
    """A type of the function's own is not confused with the arguments."""

    class Arguments(msgspec.Struct):
        x: int

    def fn(given) -> None: ...

    fn.__annotations__["given"] = Arguments
    made = schema(fn)
    assert list(made["properties"]) == ["given"]
    assert len(made["$defs"]) == 1
    assert check(fn, given={"x": 1}) == {"given": Arguments(1)}


def google(order_id: int, note: str = "") -> None:
    """Cancels an order.

    Nothing is paid back.

    Args:
        order_id: The number of the order,
            as on the bill.
        note: Why.

    Returns:
        Nothing.
    """


def numpy(order_id: int, note: str = "") -> None:
    """Cancels an order.

    Nothing is paid back.

    Parameters
    ----------
    order_id : int
        The number of the order,
        as on the bill.
    note : str
        Why.
    """


def sphinx(order_id: int, note: str = "") -> None:
    """Cancels an order.

    Nothing is paid back.

    :param order_id: The number of the order,
        as on the bill.
    :param note: Why.
    :returns: Nothing.
    """


@pytest.mark.parametrize("fn", [google, numpy, sphinx])
def test_docstrings_describe_parameters(fn: Callable[..., object]) -> None:
    """A model is told what the docstring says of the tool and of each parameter, in any of the usual
    styles."""
    assert function_tool(fn).definition.description == "Cancels an order.\n\nNothing is paid back."
    told = {name: of_it.get("description") for name, of_it in properties(fn).items()}
    assert told == {"order_id": "The number of the order, as on the bill.", "note": "Why."}


def test_any_docstring_can_be_read() -> None:
    """A docstring that breaks the rules of its style is the description, at least in part."""

    def fn(x: int) -> None:
        """Does it.

        :param: :
        """

    assert function_tool(fn).definition.description.startswith("Does it.")
    fn.__doc__ = None
    assert function_tool(fn).definition.description == ""
    assert function_tool(fn, description="D").definition.description == "D"


@pytest.mark.parametrize(
    ("hint", "written", "meant"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (float, 5, 5.0),
        (float, "0.5", 0.5),
        (bool, "true", True),
        (int | None, "null", None),
        (str | None, "null", "null"),
        (int | str, "5", "5"),
        (list[int], "[1, 2]", [1, 2]),
        (list[int], ["1", 2], [1, 2]),
        (Item, '{"sku": "a"}', Item("a")),
        (str, "[1]", "[1]"),
        (dt.date, "2026-11-21", dt.date(2026, 11, 21)),
    ],
)
def test_what_is_clear_is_accepted(hint: Any, written: object, meant: object) -> None:
    """A value of another type is taken where it can be read in one way alone; a text is never taken
    for something else where a text will do. (S2-35)"""

    def fn(x) -> None: ...

    fn.__annotations__["x"] = hint
    got = check(fn, x=written)["x"]
    assert (got, type(got)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("hint", "written"),
    [
        (int, "five"),
        (int, 5.5),
        (int, True),
        (int, None),
        (str, 5),
        (float, "nan"),
        (list[float], ["inf"]),
        (bool, "perhaps"),
        (list[int], "1, 2"),
        (Item, "[1"),
        (Literal["a"], "b"),
    ],
)
def test_what_is_not_clear_is_refused(hint: Any, written: object) -> None:
    """A value that is not of the type, and can be read in no way or in several, is refused by the
    name of its parameter. (S2-35)"""

    def fn(order_id) -> None: ...

    fn.__annotations__["order_id"] = hint
    assert "are wrong: order_id" in refusal(fn, order_id=written).message


def test_everything_wrong_is_told_at_once() -> None:
    """A refusal names the parameters that are missing, unknown or wrong, with the place in a value
    and what was expected there, and says which there are. (S2-35)"""

    def fn(order_id: int, items: list[Item], note: str = "") -> None: ...

    error = refusal(fn, order=1, items=[{"sku": "a"}, {"sku": 2}], note=None)
    for text in ("'order'", "did you mean order_id?", "order_id is missing", "items[1].sku"):
        assert text in error.message
    assert "Expected `str`, got `int`" in error.message
    assert "note: Expected `str`, got `null`" in error.message
    assert error.next_step == "Its parameters are: order_id (required), items (required), note."


def test_refusals_are_short() -> None:
    """A refusal is of bounded length, whatever was written."""

    def fn(x: int) -> None: ...

    assert len(refusal(fn, x="y" * 10_000, **{f"n{i}": i for i in range(1_000)}).message) < 1_000


def test_a_type_that_checks_itself_is_heard() -> None:
    """What a type of the function raises for a value is a refusal, whatever it raises."""

    def fn(x: Strict) -> None: ...

    assert check(fn, x={"number": 1}) == {"x": Strict(1)}
    assert "negative" in refusal(fn, x={"number": -1}).message


def test_defaults_are_filled_in() -> None:
    """Calls with a default that is data are the same whether they name it or not; each has a copy of
    its own; any other default is left to the function, and no model sees it."""
    sentinel = object()
    none: Any = None

    def fn(a: int = 1, b: list[int] = [2], c: Any = sentinel, d: int = none) -> None: ...  # noqa: B006

    spec = function_tool(fn)
    first, second = spec.check({}), spec.check({"a": 1, "b": [2], "d": None})
    assert first == second == {"a": 1, "b": [2], "d": None}
    assert first["b"] is not second["b"] is not spec.check({})["b"]
    assert {k: v.get("default", "none") for k, v in properties(fn).items()} == {
        "a": 1,
        "b": [2],
        "c": "none",
        "d": None,
    }


def test_what_the_call_fills_is_not_shown() -> None:
    """Parameters for the user, session and tenant, for being told of the end, and those bound ahead
    are not in the schema, and no model can give them a value. (S2-35)"""

    def fn(
        *, x: int, user: str, session: str, tenant: str, cancelled: threading.Event, key: str
    ) -> None: ...

    bound = functools.partial(fn, key="secret")
    spec = function_tool(bound, name="fn")
    assert list(properties_of(spec)) == ["x"]
    assert spec.wants == {"user", "session", "tenant", "cancelled"}
    assert "secret" not in str(spec.definition)
    for name in ("user", "cancelled", "key"):
        with pytest.raises(InvalidInputError, match=name):
            spec.check({"x": 1, name: "eve"})


def properties_of(spec: Any) -> Any:
    return spec.definition.parameters["properties"]


def test_a_parameter_may_be_called_cancelled() -> None:
    """A parameter `cancelled` of another type than `threading.Event` is the model's."""

    def fn(cancelled: bool) -> None: ...

    assert properties(fn) == {"cancelled": {"type": "boolean"}}
    assert function_tool(fn).wants == frozenset()


class Methods:
    def method(self, x: int) -> None: ...

    async def __call__(self, x: int) -> None:
        """Called."""


def test_methods_and_objects_are_functions_too() -> None:
    """A bound method takes what it takes besides itself, and so does an object that can be called."""
    assert list(properties(Methods().method)) == ["x"]
    spec = function_tool(Methods(), name="call")
    assert (list(properties_of(spec)), spec.is_async) == (["x"], True)


def positional(x: int, /) -> None: ...
def variable(*xs: int) -> None: ...
def keywords(**xs: int) -> None: ...
def generator(x: int) -> Any:
    yield x


async def async_generator(x: int) -> Any:
    yield x


def unreadable(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def formless(x: int, y: complex) -> None: ...


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (positional, "by position"),
        (variable, "any arguments"),
        (keywords, "any arguments"),
        (generator, "generator"),
        (async_generator, "generator"),
        (unreadable, "Nowhere"),
        (formless, "`y`"),
        (Item, "no function"),
        (5, "no function"),
        (lambda x: x, "name of a tool"),
    ],
)
def test_what_cannot_be_a_tool_says_why(fn: Any, says: str) -> None:
    """A function that cannot be called with arguments by name, or has no one result, is refused with
    what to do about it."""
    with pytest.raises(AgentLoadError, match=says) as caught:
        function_tool(fn)
    assert caught.value.next_step != AgentLoadError.advice
