"""What goes wrong with a server, as errors of ours."""

import re
from collections.abc import Mapping
from typing import Final, cast, final

from paceline.errors import AgentError, CallTimeoutError, Category, PacelineError
from paceline.redaction import Redactor
from paceline.tools.mcp.sdk import MCPError, types
from paceline.tools.text import shortened

__all__ = ["BROKEN", "Failures", "broken"]

BROKEN: Final = -32090
"""The code of errors that our own transports answer with; what they mean is in their data."""
_MARK: Final = "paceline"
_MOST: Final = 2_000
_UNPRINTABLE: Final = re.compile(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_FAULT: Final = frozenset(
    {types.INVALID_PARAMS, types.METHOD_NOT_FOUND, types.URL_ELICITATION_REQUIRED}
)


def broken(
    message: str,
    category: Category,
    *,
    started: bool = True,
    retry_after_s: float | None = None,
    over: bool = False,
) -> types.ErrorData:
    """What a transport of ours answers in place of the server. `started` says whether the request
    can have had effects, `over` that the server does not know the session any more."""
    told = {"category": category, "started": started, "retry_after_s": retry_after_s, "over": over}
    return types.ErrorData(code=BROKEN, message=message, data={_MARK: told})


@final
class Failures:
    """Makes errors that name the server, are short, and have no secret in them."""

    __slots__ = ("_redactor", "name")

    def __init__(self, name: str, redactor: Redactor) -> None:
        self.name = name
        self._redactor = redactor

    def shown(self, text: str) -> str:
        """What the server says, as it can be shown."""
        return shortened(self._redactor.text(_UNPRINTABLE.sub(" ", text)).strip(), _MOST)

    def failed(
        self,
        what: str,
        category: Category,
        *,
        next_step: str = "",
        started: bool = False,
        retry_after_s: float | None = None,
    ) -> AgentError:
        """`what` stands behind the server's name."""
        return AgentError(
            f"MCP server {self.name} {self.shown(what)}",
            next_step=next_step
            or f"See that the server works; its settings are in [mcp.{self.name}].",
            category=category,
            may_have_started=started,
            retry_after_s=retry_after_s,
        )

    def late(
        self, what: str, limit_s: float, *, started: bool, story: str = ""
    ) -> CallTimeoutError:
        """The server did not answer within so many seconds."""
        words = f" ({self.shown(story)})" if story else ""
        return CallTimeoutError(
            f"MCP server {self.name} did not {self.shown(what)} within {limit_s:g} s{words}",
            next_step=f"See what it does, or raise timeout_s of [mcp.{self.name}].",
            may_have_started=started,
        )

    def closed(self, story: str, *, started: bool) -> AgentError:
        """The connection ended before the answer."""
        return self.failed(
            f"ended before it answered: {story}",
            Category.UNAVAILABLE,
            started=started,
            next_step="It is started again by the next call. What it wrote says why it ended.",
        )

    def of_tool(self, text: str) -> AgentError:
        """The tool says that it failed."""
        return AgentError(
            self.shown(text) or f"a tool of MCP server {self.name} failed and does not say why",
            next_step=f"The text is the tool's own, from MCP server {self.name}.",
            may_have_started=True,
        )

    def of_error(self, exc: Exception) -> PacelineError:
        """What the SDK raised while it waited for an answer."""
        if isinstance(exc, PacelineError):
            return exc
        if not isinstance(exc, MCPError):  # what was answered is not as the protocol has it
            return self.failed(
                f"gave no answer that can be used: {exc}", Category.EXECUTION, started=True
            )
        told = _told(exc)
        if told is None:
            invalid = exc.code in _NO_FAULT
            return self.failed(
                f"refused the request: {exc.message}" if invalid else f"failed: {exc.message}",
                Category.INVALID if invalid else Category.EXECUTION,
                started=True,
            )
        after = told.get("retry_after_s")
        return self.failed(
            exc.message,
            _category(told.get("category")),
            started=told.get("started") is not False,
            retry_after_s=after if isinstance(after, float) else None,
        )

    def ends_session(self, exc: Exception) -> bool:
        """Whether the server does not know our session any more."""
        told = _told(exc) if isinstance(exc, MCPError) else None
        return told is not None and told.get("over") is True


def _told(exc: MCPError) -> Mapping[str, object] | None:
    """What one of our transports said, if it was one."""
    if exc.code != BROKEN or not isinstance(exc.data, dict):
        return None
    told = cast("dict[str, object]", exc.data).get(_MARK)
    return cast("dict[str, object]", told) if isinstance(told, dict) else None


def _category(word: object) -> Category:
    try:
        return Category(str(word))
    except ValueError:  # a server may answer with our code
        return Category.EXECUTION
