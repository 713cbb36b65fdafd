"""What is declared of a tool, and how its calls are treated for it."""

import dataclasses
import enum
import functools
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import UNKNOWN, Effect, EffectKind, Plan, ScopeLevel
from paceline.errors import AgentLoadError, InvalidInputError, UsageError
from paceline.tools.function import function_tool


class Size(enum.Enum):
    LARGE = "l"


def order(order_id: int, names: list[str] | None = None, note: str = "") -> int:
    return order_id


def tags(*templates: str, **arguments: object) -> tuple[str, ...]:
    """Those of a call that reads under these templates."""
    return function_tool(order, effect="read", tags=templates).plan(arguments).effect.tags


def test_nothing_declared_is_nothing_known() -> None:
    """A tool of which nothing is declared has unknown effects, and its results are not kept. (S2-35)"""
    spec = function_tool(order)
    assert spec.plan({"order_id": 1}) == Plan(UNKNOWN, 0.0)
    assert (spec.name, spec.definition.name, spec.source) == ("order", "order", "function")
    assert not spec.is_async


def test_a_plan_is_what_is_declared() -> None:
    """Effect, time to live, scope, time limit and price of a call are those of its tool. (S2-37)"""
    spec = function_tool(order, effect="pure", ttl_s=60, scope="global", timeout_s=2, cost_usd=0.5)
    assert spec.plan({}) == Plan(Effect.pure(), 60.0, ScopeLevel.GLOBAL, 2.0, cost_usd=0.5)
    assert spec.plan({}) is spec.plan({"order_id": 1})
    default = function_tool(order, effect=Effect.read("a"), tags=("b",), ttl_s=None)
    assert default.plan({}) == Plan(Effect.read("a", "b"), None)
    assert function_tool(order, effect=EffectKind.WRITE).plan({}).ttl_s == 0.0


def test_only_what_can_be_repeated_is_kept() -> None:
    """Results of a tool that may change the world are not kept, whatever it says of them."""
    spec = function_tool(order, effect="write", tags=("{order_id}",))
    asked = dataclasses.replace(spec, ttl_s=None)
    assert asked.plan({"order_id": 1}) == Plan(Effect.write("1"), 0.0)


def test_tags_name_what_is_asked_for() -> None:
    """A parameter in a tag is the argument of the call, a list of them a tag for each, an enum its
    value, and one that is not given nothing."""
    assert tags("all", "orders:{order_id}", order_id=7) == ("all", "orders:7")
    assert tags("n:{names}:{order_id}", order_id=1, names=["a", "b", "a"]) == ("n:a:1", "n:b:1")
    assert (
        tags("n:{names}", names=[]) == tags("n:{names}", names=None) == tags("n:{names}") == ("n:",)
    )
    assert tags("s:{note}", note=Size.LARGE) == ("s:l",)
    assert tags("{{x}}:{order_id}", order_id=True) == ("{x}:true",)
    assert tags("{{x}}") == ("{x}",)


@given(st.text() | st.integers(), st.text() | st.integers(), st.text(), st.text())
def test_no_value_passes_for_another(a: Any, b: Any, c: str, d: str) -> None:
    """Two calls have a tag in common only if they name the same: no value runs into what stands
    beside it in the tag."""
    spec = function_tool(order, effect="read", tags=("t:{order_id}:{note}",))
    one = spec.plan({"order_id": a, "note": c}).effect.tags
    other = spec.plan({"order_id": b, "note": d}).effect.tags
    assert (one == other) == ((str(a), c) == (str(b), d))
    assert one[0].isascii()
    assert one[0].count(":") == 2


def test_tags_have_bounds() -> None:
    """A tag is short however long the argument is, and a call that would have too many is refused
    in words for who made it."""
    (long,), (other,) = tags("{note}", note="é" * 10**6), tags("{note}", note="é" * (10**6 - 1))
    assert len(long) < 50
    assert long != other
    names = [str(n) for n in range(1_000)]
    assert len(tags("{names}", names=names)) == 1_000
    with pytest.raises(InvalidInputError, match="more than 1000") as caught:
        tags("{names}", "{names}{order_id}", names=names, order_id=[1, 2])
    assert "fewer" in caught.value.next_step


@pytest.mark.parametrize(
    "tag", ["{order}", "{}", "{0}", "{order_id.real}", "{order_id!r}", "{order_id:3}"]
)
def test_a_tag_names_parameters_only(tag: str) -> None:
    """A tag with braces around what is no parameter is refused when the tool is made."""
    with pytest.raises(AgentLoadError, match="no parameter") as caught:
        function_tool(order, effect="read", tags=(tag,))
    assert "order_id" in caught.value.next_step


