"""What servers answer: lines, values, and errors."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import Category
from paceline.redaction import Redactor, Secret
from paceline.tools.mcp.failures import BROKEN, Failures, broken
from paceline.tools.mcp.process import Lines, TooLong
from paceline.tools.mcp.results import text_of, value_of
from paceline.tools.mcp.sdk import MCPError, types

WRAPPED = {"type": "object", "properties": {"result": {"type": "string"}}}
FAILURES = Failures("far", Redactor([Secret("secret-value")]))


def text(said: str) -> types.TextContent:
    return types.TextContent(type="text", text=said)


@given(st.lists(st.binary(max_size=12)), st.data())
def test_lines_are_the_same_however_they_come(lines: list[bytes], data: st.DataObject) -> None:
    """Lines do not depend on the pieces they come in, and of one that is too long there is only a
    beginning; it takes no more memory than that and one piece. (S2-53)"""
    whole = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in whole)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    reader, found = Lines(6), list[bytes]()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
        assert sum(map(len, reader._held)) <= 6
    assert len(found) == len(whole)
    for line, got in zip(whole, found, strict=True):
        assert isinstance(got, TooLong) is (len(line) > 6)
        assert line.startswith(got)
        assert len(got) >= min(len(line), 7)


@pytest.mark.parametrize(
    ("content", "data", "schema", "value"),
    [
        ([text("a"), text("b")], None, None, "a\nb"),
        ([], None, None, ""),
        ([text('{"x": 1}')], {"x": 1}, None, {"x": 1}),
        ([], {"x": 1}, None, {"x": 1}),
        ([text("one thing")], {"x": 1}, None, {"text": "one thing", "data": {"x": 1}}),
        ([text("a")], {"result": "a"}, WRAPPED, "a"),
        ([text("a"), text("b")], {"result": ["a", "b"]}, WRAPPED, ["a", "b"]),
        ([text('{"result": 1}')], {"result": 1}, None, {"result": 1}),
        (
            [text("a")],
            {"result": "a", "more": 1},
            WRAPPED,
            {"text": "a", "data": {"result": "a", "more": 1}},
        ),
        ([text("[" * 100_000)], [1], None, {"text": "[" * 100_000, "data": [1]}),
    ],
)
def test_values(content: list[Any], data: Any, schema: Any, value: object) -> None:
    """Data is the value of a result, out of what it was wrapped in; text alone is text, and text that
    says something else stands beside the data. (S2-37)"""
    result = types.CallToolResult(content=content, structured_content=data)
    assert value_of(result, schema) == value


def test_notes_for_what_is_no_text() -> None:
    """What a model cannot be told is a short note with its kind and size; a text resource is its text."""
    data = base64.b64encode(b"x" * 3_000).decode()
    blob = types.BlobResourceContents(uri="file:///b", mime_type="x/y", blob=data)
    inner = types.TextResourceContents(uri="file:///a", text="text of a")
    content: list[types.ContentBlock] = [
        types.ImageContent(type="image", data=data, mime_type="image/png"),
        types.AudioContent(type="audio", data=data, mime_type="audio/wav"),
        types.ResourceLink(type="resource_link", name="n", uri="file:///c"),
        types.EmbeddedResource(type="resource", resource=inner),
        types.EmbeddedResource(type="resource", resource=blob),
    ]
    assert text_of(content).splitlines() == [
        "[image, image/png, 3,000 bytes]",
        "[audio, audio/wav, 3,000 bytes]",
        "[resource n: file:///c]",
        "text of a",
        "[resource file:///b, x/y, 3,000 bytes]",
    ]


@given(st.text())
def test_errors_are_fit_to_be_shown(said: str) -> None:
    """Errors name the server and are short; no secret and no control of a terminal is in them."""
    for error in (
        FAILURES.failed(f"{said}secret-value{said}" * 100, Category.EXECUTION),
        FAILURES.of_error(MCPError(1, f"{said} secret-value")),
        FAILURES.closed(f"secret-value {said}", started=True),
        FAILURES.late(said, 1.5, started=True, story=f"secret-value{said}"),
    ):
        assert "far" in error.message
        assert len(error.message) < 2_200
        assert "secret-value" not in error.message
        assert all(sign == "\n" or sign >= " " for sign in error.message)
        assert "[mcp.far]" in error.next_step or "next call" in error.next_step
    assert FAILURES.of_tool("").message


@pytest.mark.parametrize(
    "data", [None, 3, {"paceline": 1}, {"paceline": {"category": "no", "retry_after_s": "x"}}]
)
def test_servers_cannot_speak_for_us(data: object) -> None:
    """An error of a server with the code of ours, and nonsense in it, is an error of the server's."""
    error = FAILURES.of_error(MCPError(BROKEN, "words", data))
    assert (error.category, error.retry_after_s) == (Category.EXECUTION, None)
    assert error.may_have_started
    assert not FAILURES.ends_session(MCPError(BROKEN, "words", data))


def test_errors_of_transports() -> None:
    """What a transport of ours says of an error is what the error says."""
    said = broken("words", Category.RATE_LIMIT, started=False, retry_after_s=3.0, over=True)
    raised = MCPError.from_error_data(types.ErrorData.model_validate_json(said.model_dump_json()))
    error = FAILURES.of_error(raised)
    assert (error.category, error.retry_after_s) == (Category.RATE_LIMIT, 3.0)
    assert not error.may_have_started
    assert FAILURES.ends_session(raised)
    assert FAILURES.of_error(error) is error
    assert FAILURES.of_error(ValueError("secret-value")).category is Category.EXECUTION
