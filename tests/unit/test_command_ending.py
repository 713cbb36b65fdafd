"""What the end of a process means."""

import pytest

from paceline.errors import Category
from paceline.hostexec.result import CommandResult, ExitKind
from paceline.hostexec.sandbox.ending import Ending, ending, failure
from paceline.hostexec.sandbox.level import launch_failure
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.process import Ended


def _ended(code: int, *, stopped: str = "", stderr: bytes = b"") -> Ended:
    return Ended(code=code, stopped=stopped, stdout=b"", stderr=stderr, truncated=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (_ended(0), Ending("exited", 0, ok=True)),
        (_ended(1), Ending("exited", 1, ok=True)),
        (_ended(2), Ending("exited", 2, ok=False)),
        (_ended(127), Ending("exited", 127, ok=False)),
        (_ended(139), Ending("signaled", 139, ok=False)),
        (_ended(-9), Ending("signaled", 137, ok=False)),
        (_ended(255), Ending("exited", 255, ok=False)),
        (_ended(152), Ending("cpu_limit", 152, ok=False)),
        (_ended(153), Ending("file_limit", 153, ok=False)),
        (_ended(1, stderr=b"MemoryError\n"), Ending("exited", 1, ok=True)),
        (_ended(2, stderr=b"x: Cannot allocate memory"), Ending("memory_limit", 2, ok=False)),
        (_ended(-15, stopped="timeout"), Ending("timeout", None, ok=False)),
        (_ended(0, stopped="output_limit"), Ending("output_limit", None, ok=False)),
    ],
)
def test_every_end_has_its_kind(ended: Ended, expected: Ending) -> None:
    """Success, exit codes, signals and each limit are told apart. (B-51, B-47)"""
    assert ending(ended, (0, 1)) == expected


@pytest.mark.parametrize(
    ("kind", "code", "category", "words"),
    [
        ("exited", 2, Category.EXECUTION, "`ls nope` ended with exit code 2"),
        ("signaled", 139, Category.EXECUTION, "`ls nope` was ended by SIGSEGV"),
        ("timeout", None, Category.TIMEOUT, "`ls nope` timed out after 15s"),
        ("output_limit", None, Category.EXHAUSTED, "`ls nope` printed more than 262144 bytes"),
        ("memory_limit", 1, Category.EXHAUSTED, "`ls nope` needed more than its 1073741824"),
        ("cpu_limit", 152, Category.EXHAUSTED, "`ls nope` used up its 10s"),
        ("file_limit", 153, Category.EXHAUSTED, "`ls nope` wrote a file of more than 16777216"),
    ],
)
def test_every_failure_is_told(
    kind: ExitKind, code: int | None, category: Category, words: str
) -> None:
    """The error says in words what happened and what to do about the limit that was met, and has
    the category that metrics go by. (S1-21)"""
    result = CommandResult(
        id="1",
        command="ls nope",
        rule="ls",
        exit_kind=kind,
        exit_code=code,
        ok=False,
        stdout="",
        stderr="",
        truncated=False,
        lossy=False,
        duration_ms=1.0,
        sandbox="bubblewrap",
    )
    error = failure(result, Limits(), 15.0)
    assert error.message.startswith(words)
    assert error.category is category
    assert error.result is result
    assert error.next_step == {
        "timeout": "Ask for less at once, or raise hostexec.timeout_s"
        " (slow_timeout_s for find, grep).",
        "output_limit": "Ask for less (head, tail, -n, -m), or raise hostexec.output_bytes.",
        "memory_limit": "Ask for less at once, or raise hostexec.memory_bytes.",
        "cpu_limit": "Ask for less at once: this limit is fixed.",
        "file_limit": "Write less into one file: this limit is fixed.",
    }.get(kind, "The command's own messages (stderr) say why.")


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (_ended(1, stderr=b"bwrap: No permissions\nmore"), "bwrap: No permissions"),
        (_ended(126, stderr=b"paceline-launcher: x\n"), "paceline-launcher: x"),
        (_ended(0, stderr=b"bwrap: only a word"), ""),
        (_ended(1, stderr=b"ls: bwrap: no such file"), ""),
    ],
)
def test_the_sandboxs_own_failures_are_known(ended: Ended, told: str) -> None:
    """A failure that one of the sandbox's tools reports first is the sandbox's; a command's own
    words are not."""
    assert launch_failure(ended) == told
