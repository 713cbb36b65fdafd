"""What happens in a session as lines of text, for people. Pure."""

from collections.abc import Mapping
from typing import Final, cast

import msgspec

from paceline.cli.output import LONGEST_ERROR, as_text
from paceline.cli.views import Line
from paceline.engine.events import ApprovalNeeded, QuestionAsked, ToolChanged
from paceline.engine.states import (
    ConversationTurn,
    StateTransition,
    ToolStatus,
    TransitionTrigger,
    TurnStatus,
)
from paceline.errors import BudgetExceededError, Category, PacelineError, StorageError
from paceline.hostexec.text import shorten
from paceline.metrics.profile.waterfall import duration

__all__ = [
    "ASCII",
    "SIGNS",
    "Signs",
    "approval_lines",
    "arguments",
    "error_lines",
    "question_lines",
    "tool_lines",
    "trouble_line",
    "turn_line",
]

_MOST_ARGUMENTS: Final = 60
_MOST_TROUBLE: Final = 400
_NS: Final = 1e9
_FULL: Final = ("disk is full", "no space left")
"""How SQLite and the system say it."""
_BROKEN: Final = "disk I/O error"
_DELIVERED: Final = frozenset({ToolStatus.COMPLETED, ToolStatus.CACHED})


class Signs(msgspec.Struct, frozen=True):
    """What marks a tool that delivered, one that did not, and a cut."""

    good: str
    bad: str
    cut: str


SIGNS: Final = Signs("✓", "✗", "…")
ASCII: Final = Signs("ok", "failed", "~")


def tool_lines(event: ToolChanged, signs: Signs = SIGNS) -> list[Line]:
    """One line for a tool that has ended, and one more for what went wrong."""
    delivered = event.status in _DELIVERED
    parts = [
        f"{signs.good if delivered else signs.bad} {event.tool_name}",
        arguments(event.args, signs),
        duration(event.execution_ns) if event.execution_ns else "",
        (event.source if delivered else "") or event.status.replace("_", " "),
    ]
    lines = [Line("  " + "  ".join(part for part in parts if part), "" if delivered else "bad")]
    if not delivered:
        why = " ".join((event.error or event.result).split())
        lines.append(Line(f"    {_cut(why, _MOST_TROUBLE, signs)}", "dim"))
    return lines


def arguments(args: str, signs: Signs = SIGNS) -> str:
    """The arguments that a model wrote, by name, as short as they can be told."""
    given = _decoded(args)
    if given is None:
        return _cut(" ".join(args.split()), _MOST_ARGUMENTS, signs)
    parts = [f"{name}={_shown(value)}" for name, value in given.items()]
    return _cut(" ".join(", ".join(parts).split()), _MOST_ARGUMENTS, signs)


def approval_lines(event: ApprovalNeeded) -> list[Line]:
    """A call that a person is asked about, in full."""
    given = _decoded(event.args)
    lines = [Line(f"  {event.tool_name} wants to run:", "head")]
    if given is None:
        return [*lines, *_indented(event.args)]
    for name, value in given.items():
        first, *others = _text(value).split("\n")
        lines += [Line(f"    {name} = {first}"), *(Line(f"      {other}") for other in others)]
    return lines if given else [*lines, Line("    without arguments")]


def question_lines(event: QuestionAsked) -> list[Line]:
    """A question of a tool to the user."""
    return [Line(f"  {line}", "head") for line in event.text.split("\n")]


def turn_line(turn: ConversationTurn) -> str:
    """What a turn took: time, steps, tokens and money, as far as they are known; for one that was
    cancelled, after what time."""
    if turn.status is TurnStatus.CANCELLED:
        parts = [f"cancelled after {(turn.execution_ns or 0) / _NS:.1f} s"]
    else:
        parts = [] if turn.execution_ns is None else [duration(turn.execution_ns)]
        parts.append(f"{turn.steps} step{'' if turn.steps == 1 else 's'}")
    if turn.tokens is not None:
        parts.append(f"{turn.tokens.input:,} tokens in, {turn.tokens.output:,} out")
    if turn.cost_usd is not None:
        parts.append(f"${turn.cost_usd:.4f}")
    return ", ".join(parts)


def trouble_line(move: StateTransition) -> Line | None:
    """What went wrong, where it may help to try again; what ends a turn, or a tool, is told elsewhere."""
    trouble = move.trouble
    if trouble is None or not trouble.retryable:
        return None
    what = _cut(" ".join(as_text(trouble.message).split()), _MOST_TROUBLE, SIGNS)
    if move.trigger is TransitionTrigger.RESOURCE_LIMIT:
        return Line(f"  {what}", "dim")
    again = _again(trouble.again_s)
    return Line(f"  attempt {trouble.attempt} failed: {what}{again}", "dim")


def _again(after_s: float | None) -> str:
    if after_s is None:
        return ""
    return "; tried again" + (f" in {after_s:.0f} s" if after_s >= 1 else " at once")


def error_lines(error: PacelineError) -> list[Line]:
    """What ended a turn or the chat, and what to do about it here."""
    message, advice = shorten(as_text(error), LONGEST_ERROR), error.next_step
    if isinstance(error, BudgetExceededError) and error.budget == "timeout_s":
        advice = "Give it longer: --timeout SECONDS."
    elif isinstance(error, StorageError):
        message, advice = _storage(error, message)
    return [Line(f"error: {message}", "bad"), Line(f"  next: {advice}", "dim")]


def _storage(error: StorageError, message: str) -> tuple[str, str]:
    """The same for what cannot be written: SQLite calls a full disk a broken one at times."""
    if _is_full(error):
        message = message if _FULL[1] in message.lower() else f"no space left: {message}"
        return message, "Free some space, or chat with --no-keep, which writes no session down."
    if _BROKEN in message:
        return message, "See whether there is space left; --no-keep writes no session down."
    return message, error.next_step


def _is_full(error: StorageError) -> bool:
    message = error.message.lower()
    return error.category is Category.EXHAUSTED or any(words in message for words in _FULL)


def _indented(text: str) -> list[Line]:
    return [Line(f"    {line}") for line in text.split("\n")]


def _decoded(args: str) -> Mapping[str, object] | None:
    """The arguments by name; None for what is no JSON object."""
    try:
        given = msgspec.json.decode(args or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return cast("Mapping[str, object]", given) if isinstance(given, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _shown(value: object) -> str:
    """A value as it is told apart from what is around it."""
    return f'"{" ".join(value.split())}"' if isinstance(value, str) else _text(value)


def _cut(text: str, most: int, signs: Signs) -> str:
    """At a space, unless that would leave less than half."""
    if len(text) <= most:
        return text
    room = most - len(signs.cut)
    at = text.rfind(" ", room // 2, room + 1)
    return text[: room if at < 0 else at] + signs.cut
