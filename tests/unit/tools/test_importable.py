"""Which functions another process can find."""

import functools
from typing import Any

import pytest

from paceline.errors import AgentLoadError
from paceline.tools.function import function_tool
from paceline.tools.importable import importable
from tests import tool_functions
from tests.tool_functions import decorated, pid


def inner() -> Any:
    def within() -> None: ...

    return within


def of_program() -> None: ...


of_program.__module__ = "__main__"


class Methods:
    def method(self) -> None: ...

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    "fn",
    [inner(), of_program, Methods(), functools.partial(pid)],
    ids=["inner", "main", "object", "partial"],
)
def test_only_what_has_a_place_can_be_killable(fn: Any) -> None:
    """A function that another process cannot import is refused when the tool is made, with what to
    do."""
    with pytest.raises(AgentLoadError, match="process") as caught:
        function_tool(fn, name="f", killable=True)
    assert "module" in caught.value.next_step
    with pytest.raises(AgentLoadError):
        function_tool(fn, name="f", memory_mb=100)
    assert function_tool(fn, name="f").name == "f"


def test_a_function_is_found_by_name() -> None:
    """A function is found where it stands, or behind the tool that a decorator has put there."""
    assert importable("tool pid", pid) == "tests.tool_functions:pid"
    assert importable("tool d", decorated.run) == "tests.tool_functions:decorated.run"


def test_only_itself_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in whose place something else stands is refused, as that would be run; so is a
    method of an object."""
    with pytest.raises(AgentLoadError, match="something else"):
        importable("tool m", Methods().method)
    monkeypatch.setattr(tool_functions, "pid", inner())
    with pytest.raises(AgentLoadError, match="something else"):
        importable("tool pid", pid)


def test_what_is_killed_is_not_told() -> None:
    """A tool that is killed cannot ask to be told of it."""

    def fn(cancelled) -> None: ...

    fn.__qualname__ = "fn"
    with pytest.raises(AgentLoadError, match="cancelled"):
        function_tool(fn, killable=True)
