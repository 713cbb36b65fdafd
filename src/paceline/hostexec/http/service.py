"""Host commands over HTTP, for those who hold the token.

Every request passes the guard, then the token, and only then is read; the policy decides last,
in the host. `GET /health` alone is public. Nothing here interprets a command.
"""

import asyncio
import contextlib
import ipaddress
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, final

import msgspec
from aiohttp import web

from paceline.clock import Clock
from paceline.errors import (
    Category,
    CommandFailedError,
    ConfigError,
    ExecServiceError,
    InvalidInputError,
    PacelineError,
)
from paceline.hostexec.agent import CommandHost
from paceline.hostexec.http import token as tokens
from paceline.hostexec.http.connections import Door
from paceline.hostexec.http.guard import Guard, HttpLimits, Refused
from paceline.hostexec.http.wire import ExecRequest, LineRequest, Problem, parse, problem, reply
from paceline.hostexec.result import CommandResult
from paceline.redaction import Secret

__all__ = ["app", "running"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger("paceline.hostexec")
_LIMITS: Final = web.AppKey("limits", HttpLimits)
_NS: Final = 1_000_000_000
_KILLED: Final = 137
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "paceline",
}
# What clients of the earlier service look for in `detail`.
_EARLIER_WORDS: Final = {403: "Command not allowed", 504: "Command timed out"}


def app(
    host: CommandHost,
    *,
    sandbox: str,
    token: Secret,
    clock: Clock,
    new_id: Callable[[], str],
    guard: Guard | None = None,
) -> web.Application:
    """The service, for `running` or any aiohttp runner.

    `sandbox` is the isolation level that `/health` tells. `new_id` names internal errors
    in the log and to the client. Raises ConfigError for a token that is empty or unusable.
    """
    guard = guard or Guard(HttpLimits())
    service = _Service(
        host,
        sandbox=sandbox,
        token=tokens.checked(token),
        clock=clock,
        new_id=new_id,
        guard=guard,
    )
    made = web.Application(middlewares=[service.front])
    made[_LIMITS] = guard.limits
    made.router.add_get("/health", service.health)
    made.router.add_post("/v1/exec", service.execute)
    made.router.add_post("/run", service.execute_line)
    made.on_shutdown.append(service.close)
    return made


@contextlib.asynccontextmanager
async def running(
    service: web.Application,
    *,
    host: str = "127.0.0.1",
    port: int = 9000,
    allow_remote: bool = False,
) -> AsyncGenerator[str, None]:
    """Serves an `app` while the block runs; the value is its URL. Port 0 takes a free one.

    At the end running commands get `HttpLimits.drain_s`; those left are cancelled, and gone
    when this returns. Raises ConfigError for an address that others can reach, unless
    `allow_remote`, and ExecServiceError where the port cannot be had.
    """
    address = _address(host, allow_remote=allow_remote)
    limits = service[_LIMITS]
    runner = web.AppRunner(
        service,
        handler_cancellation=True,  # a client that leaves cancels its command
        shutdown_timeout=1.0,
        keepalive_timeout=limits.header_s,  # counts until the head of a request is complete
        lingering_time=limits.linger_s,
        max_line_size=limits.header_line_bytes,
        max_field_size=limits.header_line_bytes,
        max_headers=limits.headers,
        auto_decompress=False,
        access_log=None,  # the audit log has what matters
        logger=_OneLine(_log, None),
    )
    await runner.setup()
    try:
        listener = await _listen(runner, address, port, limits)
        try:
            bound = listener.sockets[0].getsockname()[1]
            yield f"http://[{address}]:{bound}" if ":" in address else f"http://{address}:{bound}"
        finally:
            listener.close()
    finally:
        await runner.cleanup()


