"""Tools that a server lists: names, effects, what is asked first, and what stays the same."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Effect, EffectKind
from paceline.errors import ConfigError, InvalidInputError
from paceline.session_settings import McpSettings
from paceline.tools.mcp.schema import checker, finder
from paceline.tools.mcp.sdk import types
from paceline.tools.mcp.specs import ToolSpecs, effect_of, needs_approval, tool_names

FIT = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
COMMAND = McpSettings(command=("a",))


def tool(name: str = "t", schema: dict[str, Any] | None = None, **hints: Any) -> types.Tool:
    said = types.ToolAnnotations(**hints) if hints else None
    return types.Tool(name=name, input_schema=schema or {"type": "object"}, annotations=said)


def runner(_: types.Tool) -> Callable[..., object]:
    return print


@given(st.text(), st.lists(st.text(max_size=80) | st.text("ab./_", max_size=4)))
def test_names_are_fit_and_distinct(server: str, names: list[str]) -> None:
    """Every tool has a name that models allow, no two have the same, and none depends on the order of
    the others. (S2-35)"""
    called = tool_names(server, names)
    assert set(called) == set(names)
    assert len(set(called.values())) == len(called)
    assert all(FIT.match(name) for name in called.values())
    assert tool_names(server, names[::-1]) == called


def test_names_are_plain_where_they_can_be() -> None:
    """A name that models allow is the server's and the tool's; another one ends in a digest."""
    called = tool_names("my files", ["read", "a.b", "a/b", "x" * 64])
    assert called["read"] == "my_files_read"
    assert called["a.b"].startswith("my_files_a_b_")
    assert called["a.b"] != called["a/b"]
    assert len(called["x" * 64]) == 64


@pytest.mark.parametrize(
    ("hints", "effect", "asked"),
    [
        ({}, Effect.unknown(), True),
        ({"read_only_hint": True}, Effect.read("mcp:s{{}}"), False),
        ({"read_only_hint": True, "destructive_hint": True}, Effect.read("mcp:s{{}}"), False),
        ({"read_only_hint": False}, Effect.unknown(), True),
        ({"open_world_hint": True}, Effect.unknown(), True),
        ({"idempotent_hint": True}, Effect.write("mcp:s{{}}", idempotent=True), True),
        ({"idempotent_hint": False}, Effect.write("mcp:s{{}}"), True),
        ({"destructive_hint": False}, Effect.write("mcp:s{{}}"), False),
        ({"destructive_hint": True}, Effect.write("mcp:s{{}}"), True),
    ],
)
def test_hints_are_effects(hints: dict[str, Any], effect: Effect, asked: bool) -> None:
    """What a server says of a tool is its effect, and decides whether a person is asked; silence means
    the worst, as the protocol has it; of a server that is not trusted nothing is believed. (S2-35)"""
    listed = tool(**hints)
    assert effect_of("s{}", listed, COMMAND) == effect
    assert needs_approval(listed, COMMAND) is asked
    never = McpSettings(command=("a",), approve="none")
    assert not needs_approval(listed, never)
    everything = McpSettings(command=("a",), approve="all")
    assert needs_approval(listed, everything) is (effect.kind is not EffectKind.READ)
    doubted = McpSettings(command=("a",), trust=False)
    assert effect_of("s{}", listed, doubted) == Effect.unknown()
    assert needs_approval(listed, doubted)
    (spec,) = ToolSpecs("s{}", COMMAND, runner).of([listed], "1")
    assert spec.plan({}).effect.tags in ((), ("mcp:s{}",))


def test_tools_stay_the_same() -> None:
    """A tool is the same object until the server says something else of it, or is another version."""
    specs = ToolSpecs("s", COMMAND, runner)
    first = specs.of([tool("a"), tool("b"), tool("a")], "1")
    assert [spec.name for spec in first] == ["s_a", "s_b"]
    again = specs.of([tool("a"), tool("b", read_only_hint=True)], "1")
    assert again[0] is first[0]
    assert again[1].version != first[1].version
    (newer,) = specs.of([tool("a")], "2")
    assert newer is not first[0]
    assert newer.version != first[0].version


def test_patterns_choose() -> None:
    """Only tools that a pattern of the settings names are used."""
    specs = ToolSpecs("s", McpSettings(command=("a",), tools=("read_*", "x?")), runner)
    listed = [tool(name) for name in ("read_a", "write_a", "x1", "x12")]
    assert [spec.name for spec in specs.of(listed, "1")] == ["s_read_a", "s_x1"]


@pytest.mark.parametrize("schema", [{"properties": 3}, {"properties": {"a": {"type": "no"}}}])
def test_schemas_that_are_none(schema: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """A tool whose schema cannot be used is left out, with a word in the log, and the others stay."""
    with caplog.at_level(logging.WARNING, "paceline"):
        found = ToolSpecs("s", COMMAND, runner).of([tool("a", schema), tool("b")], "1")
    assert [spec.name for spec in found] == ["s_b"]
    assert "'a' of MCP server s is left out" in caplog.text


def test_arguments_are_checked_in_words() -> None:
    """Every argument that is wrong is named with what was expected, in few words, with what there is.
    (S2-35)"""
    check = checker(
        "s_t",
        {
            "type": "object",
            "properties": {"n": {"type": "integer"}, "o": {"$ref": "#/$defs/o"}},
            "required": ["n"],
            "additionalProperties": False,
            "$defs": {"o": {"type": "object", "properties": {"p": {"enum": [1, 2]}}}},
        },
    )
    assert check({"n": 1, "o": {"p": 2}}) == {"n": 1, "o": {"p": 2}}
    with pytest.raises(InvalidInputError) as caught:
        check({"o": {"p": 3}, "q": "x" * 10_000})
    message = caught.value.message
    assert "arguments of tool s_t are wrong" in message
    assert "'n' is a required property" in message
    assert "o.p: 3 is not one of [1, 2]" in message
    assert "'q' was unexpected" in message
    assert caught.value.next_step == "Its parameters are: n (required), o."
    with pytest.raises(InvalidInputError) as long:
        check({"n": "y" * 10_000})
    assert len(long.value.message) < 400
    assert "is not of type 'integer'" in long.value.message
    many = checker("t", {"properties": {f"a{n}": {"type": "null"} for n in range(30)}})
    with pytest.raises(InvalidInputError, match=r"a9: 1 is not.*; and more$"):
        many({f"a{n}": 1 for n in range(30)})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # jsonschema warns, and follows it
@pytest.mark.parametrize("reference", ["{file}", "#/$defs/none", "#"])
def test_references_stay_inside(reference: str, tmp_path: Path) -> None:
    """A reference that leads out of the schema is not followed, to a file or anywhere else: it is left
    to the server to check those arguments."""
    file = tmp_path / "schema.json"
    file.write_text('{"type": "integer"}')
    check = checker("t", {"properties": {"a": {"$ref": reference.format(file=file.as_uri())}}})
    assert check({"a": {"a": 1}}) == {"a": {"a": 1}}


@pytest.mark.parametrize(
    "part",
    [
        {"pattern": "^(a+)+$"},
        {"anyOf": [{"pattern": "^(a+)+$"}, {"pattern": "^(a|a)*$"}]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"},
        {"$ref": "#/$defs/slow"},
    ],
    ids=["plain", "nested", "dialect", "reference"],
)
@pytest.mark.parametrize("dialect", ["draft-07", "draft-04", "none"])
def test_expressions_are_left_to_the_server(part: dict[str, Any], dialect: str) -> None:
    """A regular expression of a server is not matched here, wherever it is in the schema, and
    everything else still is. (S2-35, S2-53)"""
    slow = "a" * 40 + "!"
    schema = {
        "$schema": f"http://json-schema.org/{dialect}/schema#",
        "type": "object",
        "properties": {"text": part, "n": {"type": "integer"}, "o": {"$ref": "#"}},
        "$defs": {"slow": {"pattern": "^(a+)+$"}},
        "patternProperties": {"^(a+)+$": {"type": "integer"}},
        "additionalProperties": False,
    }
    check = checker("t", schema)
    given = {"text": slow, slow: "x", "o": {"text": slow, slow: 1}}
    assert check(given) == given
    with pytest.raises(InvalidInputError, match="n: 'x' is not of type 'integer'"):
        check({"text": slow, "n": "x"})


@pytest.mark.parametrize("keyword", ["unevaluatedProperties", "additionalProperties"])
def test_what_depends_on_expressions_is_left_too(keyword: str) -> None:
    """Whether there is an argument too many is not decided by a server's expressions here, but where it
    has none it is. (S2-35)"""
    slow = "a" * 40 + "!"
    expressions: dict[str, Any] = {"patternProperties": {"^(a+)+$": {}}}
    assert checker("t", {"allOf": [expressions], keyword: True})({slow: 1}) == {slow: 1}
    assert checker("t", {**expressions, keyword: False})({slow: 1}) == {slow: 1}
    with pytest.raises(InvalidInputError):
        checker("t", {"additionalProperties": False})({"a": 1})


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the SDK is imported before it is used, and then its absence names the extra."""
    code = (
        "import sys, paceline.tools.mcp; print({'mcp', 'anyio', 'jsonschema'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
    monkeypatch.delitem(sys.modules, "paceline.tools.mcp.sdk")
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ConfigError, match="not installed: mcp") as caught:
        import paceline.tools.mcp.sdk  # noqa: F401
    assert "paceline[mcp]" in caught.value.next_step


def test_a_check_has_an_end() -> None:
    """References that lead to one another over and over, lists that are compared with lists, and
    whatever else takes too long make no check last: what was not found by then is no fault. (S2-35)"""
    double = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    deep: dict[str, Any] = {"$ref": "#/$defs/d0", "$defs": {**double, "d60": {}}}
    assert finder(deep)(1) == []
    many = list(range(20_000))
    assert finder({"items": {"enum": many}})([*many, "x"]) == []
    assert finder({"uniqueItems": True})([{"a": n} for n in range(20_000)]) == []
    assert finder({"items": {"enum": [1, 2]}})([1, 2, 3]) == ["[2]: 3 is not one of [1, 2]"]
    again = finder({"items": {"type": "integer"}})
    assert [again([1] * 40_000) for _ in range(3)] == [[]] * 3
    assert len(again(["x"])) == 1
