"""The client of the host command service: it raises what the host raised, and says what may be
repeated."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from paceline.clock import SystemClock
from paceline.errors import (
    AuditError,
    CallTimeoutError,
    Category,
    CommandDeniedError,
    CommandFailedError,
    ConfigError,
    ExecServiceError,
    InvalidInputError,
    OverloadedError,
    PacelineError,
    SandboxError,
)
from paceline.hostexec.http import client as client_module
from paceline.hostexec.http import wire
from paceline.hostexec.http.client import HostExecClient
from paceline.hostexec.http.guard import HttpLimits
from paceline.hostexec.text import error_text
from paceline.redaction import Secret
from paceline.testing.virtual_time import VirtualClock
from tests.security.service_host import (
    TOKEN,
    FakeHost,
    failed,
    for_ever,
    patience,
    result,
    serving,
)

EVERY_ERROR: tuple[PacelineError, ...] = (
    InvalidInputError("the command is empty", next_step="Name a program."),
    CommandDeniedError("no rule", reason="no_rule", detail="rm", next_step="See the rules."),
    CommandDeniedError("not this flag", reason="flag_not_allowed", detail="--output=x ✓"),
    OverloadedError("4 run and 16 wait", retry_after_s=2.25),
    CallTimeoutError("the deadline passed while the command waited"),
    SandboxError("the sandbox did not start the command"),
    AuditError("the audit log cannot be written"),
    AuditError("the audit log cannot be written", may_have_started=True),
    failed("exited", 3),
    failed("signaled", 139),
    failed("timeout", None),
    failed("output_limit", None),
    failed("memory_limit", 1),
    CommandFailedError("`x` timed out", result=result(ok=False), category=Category.TIMEOUT),
)


def _facts(error: PacelineError) -> dict[str, Any]:
    more = {name: getattr(error, name, None) for name in ("reason", "detail", "result")}
    return more | {
        "type": type(error),
        "message": error.message,
        "next_step": error.next_step,
        "category": error.category,
        "may_have_started": error.may_have_started,
        "retry_after_s": error.retry_after_s,
    }


def _client(url: str, **options: Any) -> HostExecClient:
    return HostExecClient(url, TOKEN, **({"clock": SystemClock()} | options))


@asynccontextmanager
async def _answering(*pieces: bytes, keep: bool = False) -> AsyncIterator[str]:
    """A server that answers every request with these bytes, whatever they are."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"}")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if keep:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def _http(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _error(client: HostExecClient, **options: Any) -> PacelineError:
    with pytest.raises(PacelineError) as caught:
        async with patience():
            await client.run(("uname",), **options)
    assert TOKEN.reveal() not in repr(caught.value) + caught.value.next_step
    return caught.value


# -- the same as a host of one's own ----------------------------------------------------------


async def check_errors() -> None:
    host = FakeHost()
    async with serving(host) as url:
        client = _client(url)
        host.answer = wanted = result(lossy=True, truncated=True, duration_ms=0.125, exit_code=0)
        assert await client.run(("uname", "-a")) == wanted
        for error in EVERY_ERROR:
            host.answer = error
            assert _facts(await _error(client)) == _facts(error)


async def test_the_client_is_as_good_as_the_host() -> None:
    """Result and every error arrive as the host gave them: type, message, advice, category, reason,
    output, wait, and whether something may have run. (S1-23, S1-19)"""
    await check_errors()


async def test_a_bug_of_the_service_is_named_by_its_id() -> None:
    """An internal error of the service says the id in its log, and that something may have run.
    (C-65)"""
    async with serving(FakeHost(RuntimeError("secret"))) as url:
        error = await _error(_client(url))
    assert isinstance(error, ExecServiceError)
    assert error.message == "internal error error-1"
    assert (error.category, error.may_have_started) == (Category.EXECUTION, True)