def test_a_tag_has_its_braces_in_pairs() -> None:
    """A tag with a brace too many is refused when the tool is made."""
    with pytest.raises(AgentLoadError, match="cannot be read"):
        function_tool(order, effect="read", tags=("{order_id",))


def of_user(x: int, user: str) -> None: ...
def of_session(x: int, session: str) -> None: ...


@pytest.mark.parametrize(
    ("fn", "options", "says"),
    [
        (order, {"effect": "reads"}, "effect"),
        (order, {"effect": "read", "tags": "orders"}, "tags"),
        (order, {"tags": ("a",)}, "unknown"),
        (order, {"effect": "pure", "tags": ("a",)}, "pure"),
        (order, {"ttl_s": 5}, "ttl_s"),
        (order, {"effect": "write", "ttl_s": None}, "ttl_s"),
        (order, {"effect": "read", "ttl_s": -1}, "ttl_s"),
        (order, {"effect": "read", "ttl_s": float("nan")}, "ttl_s"),
        (order, {"timeout_s": 0}, "timeout_s"),
        (order, {"timeout_s": float("inf")}, "timeout_s"),
        (order, {"memory_mb": 0}, "memory_mb"),
        (order, {"max_concurrency": 1.5}, "max_concurrency"),
        (order, {"scope": "world"}, "scope"),
        (order, {"name": "a b"}, "name"),
        (order, {"name": "a\n"}, "name"),
        (order, {"name": "x" * 65}, "name"),
        (order, {"approval": "yes"}, "approval"),
        (of_user, {"effect": "read", "scope": "global"}, "`user`"),
        (of_session, {"effect": "read", "scope": "user"}, "`session`"),
    ],
)
def test_wrong_declarations_are_refused(
    fn: Callable[..., object], options: dict[str, Any], says: str
) -> None:
    """A declaration that cannot be, or contradicts another, is refused with its name."""
    with pytest.raises(AgentLoadError, match=says):
        function_tool(fn, **options)


def test_unknown_options_are_refused() -> None:
    """An option that does not exist is refused, with the one that may be meant."""
    options: Any = {"timeout": 5}
    with pytest.raises(UsageError, match="'timeout'") as caught:
        function_tool(order, **options)
    assert "Did you mean timeout_s?" in caught.value.next_step


def test_what_knows_the_session_stays_in_it() -> None:
    """Results of a tool that is told the session are shared in it alone, if nothing is declared."""
    assert function_tool(of_session, effect="read").plan({}).scope is ScopeLevel.SESSION
    assert function_tool(of_user, effect="read").plan({}).scope is None
    assert function_tool(of_user, effect="read", scope="user").plan({}).scope is ScopeLevel.USER


class Result(msgspec.Struct):
    x: int


def test_declared_results_are_known() -> None:
    """A dataclass or Struct that a tool declares to return is known; anything else is plain data."""

    def made() -> Result:
        return Result(1)

    assert function_tool(made).result_type is Result
    assert function_tool(order).result_type is None
    assert function_tool(functools.partial(made), name="p").result_type is None


class Shop:
    def __init__(self, *goods: str) -> None:
        self.goods = goods

    def has(self, name: str) -> bool:
        return name in self.goods

    def __call__(self, name: str) -> bool:
        return self.has(name)


class Stateless:
    def has(self, name: str) -> bool:
        return False


def test_objects_have_results_of_their_own() -> None:
    """Two objects, or two partials, are two tools, whose results are not served for one another."""
    one, other = Shop("a"), Shop("b")
    for first, second in (
        (one.has, other.has),
        (one, other),
        (functools.partial(order, note="a"), functools.partial(order, note="b")),
    ):
        assert function_tool(first, name="f").version != function_tool(second, name="f").version
    assert function_tool(Stateless().has).version == function_tool(Stateless().has).version


def test_versions_follow_the_code(tmp_path: Path) -> None:
    """The version of a tool is that of its file, so that other code serves no old results; code in
    no file has its own, and who gives a version has that."""
    assert function_tool(order).version == function_tool(order).version
    assert function_tool(order).version != function_tool(of_user).version
    assert function_tool(order, version="7").version == "7"
    one, other = lambda x: (x, 1), lambda x: (x, 2)
    versions = []
    for code in (one.__code__, other.__code__):
        copied = FunctionType(code.replace(co_filename=str(tmp_path / "gone"), co_name="f"), {})
        copied.__qualname__ = copied.__name__ = "f"
        versions.append(function_tool(copied).version)
    assert versions[0] != versions[1]
