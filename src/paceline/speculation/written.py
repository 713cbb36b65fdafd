"""Calls as models write them, and as they may be learnt of: without secrets."""

from collections.abc import Mapping
from typing import Final, cast, final

import msgspec

from paceline.engine.states import ToolCall, ToolStatus
from paceline.messages import ToolUse
from paceline.predict.events import Called
from paceline.redaction import MASK, Redactor

__all__ = ["Redacted", "written"]

_CAME: Final = frozenset({ToolStatus.COMPLETED, ToolStatus.CACHED})


@final
class Redacted:
    """Makes of the calls of a session what may be learnt of them."""

    __slots__ = ("_redactor",)

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def called(self, call: ToolCall) -> Called:
        """A call that was made. What did not run has no result."""
        failed = call.status not in _CAME
        result = self._clean(call.error or call.result if failed else _read(call.result))
        return Called(call.tool_name, self._arguments(call.args), result, failed)

    def asked(self, use: ToolUse, *, failed: bool = False) -> Called:
        """A call of which there is no result."""
        return Called(use.name, self._arguments(use.arguments), failed=failed)

    def _arguments(self, text: str) -> dict[str, object]:
        found = self._clean(_read(text))
        return cast("dict[str, object]", found) if isinstance(found, dict) else {}

    def _clean(self, value: object) -> object:
        """None for what is nested too deeply to be looked through."""
        try:
            return self._redactor.data(value)
        except RecursionError:
            return None


def written(arguments: Mapping[str, object]) -> str | None:
    """As a model would write them; None for what it could not, half a character say, and for what is
    a secret in part."""
    try:
        text = msgspec.json.encode(arguments).decode()
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError, RecursionError):
        return None
    return None if MASK in text else text


def _read(text: str) -> object:
    """What it is as JSON, else itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        return text
