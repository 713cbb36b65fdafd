"""The text edge: a command line in, a message for people out.

Inside there are words and typed results. Only here a line is taken apart, without being
interpreted, and only here results and errors become sentences.
"""

import re
import shlex
from typing import Final

from paceline.errors import (
    Category,
    CommandDeniedError,
    CommandFailedError,
    HostExecError,
    InvalidInputError,
    PacelineError,
)
from paceline.hostexec.policy.words import MAX_BYTES, MAX_TOKENS
from paceline.hostexec.result import CommandResult, visible
from paceline.redaction import Redactor

__all__ = ["error_text", "result_text", "shorten", "split"]

_QUOTED: Final = re.compile(r"""'[^']*'|"(?:\\.|[^"\\$`])*"|\\.""", re.DOTALL)
"""What no shell would act upon; double quotes with an expansion in them are not among it."""
_SHELL: Final = re.compile(r"&&|\|\||>>|\$\(|[|&;\n<>()$`]")
_MEANING: Final = {
    "|": "joins commands",
    "&": "joins commands",
    ";": "joins commands",
    "\n": "joins commands",
    "<": "redirects",
    ">": "redirects",
    "(": "groups commands",
    ")": "groups commands",
    "$": "is replaced by something",
    "`": "is replaced by something",
}
"""What a shell would take an operator for, by its first character."""
_HEAD: Final = 2 / 3
_LONGEST_LINE: Final = MAX_TOKENS * MAX_BYTES
"""In characters: a line of more can be no command."""


def split(text: str) -> tuple[str, ...]:
    """The words of a command line, as `shlex.split` makes them.

    Nothing is expanded or run: `*` is the character. What only a shell could carry out is
    refused, so that nobody takes half of a line for the whole. Raises CommandDeniedError
    (`shell_syntax`), or InvalidInputError for an empty line, one that is longer than any command
    can be, or a quote that does not end.
    """
    if len(text) > _LONGEST_LINE:
        raise InvalidInputError(
            f"the command line is longer than {_LONGEST_LINE} characters",
            next_step="Shorten it, or name a directory instead of files.",
        )
    line = text.strip()
    try:
        words = tuple(shlex.split(line))
    except ValueError as exc:
        raise InvalidInputError(
            f"the command line cannot be split: {str(exc)[:1].lower()}{str(exc)[1:]}",
            next_step="Close the quote, or put a backslash before it.",
        ) from exc
    if found := _SHELL.search(_QUOTED.sub(" ", line)):
        shown = "a line break" if found[0] == "\n" else found[0]
        raise CommandDeniedError(
            f"{shown} {_MEANING[found[0][0]]} in a shell, and commands run without one",
            reason="shell_syntax",
            detail=found[0],
            next_step="Run one command at a time; put the character in single quotes if you"
            " mean it.",
        )
    if not words:
        raise InvalidInputError("the command is empty", next_step="Name a program to run.")
    return words


def result_text(
    result: CommandResult,
    *,
    limit: int | None = None,
    where: str = "",
    redactor: Redactor | None = None,
) -> str:
    """What a command did, for people: a line with its exit code, then its output.

    At most `limit` characters (2000 for a Discord message; None for no limit). `where` tells
    where the whole output can be found. Whatever has the form of a secret is masked.
    """
    return shorten((redactor or Redactor()).text(str(result)), limit, where=where)


def error_text(
    error: PacelineError,
    command: str = "",
    *,
    limit: int | None = None,
    where: str = "",
    redactor: Redactor | None = None,
) -> str:
    """What went wrong, for people: a line that says it, what to do about it, and what output there
    is. `command` is the line that was asked for. Otherwise like `result_text`.
    """
    mask = (redactor or Redactor()).text
    result = error.result if isinstance(error, CommandFailedError) else None
    ran = result if isinstance(result, CommandResult) else None
    text = _joined(
        mask(visible(_headline(error, command, ran))),
        mask(visible(f"→ {_advice(error)}")),
        mask(ran.output) if ran else "",
    )
    return shorten(text, limit, where=where)


def shorten(text: str, limit: int | None, *, where: str = "") -> str:
    """The text in at most `limit` characters: two thirds of it from its beginning, the rest from
    its end, and between them how much is missing and `where` it is. None: the whole text."""
    if limit is None or len(text) <= limit:
        return text
    room = limit - len(_gap(len(text), where))
    if room <= 0:
        return text[: max(0, limit)]
    head = int(room * _HEAD)
    tail = room - head
    return text[:head] + _gap(len(text) - room, where) + text[len(text) - tail :]


def _gap(missing: int, where: str) -> str:
    return f"\n[... {missing} characters left out{f'; {where}' if where else ''} ...]\n"


def _headline(error: PacelineError, command: str, result: CommandResult | None) -> str:
    if isinstance(error, CommandDeniedError):
        return f"⚠️  Command blocked by whitelist: {command or error.message}"
    if error.category is Category.AUTHENTICATION and isinstance(error, HostExecError):
        return "❌ Host exec authentication failed (check HOST_EXEC_TOKEN)"
    if result is None:
        return f"❌ {error.message}"
    shown = command or result.command
    if result.exit_kind == "timeout":
        limit = error.message.rpartition(" timed out after ")[2]
        return f"❌ Command timed out after {limit}: {shown}"
    if result.exit_kind == "exited":
        return f"❌ `{shown}` (exit code: {result.exit_code})"
    return f"❌ {error.message}"


def _advice(error: PacelineError) -> str:
    denied = isinstance(error, CommandDeniedError)
    return f"{error.message}. {error.next_step}" if denied else error.next_step


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)
