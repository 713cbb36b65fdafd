"""What the host command service and its clients say to each other. Pure.

A body with `exit` is the outcome of a command that ran, whatever its status; every other body
says why none did (`Problem`). `outcome` raises at the client what the host raised at the
service: `tests/unit/test_host_client.py` holds every error to it.
"""

import json
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from paceline.errors import (
    AuditError,
    CallTimeoutError,
    Category,
    CommandDeniedError,
    CommandFailedError,
    ExecServiceError,
    InvalidInputError,
    OverloadedError,
    PacelineError,
    SandboxError,
)
from paceline.hostexec.result import CommandResult, ExitKind

__all__ = [
    "MOST_S",
    "MOST_WHO",
    "ExecRequest",
    "Exit",
    "Failure",
    "LineRequest",
    "Problem",
    "outcome",
    "parse",
    "problem",
    "reply",
]

T = TypeVar("T")
MOST_S: Final = 86_400.0
MOST_WHO: Final = 256
"""No command is waited for longer."""
Seconds = Annotated[float, Meta(gt=0, le=MOST_S)]

_MOST_DETAIL: Final = 200
_UNAUTHORIZED: Final = 401
_TOO_LARGE: Final = 413
_REDIRECT: Final = 300
_SERVER: Final = 500
_OK: Final = 200


class ExecRequest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`POST /v1/exec`."""

    argv: tuple[str, ...]
    timeout_s: Seconds | None = None
    """Shortens the command's own time limit."""
    deadline_s: Seconds | None = None
    """What is left for waiting and run together."""
    who: Annotated[str, Meta(max_length=MOST_WHO)] = ""
    """Who asks, for the audit log, by the client's own account."""


class LineRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /run`, kept for clients of the earlier service."""

    command: str


class Exit(msgspec.Struct, frozen=True):
    """How it ended."""

    kind: ExitKind
    code: int | None


class Failure(msgspec.Struct, frozen=True):
    """Why the outcome counts as a failure."""

    message: str
    next_step: str
    category: Category


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why nothing came of a request."""

    reason: str
    """A stable word."""
    detail: str
    """The token at fault, where the policy refused; else a sentence."""
    message: str = ""
    """The sentence, where `detail` is none."""
    next_step: str = ""
    category: Category | None = None
    started: bool = False
    """Something may have run."""
    retry_after_s: float | None = None
    id: str = ""
    """Names the entry in the service's log."""


def parse(body: bytes, kind: type[T]) -> T:
    """A request from its JSON. Raises InvalidInputError.

    The time it takes is proportional to the body whatever is in it: depth, types, encoding and
    numbers are judged as they are read. Only then are the keys counted.
    """
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"the request is not valid: {str(exc)[:_MOST_DETAIL]}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidInputError("Invalid JSON") from exc
    # A key given twice means one thing to us and may mean another to a proxy before us.
    keys = json.loads(body.decode(), object_pairs_hook=_keys, parse_int=str, parse_float=str)
    if len(keys) != len(set(keys)):
        raise InvalidInputError("the request has a key twice")
    return request


def _keys(pairs: list[tuple[str, Any]]) -> list[str]:
    return [key for key, _ in pairs]


def reply(result: CommandResult, failed: CommandFailedError | None = None) -> dict[str, object]:
    """The outcome of a command: its result, with `exit: {kind, code}`, and `failure` if it is one."""
    told = msgspec.structs.asdict(result)
    told["exit"] = Exit(told.pop("exit_kind"), told.pop("exit_code"))
    if failed is not None:
        told["failure"] = Failure(failed.message, failed.next_step, failed.category)
    return told


def problem(exc: PacelineError) -> tuple[int, Problem] | None:
    """Status and body for an error of the host; None for one that no client need know."""
    row = next((row for row in _ERRORS if isinstance(exc, row[0])), None)
    if row is None:
        return None
    _, status, reason = row
    said = Problem(
        reason=reason,
        detail=exc.message,
        next_step=exc.next_step,
        category=exc.category,
        started=exc.may_have_started,
        retry_after_s=exc.retry_after_s,
    )
    if isinstance(exc, CommandDeniedError):
        said = msgspec.structs.replace(
            said, reason=exc.reason, detail=exc.detail, message=exc.message
        )
    return status, said


def outcome(status: int, body: bytes, retry_after_s: float | None = None) -> CommandResult:
    """What a response means. Raises the error it tells of.

    `retry_after_s` is what its headers say. A response that this service cannot have given
    is an ExecServiceError.
    """
    try:
        told = msgspec.json.decode(body)
        if isinstance(told, dict) and "exit" in told:
            return _ran(msgspec.convert(told, dict[str, object]))
        if status != _OK:
            raise _error(status, msgspec.convert(told, Problem), retry_after_s)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if status != _OK:  # from something between us and the service, or its HTTP parser
            refused = _REDIRECT <= status < _SERVER
            said = Problem(reason="", detail=f"status {status}", started=not refused)
            raise _error(status, said, retry_after_s) from exc
    raise ExecServiceError(
        "what answered is not a host command service, or not of this version",
        next_step="Check hostexec.url.",
        category=Category.INVALID,
        may_have_started=True,
    )


def _ran(told: dict[str, object]) -> CommandResult:
    end = msgspec.convert(told["exit"], Exit)
    result = msgspec.convert({**told, "exit_kind": end.kind, "exit_code": end.code}, CommandResult)
    if "failure" not in told:
        return result
    failure = msgspec.convert(told["failure"], Failure)
    raise CommandFailedError(
        failure.message, result=result, next_step=failure.next_step, category=failure.category
    )


def _error(status: int, told: Problem, retry_after_s: float | None) -> PacelineError:
    message, next_step = told.message or told.detail, told.next_step or None
    if status == _UNAUTHORIZED:
        return ExecServiceError(
            "Host exec authentication failed (check HOST_EXEC_TOKEN)",
            next_step="Give the service and its clients the same token (hostexec.token_file).",
            category=Category.AUTHENTICATION,
        )
    if told.category is Category.POLICY:
        return CommandDeniedError(
            message, reason=told.reason, detail=told.detail, next_step=next_step
        )
    if status == _TOO_LARGE:
        return InvalidInputError("the command is too long for the host command service")
    kind, category = _KINDS.get((status, told.reason)) or _by_status(status)
    error = kind(
        message if told.reason else f"the host command service answered with {told.detail}",
        next_step=next_step,
        category=told.category or category,
        retry_after_s=told.retry_after_s if told.retry_after_s is not None else retry_after_s,
    )
    error.may_have_started = told.started  # which not every kind can be made with
    return error


_ERRORS: Final[tuple[tuple[type[PacelineError], int, str], ...]] = (
    (InvalidInputError, 400, "invalid_input"),
    (CommandDeniedError, 403, "denied"),
    (OverloadedError, 429, "overloaded"),
    (CallTimeoutError, 504, "timeout"),
    (SandboxError, 503, "sandbox"),
    (AuditError, 503, "audit"),
    (ExecServiceError, 503, "closing"),
)
_KINDS: Final[dict[tuple[int, str], tuple[type[PacelineError], Category | None]]] = {
    (status, reason): (kind, None)
    for kind, status, reason in _ERRORS
    if kind is not CommandDeniedError
}


def _by_status(status: int) -> tuple[type[PacelineError], Category]:
    """For problems that are the service's own, or of something between."""
    named: dict[int, tuple[type[PacelineError], Category]] = {
        404: (ExecServiceError, Category.NOT_FOUND),
        429: (OverloadedError, Category.EXHAUSTED),
        502: (ExecServiceError, Category.UNAVAILABLE),
        503: (ExecServiceError, Category.UNAVAILABLE),
        504: (CallTimeoutError, Category.TIMEOUT),
    }
    rest = Category.EXECUTION if status >= _SERVER else Category.INVALID
    return named.get(status, (ExecServiceError, rest))