async def test_a_wrong_token_is_said_in_the_known_words() -> None:
    """401 is an authentication error that ran nothing, and is shown as it always was. (S1-21,
    S1-23)"""
    host = FakeHost()
    async with serving(host) as url:
        client = HostExecClient(url, Secret("another-token-entirely"), clock=SystemClock())
        error = await _error(client)
    assert isinstance(error, ExecServiceError)
    assert (error.category, error.may_have_started) == (Category.AUTHENTICATION, False)
    words = "❌ Host exec authentication failed (check HOST_EXEC_TOKEN)"
    assert error_text(error, "uname").splitlines()[0] == words
    assert not host.asked


class _OtherClock:
    """The clock of a machine that was started at another time."""

    SHIFT_NS = 10**15

    def monotonic_ns(self) -> int:
        return SystemClock().monotonic_ns() + self.SHIFT_NS

    wall_ns = monotonic_ns


async def check_deadline() -> None:
    clock, host = _OtherClock(), FakeHost()
    async with serving(host) as url:
        client = _client(url, clock=clock)
        before_ns = clock.monotonic_ns()
        deadline_ns = before_ns + 60_000_000_000
        await client.run(("a", "b"), timeout_s=7, deadline_ns=deadline_ns, who="ada")
        took_ns = clock.monotonic_ns() - before_ns
        (asked,) = host.asked
        assert asked["argv"] == ("a", "b")
        assert asked["timeout_s"] == 7.0
        assert asked["who"] == "http:ada"
        assert asked["deadline_ns"] is not None
        later_ns = asked["deadline_ns"] - (deadline_ns - clock.SHIFT_NS)
        assert -1_000 <= later_ns <= took_ns + 1_000  # seconds as floats are this exact
        error = await _error(client, deadline_ns=clock.monotonic_ns())
        assert isinstance(error, CallTimeoutError)
        assert not error.may_have_started
        assert len(host.asked) == 1
        await client.run(("a",))
        assert (host.asked[1]["timeout_s"], host.asked[1]["deadline_ns"]) == (None, None)
        far_ns = clock.monotonic_ns() + 10**16
        await client.run(("a",), timeout_s=1e9, deadline_ns=far_ns)
        assert host.asked[2]["timeout_s"] == 86_400.0  # more than a day is as good as for ever
        assert host.asked[2]["deadline_ns"] <= SystemClock().monotonic_ns() + 86_400 * 10**9


async def test_the_deadline_goes_with_the_command() -> None:
    """What is left of the deadline is sent along; with nothing left nothing is sent. (S1-20)"""
    await check_deadline()


async def test_cancelling_ends_the_command() -> None:
    """When the caller is cancelled the service cancels the command. (B-43)"""
    host = FakeHost(for_ever)
    async with serving(host) as url:
        task = asyncio.ensure_future(_client(url).run(("sleep", "9")))
        await host.started.wait()
        task.cancel()
        async with patience():
            await host.cancelled.wait()
        await asyncio.wait({task})
    assert task.cancelled()


async def test_what_cannot_be_sent_is_refused_here() -> None:
    """A command that is no text is invalid, one too long for the service too, and nothing runs."""
    host = FakeHost()
    async with serving(host) as url:
        client = _client(url)
        for argv in (("\ud800",), ("x" * 70_000,), (1,)):
            with pytest.raises(InvalidInputError) as caught:
                await client.run(argv)  # type: ignore[arg-type]
            assert not caught.value.may_have_started
    assert not host.asked


# -- connections ------------------------------------------------------------------------------


class _SilentResolver(AbstractResolver):
    """Never finds the name."""

    async def resolve(self, host: str, *_: Any, **__: Any) -> list[ResolveResult]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def close(self) -> None: ...


async def check_connecting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        refused = await _error(_client(f"http://127.0.0.1:{port}"))

    def silent() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_SilentResolver()))

    client = _client("http://localhost:9", connect_s=0.05, session=silent)
    for error in (refused, await _error(client)):
        assert isinstance(error, ExecServiceError)
        assert (error.category, error.may_have_started) == (Category.UNAVAILABLE, False)
        assert error.category.transient
        assert "cannot be reached" in error.message


