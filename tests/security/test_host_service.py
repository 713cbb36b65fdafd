"""The host command service: who may ask, what is told, what is ended when nobody waits."""

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from paceline.clock import SystemClock
from paceline.errors import (
    AuditError,
    CallTimeoutError,
    CommandDeniedError,
    ConfigError,
    ExecServiceError,
    InvalidInputError,
    OverloadedError,
    SandboxError,
)
from paceline.hostexec.http import service as service_module
from paceline.hostexec.http import token as token_module
from paceline.hostexec.http.client import HostExecClient
from paceline.hostexec.http.guard import HttpLimits, Refused
from paceline.redaction import Secret
from tests.security import service_host
from tests.security.service_host import (
    TOKEN,
    FakeHost,
    app,
    ask,
    connected,
    failed,
    for_ever,
    patience,
    raw,
    request,
    result,
    serving,
)
from tests.security.shell_host import ShellHost, running, until

Make = Callable[..., ShellHost]


async def test_a_command_is_answered() -> None:
    """The reply has id, rule, exit, output and duration; the host is given arguments, timeout,
    deadline and who asks. (E-12)"""
    host = FakeHost()
    body = json.dumps({"argv": ["uname", "-a"], "timeout_s": 5, "deadline_s": 60, "who": "bot"})
    before = SystemClock().monotonic_ns()
    async with serving(host) as url:
        told = await ask(url, body)
    after = SystemClock().monotonic_ns()
    assert told.status == 200
    assert told.headers["content-type"] == "application/json"
    assert told.headers["cache-control"] == "no-store"
    wanted: dict[str, Any] = {"id": "run-1", "rule": "uname", "exit": {"kind": "exited", "code": 0}}
    wanted |= {"stdout": "Linux ✓\n", "stderr": "", "truncated": False, "duration_ms": 3.5}
    assert wanted.items() <= told.json.items()
    (asked,) = host.asked
    assert asked["argv"] == ("uname", "-a")
    assert asked["timeout_s"] == 5.0
    assert before <= asked["deadline_ns"] - 60e9 <= after
    assert asked["who"] == "http:bot"


async def test_the_earlier_api_is_kept() -> None:
    """`POST /run` takes a line, splits it into words, and answers with the keys and words of the
    earlier service; a line that is none is refused. (E-12)"""
    host = FakeHost()
    exec_run = partial(ask, path="/run")
    async with serving(host) as url:
        told = await exec_run(url, '{"command": "echo \'a b\' $HOME"}')
        assert told.json == {
            "command": "echo 'a b' $HOME",
            "returncode": 0,
            "stdout": "Linux ✓\n",
            "stderr": "",
        }
        assert host.asked[0]["argv"] == ("echo", "a b", "$HOME")
        for body, detail in (("{", "Invalid JSON"), ('{"command": " "}', "Empty command")):
            told = await exec_run(url, body)
            assert (told.status, told.json["detail"]) == (400, detail)
        for line in ("id; id", "'open"):
            told = await exec_run(url, json.dumps({"command": line}))
            assert told.status in {400, 403}
        told = await exec_run(url, "{}", headers={"X-Exec-Token": None})
        assert (told.status, told.json["detail"]) == (401, "Unauthorized")
        told = await ask(url, path="/other")
        assert (told.status, told.json["detail"]) == (404, "Not found")
        assert len(host.asked) == 1
        for answer, status, key, value in (
            (failed("exited", 3), 200, "returncode", 3),
            (failed("output_limit", None), 200, "returncode", 137),
            (failed("timeout", None), 504, "detail", "Command timed out"),
            (CallTimeoutError("waited"), 504, "detail", "Command timed out"),
            (
                CommandDeniedError("no", reason="no_rule"),
                403,
                "detail",
                "Command not allowed",
            ),
        ):
            host.answer = answer
            told = await exec_run(url, '{"command": "x"}')
            assert (told.status, told.json[key]) == (status, value)


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (InvalidInputError("no"), 400, {"reason": "invalid_input", "detail": "no"}),
        (
            CommandDeniedError("refused", reason="flag_not_allowed", detail="--output=x"),
            403,
            {"reason": "flag_not_allowed", "detail": "--output=x"},
        ),
        (OverloadedError("full", retry_after_s=2.2), 429, {"retry_after_s": 2.2}),
        (SandboxError("gone"), 503, {"reason": "sandbox"}),
        (AuditError("full", may_have_started=True), 503, {"reason": "audit", "started": True}),
        (CallTimeoutError("waited"), 504, {"reason": "timeout"}),
        (failed("timeout", None), 504, {"exit": {"kind": "timeout", "code": None}}),
        (failed("signaled", 139), 200, {"exit": {"kind": "signaled", "code": 139}}),
    ],
)
async def test_every_error_has_its_status(
    error: Exception, status: int, part: dict[str, Any]
) -> None:
    """Each refusal and failure of the host has its status and its word, and an overload says when
    to come back. (S1-23, B-50, A-17)"""
    async with serving(FakeHost(error)) as url:
        told = await ask(url)
    assert told.status == status
    assert part.items() <= told.json.items()
    assert told.headers.get("retry-after") == ("3" if status == 429 else None)


