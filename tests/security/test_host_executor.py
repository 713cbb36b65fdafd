"""One command's way through the executor: refused, queued, recorded, limited, told."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from paceline.errors import (
    AuditError,
    CallTimeoutError,
    Category,
    CommandDeniedError,
    CommandFailedError,
    OverloadedError,
)
from paceline.hostexec.audit import first_break
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox.limits import Limits
from tests.security.shell_host import KNOWN_SECRET, GrantedScript, ShellHost

Make = Callable[..., ShellHost]


class _DenyAll:
    digest = "nothing-allowed"

    def split(self, text: str, /) -> tuple[str, ...]:
        raise CommandDeniedError("a shell would do that", reason="shell_syntax", detail=text)

    def decide(self, argv: Sequence[str], /) -> GrantedScript:
        raise CommandDeniedError("no rule allows it", reason="no_rule", detail=argv[0])


async def test_a_crowd_is_served_within_bounds(shell: Make) -> None:
    """Of two hundred requests at once four run, sixteen wait, and the others are told at once when
    to come back, while the event loop goes on. (B-50)"""
    host = shell(limits=Limits(concurrency=4, queue=16))
    longest_s, stop = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest_s
        while not stop.is_set():
            before = time.perf_counter()
            await asyncio.wait({asyncio.ensure_future(stop.wait())}, timeout=0.005)
            longest_s = max(longest_s, time.perf_counter() - before)

    ticker = asyncio.ensure_future(tick())
    results = await asyncio.gather(
        *(host.host.run(("sh", "sleep 0.1")) for _ in range(200)), return_exceptions=True
    )
    stop.set()
    await ticker
    served = [result for result in results if isinstance(result, CommandResult)]
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert (len(served), len(refused)) == (20, 180)
    assert all(error.retry_after_s and error.retry_after_s > 0 for error in refused)
    assert longest_s < 0.5, "a blocking run would take the whole two seconds"
    assert len(host.lines()) == 40


async def test_the_intent_is_on_record_before_anything_runs(shell: Make, directory: Path) -> None:
    """The log names a command before it is started, and what came of it afterwards."""
    host = shell(effect="write")
    task = asyncio.ensure_future(host.sh("touch started; sleep 0.3"))
    while not (directory / "started").exists():
        await asyncio.wait({task}, timeout=0.01)
    (intent,) = host.lines()
    assert intent["phase"] == "intent"
    result = await task
    _, last = host.lines()
    assert (last["phase"], last["id"], last["exit"]) == ("result", intent["id"], "exited")
    assert intent["argv"] == ["/usr/bin/sh", "-c", "touch started; sleep 0.3"]
    assert intent["policy"] == "test-policy"
    assert intent["sandbox"] == result.sandbox == "bubblewrap"
    assert last["duration_ms"] == result.duration_ms


async def test_without_a_log_nothing_runs(shell: Make, directory: Path) -> None:
    """When the audit log cannot be written, commands are refused."""
    host = shell(effect="write")
    host.log.mkdir()
    try:
        with pytest.raises(AuditError) as caught:
            await host.sh("touch started")
    finally:
        host.log.rmdir()
    assert not caught.value.may_have_started
    assert not (directory / "started").exists()


async def test_a_refusal_is_on_record(shell: Make) -> None:
    """A command that the policy refuses leaves one line, with the reason, and runs nothing."""
    host = shell()
    host.host.policy = _DenyAll()
    with pytest.raises(CommandDeniedError):
        await host.host.run(("rm", "-rf", "x\x1b[2J"), who="bot")
    (line,) = host.lines()
    assert (line["phase"], line["reason"], line["who"]) == ("denied", "no_rule", "bot")
    assert "\x1b" not in host.log.read_text()


async def test_a_line_for_a_shell_is_audited(shell: Make) -> None:
    """A line that only a shell could carry out is refused like a command, with its text in the
    log. (A-15)"""
    host = shell()
    host.host.policy = _DenyAll()
    with pytest.raises(CommandDeniedError):
        await host.host.run("uname; id", who="bot")
    (line,) = host.lines()
    assert (line["phase"], line["reason"]) == ("denied", "shell_syntax")
    assert line["argv"] == ["uname; id"]


async def test_secrets_of_a_command_are_masked_in_the_log(shell: Make) -> None:
    """Neither a known secret nor what looks like one reaches the log, not even as a token of its
    own after the option that names it."""
    host = shell()
    await host.host.run(("sh", "true", f"x-{KNOWN_SECRET}", "--api-key", "a1b2c3d4", "plain"))
    text = host.log.read_text()
    assert KNOWN_SECRET not in text
    assert "a1b2c3d4" not in text
    assert "plain" in text
    argv = host.lines()[0]["argv"]
    assert len(argv) == 7
    assert first_break(host.log) is None


async def test_a_failure_says_what_and_why(shell: Make) -> None:
    """The error of a failed command has its result, the exit code, and the command's last word as
    advice. (S1-21)"""
    with pytest.raises(CommandFailedError) as caught:
        await shell().host.run(("sh", "echo first >&2; echo 'no \x1b[1mluck' >&2; exit 3"))
    error = caught.value
    assert error.message.endswith("ended with exit code 3")
    assert error.next_step == "It said: no  [1mluck"
    assert error.category is Category.EXECUTION
    assert isinstance(error.result, CommandResult)
    assert error.result.stderr.startswith("first\n")


async def test_exit_codes_that_a_rule_calls_success(shell: Make) -> None:
    """An exit code that the rule expects is a result and no error."""
    result = await shell(success=(0, 1)).host.run(("sh", "exit 1"))
    assert (result.ok, result.exit_code) == (True, 1)


async def test_the_shortest_limit_holds(shell: Make) -> None:
    """A caller's timeout and deadline shorten a command's limit and never lengthen it. (X-14,
    S1-20)"""
    host = shell(limits=Limits(wall_s=0.2))
    for timeout_s, expected in ((None, 0.2), (60.0, 0.2), (0.1, 0.1)):
        with pytest.raises(CommandFailedError, match=f"timed out after {expected}s"):
            await host.host.run(("sh", "sleep 5"), timeout_s=timeout_s)
    deadline_ns = time.monotonic_ns() + 100_000_000
    with pytest.raises(CommandFailedError) as caught:
        await host.host.run(("sh", "sleep 5"), deadline_ns=deadline_ns)
    assert caught.value.category is Category.TIMEOUT


async def test_a_deadline_counts_while_waiting(shell: Make) -> None:
    """A command whose deadline passes in the queue is not started, and its place is free."""
    host = shell(limits=Limits(concurrency=1))
    first = asyncio.ensure_future(host.sh("sleep 0.3"))
    await asyncio.wait({first}, timeout=0.05)
    with pytest.raises(CallTimeoutError) as caught:
        await host.host.run(("sh", "true"), deadline_ns=time.monotonic_ns() + 50_000_000)
    assert not caught.value.may_have_started
    with pytest.raises(CallTimeoutError):
        await host.host.run(("sh", "true"), deadline_ns=time.monotonic_ns() - 1)
    await first
    assert (await host.sh("true")).ok


async def test_limits_follow_what_a_rule_takes(shell: Make) -> None:
    """Every run counts towards a rule's limit, which is four times what they take, and the first
    limit where that is less. (S1-20)"""
    host = shell(limits=Limits(wall_s=9.0))
    for _ in range(19):
        await host.sh("true")
    host.host._timeouts.observe("test-sh", 0.1)
    await host.sh("true")
    assert host.lines()[-2]["limits"]["wall_s"] == 9.0
    host.host._timeouts.observe("test-sh", 10.0)
    await host.sh("true")
    assert host.lines()[-2]["limits"]["wall_s"] == 40.0


async def test_slow_rules_start_with_the_longer_limit(shell: Make) -> None:
    """The first limit is 15 s, and 30 s for a rule marked slow. (S1-20)"""
    for slow, expected in ((False, 15.0), (True, 30.0)):
        host: Any = shell(slow=slow)
        await host.sh("true")
        assert host.lines()[-2]["limits"]["wall_s"] == expected