@final
class _Service:
    """The handlers, and the commands that run for them."""

    def __init__(
        self,
        host: CommandHost,
        *,
        sandbox: str,
        token: Secret,
        clock: Clock,
        new_id: Callable[[], str],
        guard: Guard,
    ) -> None:
        self._host = host
        self._sandbox = sandbox
        self._token = token
        self._clock = clock
        self._new_id = new_id
        self._guard = guard
        self._closing = False
        self._commands: set[asyncio.Task[CommandResult]] = set()

    @web.middleware
    async def front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Guard and token before everything else; errors told after it."""
        if refused := self._guard.refusal(request) or self._stranger(request):
            return _refuse(refused)
        try:
            return await handler(request)
        except web.HTTPException as exc:  # no such route, or not with this method
            response = _json(exc.status, Problem(reason="no_route", detail=exc.reason.capitalize()))
            response.headers.extend({k: v for k, v in exc.headers.items() if k == "Allow"})
            return response
        except PacelineError as exc:
            if (told := problem(exc)) is None:
                return self._internal(exc)
            status, said = told
            if request.path == "/run" and status in _EARLIER_WORDS:
                message = said.message or said.detail
                said = msgspec.structs.replace(said, detail=_EARLIER_WORDS[status], message=message)
            return _json(status, said)
        except Exception as exc:  # noqa: BLE001 (a bug of ours stays here, and in the log)
            return self._internal(exc)

    async def health(self, _: web.Request) -> web.Response:
        """`GET /health`: that it answers, and how commands are confined."""
        return _json(
            200, {"status": "closing" if self._closing else "ok", "sandbox": self._sandbox}
        )

    async def execute(self, request: web.Request) -> web.Response:
        """`POST /v1/exec`: a command given as its arguments."""
        body = await self._guard.body(request)
        if isinstance(body, Refused):
            return _refuse(body)
        asked = parse(body, ExecRequest)
        left_s = asked.deadline_s
        try:
            result = await self._run(
                asked.argv,
                timeout_s=asked.timeout_s,
                deadline_ns=None if left_s is None else self._after_ns(left_s),
                who=f"http:{asked.who}",
            )
        except CommandFailedError as exc:
            if not isinstance(exc.result, CommandResult):
                return self._internal(exc)
            status = 504 if exc.result.exit_kind == "timeout" else 200
            return _json(status, reply(exc.result, exc))
        return _json(200, reply(result))

    async def execute_line(self, request: web.Request) -> web.Response:
        """`POST /run`: a command as one line, which is split into words and nothing more."""
        body = await self._guard.body(request)
        if isinstance(body, Refused):
            return _refuse(body)
        line = parse(body, LineRequest).command
        if not line.strip():
            raise InvalidInputError("Empty command")
        try:
            result = await self._run(line, who="http:")
        except CommandFailedError as exc:
            if not isinstance(exc.result, CommandResult):
                return self._internal(exc)
            result = exc.result
            if result.exit_kind == "timeout":
                said = Problem(
                    reason="timeout",
                    detail=_EARLIER_WORDS[504],
                    message=exc.message,
                    category=Category.TIMEOUT,
                    started=True,
                )
                return _json(504, said)
        code = _KILLED if result.exit_code is None else result.exit_code
        told = {"command": line, "returncode": code}
        return _json(200, told | {"stdout": result.stdout, "stderr": result.stderr})

    async def close(self, _: web.Application) -> None:
        """Lets running commands finish for a while, and ends the others."""
        self._closing = True
        if self._commands:
            await asyncio.wait(self._commands, timeout=self._guard.limits.drain_s)
        for command in self._commands:
            command.cancel()
        if self._commands:
            await asyncio.wait(self._commands)

    async def _run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        deadline_ns: int | None = None,
        who: str,
    ) -> CommandResult:
        """The host's run, in a task that `close` knows of."""
        if self._closing:
            raise ExecServiceError("the host command service is closing")
        running = asyncio.ensure_future(
            self._host.run(command, timeout_s=timeout_s, deadline_ns=deadline_ns, who=who)
        )
        self._commands.add(running)
        running.add_done_callback(self._commands.discard)
        try:
            return await running
        except asyncio.CancelledError as exc:
            if self._ended_by_close():
                raise ExecServiceError(
                    "the host command service closed while the command ran",
                    may_have_started=True,
                ) from exc
            raise

    def _ended_by_close(self) -> bool:
        here = asyncio.current_task()
        return self._closing and here is not None and not here.cancelling()

    def _after_ns(self, seconds: float) -> int:
        return self._clock.monotonic_ns() + round(seconds * _NS)

    def _stranger(self, request: web.Request) -> Refused | None:
        if request.path == "/health" and request.method in {"GET", "HEAD"}:
            return None
        given = list(request.headers.getall("X-Exec-Token", ()))
        for header in request.headers.getall("Authorization", ()):
            scheme, _, value = header.partition(" ")
            given.append(value.strip() if scheme.lower() == "bearer" else "")
        # Two credentials leave open whose request it is.
        if len(given) == 1 and tokens.matches(given[0], self._token):
            return None
        return Refused(401, "unauthorized", "Unauthorized")

    def _internal(self, exc: Exception) -> web.Response:
        name = self._new_id()
        _log.error("host command service: internal error %s", name, exc_info=exc)
        said = Problem(reason="internal", detail=f"internal error {name}", started=True, id=name)
        return _json(500, said)


@final
class _OneLine(logging.LoggerAdapter[logging.Logger]):
    """Tells of bad HTTP in a line of ours: what a stranger sent is worth no traceback."""

    def exception(self, msg: object, *args: object, **_: Any) -> None:
        self.warning(msg, *args)


def _json(status: int, body: object) -> web.Response:
    response = web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers=_HEADERS,
    )
    if isinstance(body, Problem) and body.retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(body.retry_after_s)))
    return response


def _refuse(refused: Refused) -> web.Response:
    """What is not to be trusted is not listened to any further either."""
    response = _json(refused.status, Problem(reason=refused.reason, detail=refused.detail))
    response.force_close()
    return response


def _address(host: str, *, allow_remote: bool) -> str:
    """The address to listen at."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False  # also the empty name, which means every address
    if loopback or allow_remote:
        return address
    raise ConfigError(
        f"others could reach a host command service at {host or 'every address'}",
        next_step="Use 127.0.0.1, or allow remote access explicitly.",
    )


async def _listen(
    runner: web.AppRunner, address: str, port: int, limits: HttpLimits
) -> asyncio.Server:
    protocol = runner.server
    if protocol is None:
        raise ExecServiceError("the service is not set up")
    door = Door(protocol, most=limits.connections, write_s=limits.write_s)
    try:
        return await asyncio.get_running_loop().create_server(door, address, port)
    except OSError as exc:
        raise ExecServiceError(
            f"the host command service cannot listen at {address}:{port}: {exc.strerror}",
            next_step="Stop what uses that port, or choose another one.",
        ) from exc