async def check_breaking() -> None:
    plain = _http(200, json.dumps({"id": "x"}).encode())
    for pieces in (
        (),
        (b"HTTP/1.1 200 OK\r\nContent-Le",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",),
        (b"SSH-2.0-x\r\n",),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",),
    ):
        async with _answering(*pieces) as url:
            error = await _error(_client(url))
        assert isinstance(error, ExecServiceError)
        assert (error.category, error.may_have_started) == (Category.NETWORK, True), pieces
    for answer in (plain, _http(200, b"<html>"), _http(204), _http(200, b"[" * 50_000)):
        async with _answering(answer) as url:
            error = await _error(_client(url))
        assert isinstance(error, ExecServiceError)
        assert (error.category, error.may_have_started) == (Category.INVALID, True), answer[:20]


async def check_silence() -> None:
    async with _answering(keep=True) as url:
        for options in (
            {"patience_s": 0.1},
            {"patience_s": 0.1, "connect_s": 0.05},
        ):
            error = await _error(_client(url, **options))
            assert isinstance(error, CallTimeoutError)
            assert error.may_have_started


async def test_what_was_never_sent_may_be_repeated() -> None:
    """A service that cannot be reached, or not in time, is unavailable, and nothing has started.
    (S1-19)"""
    await check_connecting()


async def test_what_was_sent_may_have_run() -> None:
    """A connection that breaks after the request, or an answer nobody can read, says that the
    command may have run. (S1-19)"""
    await check_breaking()


async def test_patience_has_an_end() -> None:
    """A service that does not answer is a timeout after which the command may have run. (S1-19,
    S1-20)"""
    await check_silence()


@pytest.mark.parametrize(
    ("status", "kind", "category", "started"),
    [
        (404, ExecServiceError, Category.NOT_FOUND, False),
        (405, ExecServiceError, Category.INVALID, False),
        (421, ExecServiceError, Category.INVALID, False),
        (403, ExecServiceError, Category.INVALID, False),
        (429, OverloadedError, Category.EXHAUSTED, False),
        (500, ExecServiceError, Category.EXECUTION, True),
        (502, ExecServiceError, Category.UNAVAILABLE, True),
        (503, ExecServiceError, Category.UNAVAILABLE, True),
        (504, CallTimeoutError, Category.TIMEOUT, True),
        (302, ExecServiceError, Category.INVALID, False),
    ],
)
async def test_answers_of_others_are_understood(
    status: int, kind: type[PacelineError], category: Category, started: bool
) -> None:
    """A status from a proxy, with a body that is not ours, has its error too. (S1-23)"""
    answer = _http(status, b"<h1>no</h1>", "Retry-After: 7", "Location: http://127.0.0.1:1/")
    async with _answering(answer) as url:
        error = await _error(_client(url))
    assert type(error) is kind
    assert (error.category, error.may_have_started) == (category, started)
    assert error.retry_after_s == 7.0
    assert str(status) in error.message


async def test_a_proxy_may_name_the_moment() -> None:
    """A Retry-After with a date counts from the wall clock that the client was given. (S1-23,
    E94)"""
    clock = VirtualClock()
    at = formatdate(clock.wall_ns() // 10**9 + 60, usegmt=True)
    async with _answering(_http(503, b"", f"Retry-After: {at}")) as url:
        error = await _error(_client(url, clock=clock))
    assert error.retry_after_s == pytest.approx(60, abs=30)


async def test_a_full_service_ran_nothing() -> None:
    """The refusal of one connection too many is an error that may be repeated. (S1-19)"""
    async with serving(FakeHost(), limits=HttpLimits(connections=0)) as url:
        error = await _error(_client(url))
    assert isinstance(error, ExecServiceError)
    assert (error.category, error.retry_after_s) == (Category.UNAVAILABLE, 1.0)
    assert not error.may_have_started


async def test_redirects_are_not_followed() -> None:
    """The token goes to no address but the one that was set. (C-69)"""
    host = FakeHost()
    async with serving(host) as other:
        answer = _http(307, b"", f"Location: {other}/v1/exec")
        async with _answering(answer) as url:
            await _error(_client(url))
    assert not host.asked


async def test_an_endless_answer_is_given_up() -> None:
    """No more than 16 MiB of an answer is taken in."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    async with _answering(head, *[b" " * (1 << 20)] * 20) as url:
        error = await _error(_client(url))
    assert "has no end" in error.message
    assert error.may_have_started


# -- the address ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000",
        "http://127.0.0.1:9000/",
        "http://127.0.0.1:9000/run",
        "https://localhost:9000",
        "http://[::1]:9000",
        "http://127.0.0.9",
    ],
)
def test_addresses_on_loopback(url: str) -> None:
    """The root of the service and its `/run` on loopback are taken."""
    assert HostExecClient(url, TOKEN, clock=SystemClock()).url.endswith("/v1/exec")


async def check_addresses() -> None:
    for url in (
        "",
        "127.0.0.1:9000",
        "ftp://127.0.0.1",
        "unix:///run/x",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://127.0.0.1:x",
        "http://127.0.0.1:99999",
        "http://user:hunter2@127.0.0.1:9000",
        "http://127.0.0.1:9000/?token=hunter2",
        "http://127.0.0.1:9000/#x",
        "http://127.0.0.1:9000/other",
        "http://10.0.0.1:9000",
        "http://169.254.169.254",
        "http://0.0.0.0:9000",
        "http://127.1:9000",
        "http://2130706433",
        "http://0x7f000001",
        "http://localhost.evil",
        "http://127.0.0.1.evil",
        "http://①②⑦.0.0.1",
        "http://[64:ff9b::7f00:1]",
        "http://evil#@127.0.0.1",
        "http://127.0.0.1\\@evil",
    ):
        with pytest.raises(ConfigError) as caught:
            HostExecClient(url, TOKEN, clock=SystemClock())
        assert "hunter2" not in str(caught.value) + caught.value.next_step


async def test_other_addresses_are_refused() -> None:
    """What is no address, has more in it than an address, or leads to another machine is an error
    at once, which shows no password. (C-69)"""
    await check_addresses()


def test_another_machine_can_be_allowed() -> None:
    """With the flag another machine may run the commands."""
    url = "http://host.docker.internal:9000/run"
    client = HostExecClient(url, TOKEN, clock=SystemClock(), allow_remote=True)
    assert client.url == "http://host.docker.internal:9000/v1/exec"


# -- seeded bugs ------------------------------------------------------------------------------


def _always_safe(patch: pytest.MonkeyPatch) -> None:
    broken = client_module._broken

    def forgetful(url: str, exc: Exception) -> PacelineError:
        error = broken(url, exc)
        error.may_have_started = False
        return error

    patch.setattr(client_module, "_broken", forgetful)


def _never_safe(patch: pytest.MonkeyPatch) -> None:
    broken = client_module._broken

    def fearful(url: str, exc: Exception) -> PacelineError:
        error = broken(url, exc)
        error.may_have_started = True
        return error

    patch.setattr(client_module, "_broken", fearful)


def _started_is_lost(patch: pytest.MonkeyPatch) -> None:
    told = wire.problem

    def problem(exc: PacelineError) -> Any:
        found = told(exc)
        return found and (found[0], msgspec.structs.replace(found[1], started=False))

    patch.setattr("paceline.hostexec.http.service.problem", problem)


def _deadline_stays_home(patch: pytest.MonkeyPatch) -> None:
    ask = wire.ExecRequest
    patch.setattr(
        client_module, "ExecRequest", lambda **options: ask(**(options | {"deadline_s": None}))
    )


def _any_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(client_module, "_is_loopback", lambda name: name.startswith(("127.", "local")))


@pytest.mark.parametrize(
    ("seed", "check"),
    [
        (_always_safe, check_breaking),
        (_always_safe, check_silence),
        (_never_safe, check_connecting),
        (_started_is_lost, check_errors),
        (_deadline_stays_home, check_deadline),
        (_any_name, check_addresses),
    ],
)
async def test_seeded_bugs_of_the_client_are_caught(
    seed: Callable[[pytest.MonkeyPatch], None],
    check: Callable[[], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these bugs fails its check."""
    seed(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await check()