# -- who may ask ------------------------------------------------------------------------------


async def check_strangers() -> None:
    host = FakeHost()
    token = TOKEN.reveal()
    async with serving(host) as url:
        for headers in (
            {"X-Exec-Token": None},
            {"X-Exec-Token": ""},
            {"X-Exec-Token": token[:-1]},
            {"X-Exec-Token": token + "x"},
            {"X-Exec-Token": token.upper()},
            {"X-Exec-Token": None, "Authorization": f"Basic {token}"},
            {"X-Exec-Token": None, "Authorization": token},
            {"X-Exec-Token": None, "Cookie": f"X-Exec-Token={token}"},
            {"Authorization": f"Bearer {token}"},
            {"X-Exec-Token": f"{token}\r\nX-Exec-Token: {token}"},
            {"X-Exec-Token": None, "Authorization": f"Bearer {token}\r\nAuthorization: Bearer x"},
        ):
            assert (await ask(url, headers=headers)).status == 401, headers
        assert not host.asked
        known = {"X-Exec-Token": None, "Authorization": f"bearer {token}"}
        assert (await ask(url, headers=known)).status == 200


async def check_odd_tokens() -> None:
    async with serving(FakeHost()) as url:
        for token, statuses in (
            ("é" * 20, {401}),
            ("\x80\xff", {401}),
            ("x" * 1_000_000, {400, 431}),
        ):
            assert (await ask(url, headers={"X-Exec-Token": token})).status in statuses


async def check_routes() -> None:
    service = app(FakeHost())
    paths = {str(route.resource and route.resource.canonical) for route in service.router.routes()}
    assert paths == {"/health", "/v1/exec", "/run"}
    others = {
        "/",
        "/docs",
        "/metrics",
        "/static/x",
        "/health/",
        "//health",
        "/health%2f",
        "/..%2fx",
    }
    async with service_module.running(service, port=0) as url:
        for path in paths | others:
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
                headers: dict[str, str | None] = {"X-Exec-Token": None}
                if method == "GET":
                    headers |= {"Upgrade": "websocket", "Connection": "upgrade, close"}
                told = await ask(url, "{}", path=path, method=method, headers=headers)
                public = path == "/health" and method in {"GET", "HEAD"}
                assert told.status == (200 if public else 401), (method, path)


async def test_nothing_without_the_token() -> None:
    """A request without the token, with another one, or with two, is 401 and runs nothing; both
    headers are understood. (C-52, S1-23)"""
    await check_strangers()


async def test_odd_tokens_are_only_wrong() -> None:
    """A token of other than ASCII, or an endless one, is refused and never an internal error.
    (C-53)"""
    await check_odd_tokens()


async def test_only_health_is_public() -> None:
    """Of all routes, and everything that is no route, with every method, only GET /health answers
    a stranger. (C-55)"""
    await check_routes()


async def test_health_tells_little() -> None:
    """/health says that the service answers and how commands are confined, no more."""
    async with serving(FakeHost()) as url:
        told = await ask(url, path="/health", method="GET", headers={"X-Exec-Token": None})
        assert told.json == {"status": "ok", "sandbox": "bubblewrap"}
        told = await ask(url, path="/health")
        assert (told.status, told.headers["allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize("token", ["", "short", "with space in the middle", "é" * 20, "x" * 1025])
async def test_no_service_without_a_usable_token(token: str) -> None:
    """The service is not made for a token that is empty, short, or no header value. (C-52)"""
    with pytest.raises(ConfigError) as caught:
        service_module.app(
            FakeHost(),
            sandbox="bubblewrap",
            token=Secret(token),
            clock=SystemClock(),
            new_id=str,
        )
    assert not token or token not in str(caught.value)


# -- where it listens -------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "example.org", "127.0.0.1.evil"])
async def test_others_reach_it_only_when_allowed(host: str) -> None:
    """Any address but loopback is refused at the start, without an explicit flag. (C-67)"""
    with pytest.raises(ConfigError, match="others could reach"):
        async with service_module.running(app(FakeHost()), host=host, port=0):
            pass


async def test_remote_access_can_be_allowed() -> None:
    """With the flag it listens everywhere, and loopback still reaches it. (C-67)"""
    async with service_module.running(
        app(FakeHost()), host="0.0.0.0", port=0, allow_remote=True
    ) as url:
        assert (await ask(url.replace("0.0.0.0", "127.0.0.1"))).status == 200


async def test_a_port_in_use_is_said() -> None:
    """A port that cannot be had is an error that names it."""
    async with serving(FakeHost()) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ExecServiceError, match=f"127.0.0.1:{port}"):
            async with service_module.running(app(FakeHost()), port=port):
                pass


# -- errors of ours ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"/etc/secret {TOKEN.reveal()}"),
        ConfigError("a path /etc/secret"),
        failed().__class__("without a result"),
    ],
)
async def test_bugs_stay_inside(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """An error nobody foresaw is a 500 with the id of the log's entry: no traceback, path or
    token. (C-65)"""
    async with serving(FakeHost(error)) as url:
        told = await ask(url)
        assert told.status == 500
        assert told.json == {
            "reason": "internal",
            "detail": "internal error error-1",
            "started": True,
            "id": "error-1",
        }
        assert (await ask(url, path="/run", body='{"command": "x"}')).json["id"] == "error-2"
    assert "internal error error-1" in caplog.text


async def test_the_log_has_one_line_for_each_event(caplog: pytest.LogCaptureFixture) -> None:
    """Neither bad HTTP nor what stands in a path, a command or a header makes a line of its own in
    the log, and no token is in it. (C-66)"""
    caplog.set_level(logging.INFO)
    async with serving(FakeHost(CommandDeniedError("no", reason="no_rule"))) as url:
        await raw(url, b"GET /\x1b[2J\nX HTTP/1.1\r\n\r\n")
        await ask(url, path="/x%0a%1b", method="GET")
        await ask(url, '{"argv": ["a\\n\\u001b[2J"]}')
        await ask(url, '{"argv": ["a"], "\\u001b\\nx": 1}')
    assert caplog.records
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert record.exc_info is None
    assert TOKEN.reveal() not in caplog.text


# -- the end of a command ---------------------------------------------------------------------


async def check_leaving() -> None:
    host = FakeHost(for_ever)
    async with serving(host) as url:
        async with connected(url) as (_, writer):
            writer.write(request(url))
            await host.started.wait()
        async with patience():
            await host.cancelled.wait()


async def test_a_client_that_leaves_ends_its_command() -> None:
    """When the client disconnects its command is cancelled. (B-43)"""
    await check_leaving()


async def test_a_real_command_ends_with_its_client(shell: Make) -> None:
    """Through client, service and sandbox, cancelling the caller leaves no process and a line in
    the audit log. (B-43)"""
    host = shell()
    async with serving(host.host) as url:
        client = HostExecClient(url, TOKEN, clock=SystemClock())
        done = await client.run(("sh", "echo out; echo err >&2"), who="bot")
        assert (done.stdout, done.stderr, done.ok) == ("out\n", "err\n", True)
        task = asyncio.ensure_future(client.run(("sh", "sleep 61.25; true")))
        assert await until(lambda: bool(running("sleep 61.25")))
        task.cancel()
        await asyncio.wait({task})
        assert await until(lambda: not running("sleep 61.25"))
        assert await until(lambda: host.lines()[-1].get("exit") == "cancelled")
    assert host.lines()[0]["who"] == "http:bot"


async def check_closing() -> None:
    release = asyncio.Event()

    async def until_released(*_: Any, **__: Any) -> Any:
        await release.wait()
        return result()

    async def begin_to_close(_: Any) -> None:
        release.set()

    for answer, status in ((until_released, 200), (for_ever, 503)):
        host = FakeHost(answer)
        service = app(host, limits=HttpLimits(drain_s=0.05))
        service.on_shutdown.insert(0, begin_to_close)
        async with service_module.running(service, port=0) as url:
            pending = asyncio.ensure_future(ask(url))
            await host.started.wait()
        assert host.cancelled.is_set() == (status == 503)
        told = await pending
        assert told.status == status
        if status == 503:
            assert (told.json["reason"], told.json["started"]) == ("closing", True)


async def test_closing_waits_and_then_cancels() -> None:
    """Closing lets a running command finish and be answered within the time for it; later it is
    cancelled, gone before closing returns, and its client is told that it had started."""
    await check_closing()


# -- seeded bugs ------------------------------------------------------------------------------


def _no_token(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(service_module._Service, "_stranger", lambda *_: None)


def _open_when_missing(patch: pytest.MonkeyPatch) -> None:
    matches = token_module.matches
    patch.setattr(token_module, "matches", lambda given, token: not given or matches(given, token))


def _first_token_counts(patch: pytest.MonkeyPatch) -> None:
    def stranger(self: Any, asked: Any) -> Any:
        bearer = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        given = asked.headers.get("X-Exec-Token", bearer)
        right = token_module.matches(given, TOKEN) or asked.path == "/health"
        return None if right else Refused(401, "", "")

    patch.setattr(service_module._Service, "_stranger", stranger)


def _compared_as_text(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        token_module, "matches", lambda given, token: hmac.compare_digest(given, token.reveal())
    )


def _stranger_by_prefix(patch: pytest.MonkeyPatch) -> None:
    stranger = service_module._Service._stranger

    def lenient(self: Any, asked: Any) -> Any:
        return None if asked.path.startswith("/health") else stranger(self, asked)

    patch.setattr(service_module._Service, "_stranger", lenient)


def _nobody_notices_a_leaving_client(patch: pytest.MonkeyPatch) -> None:
    runner = web.AppRunner
    patch.setattr(
        web,
        "AppRunner",
        lambda made, **options: runner(made, **(options | {"handler_cancellation": False})),
    )
    # so that the test itself comes to its end
    patch.setattr("tests.security.service_host.HttpLimits", partial(HttpLimits, drain_s=0.0))


def _closing_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    async def close(self: Any, _: Any) -> None:
        for command in self._commands:
            command.cancel()

    patch.setattr(service_module._Service, "close", close)


@pytest.mark.parametrize(
    ("seed", "check"),
    [
        (_no_token, check_strangers),
        (_no_token, check_routes),
        (_open_when_missing, check_strangers),
        (_first_token_counts, check_strangers),
        (_compared_as_text, check_odd_tokens),
        (_stranger_by_prefix, check_routes),
        (_nobody_notices_a_leaving_client, check_leaving),
        (_closing_does_not_wait, check_closing),
    ],
)
async def test_seeded_bugs_are_caught(
    seed: Callable[[pytest.MonkeyPatch], None],
    check: Callable[[], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these bugs in authentication and cancellation fails its check."""
    seed(monkeypatch)
    monkeypatch.setattr(service_host, "PATIENCE_S", 0.4)
    with pytest.raises((AssertionError, TimeoutError)):
        await check()
