"""The host command service over a host of ours, and raw HTTP to it."""

import asyncio
import itertools
import json
import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from paceline.clock import SystemClock
from paceline.errors import CommandDeniedError, CommandFailedError, InvalidInputError
from paceline.hostexec.http import service as service_module
from paceline.hostexec.http.guard import Guard, HttpLimits
from paceline.hostexec.result import CommandResult
from paceline.redaction import Secret

TOKEN = Secret("correct-horse-battery-staple")
PATIENCE_S = 5.0
"""How long a check waits for what should come soon; seeded bugs wait less."""
Run = Callable[..., Awaitable[CommandResult]]


def result(**changes: Any) -> CommandResult:
    """A successful command, but for these changes."""
    plain: dict[str, Any] = {
        "id": "run-1",
        "command": "uname -a",
        "rule": "uname",
        "exit_kind": "exited",
        "exit_code": 0,
        "ok": True,
        "stdout": "Linux ✓\n",
        "stderr": "",
        "truncated": False,
        "lossy": False,
        "duration_ms": 3.5,
        "sandbox": "bubblewrap",
    }
    return CommandResult(**(plain | changes))


def failed(kind: str = "exited", code: int | None = 3) -> CommandFailedError:
    """What the host raises for a command that ran and failed."""
    error = CommandFailedError(
        f"`x` ended as {kind}", result=result(exit_kind=kind, exit_code=code, ok=False)
    )
    error.next_step = "It said: no luck"
    return error


class FakeHost:
    """Keeps what it was asked, and answers as it is told to."""

    def __init__(self, answer: CommandResult | Exception | Run | None = None) -> None:
        self.answer = result() if answer is None else answer
        self.asked: list[dict[str, Any]] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def run(self, command: str | Sequence[str], **options: Any) -> CommandResult:
        argv = split(command) if isinstance(command, str) else command
        self.asked.append({"argv": tuple(argv), **options})
        self.started.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, CommandResult):
            return self.answer
        try:
            return await self.answer(argv, **options)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def for_ever(*_: Any, **__: Any) -> CommandResult:
    """A command that does not end."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def split(text: str) -> list[str]:
    """As the policy's: words, and nothing that only a shell understands."""
    if ";" in text:
        raise CommandDeniedError("; joins commands", reason="shell_syntax", detail=";")
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise InvalidInputError(str(exc)) from exc


def app(host: Any, *, limits: HttpLimits | None = None, **guard: Any) -> web.Application:
    """The service over this host."""
    ids = itertools.count(1)
    return service_module.app(
        host,
        sandbox="bubblewrap",
        token=TOKEN,
        clock=SystemClock(),
        new_id=lambda: f"error-{next(ids)}",
        guard=Guard(limits or HttpLimits(), **guard),
    )


@asynccontextmanager
async def serving(host: Any, **options: Any) -> AsyncIterator[str]:
    """It runs; the value is its URL."""
    async with service_module.running(app(host, **options), port=0) as url:
        yield url


class Response(NamedTuple):
    """One that closed its connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    text: bytes
    """Everything that came, also after the first response."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def responses(self) -> int:
        return len(re.findall(rb"HTTP/\d\.\d \d{3} ", self.text))


def response(text: bytes) -> Response:
    """What came over a connection, read as one response."""
    head, _, body = text.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    return Response(int(first.split()[1]) if first else 0, headers, body, text)


@asynccontextmanager
async def connected(
    url: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the service."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def patience() -> asyncio.Timeout:
    """A TimeoutError for what does not come."""
    return asyncio.timeout(PATIENCE_S)


async def raw(url: str, *pieces: bytes) -> Response:
    """Sends bytes as they are and reads to the end; a connection left open is a TimeoutError."""
    async with connected(url) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
        async with patience():
            return response(await read_all(reader))


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """To the end; what came before a reset counts."""
    text = bytearray()
    try:
        while piece := await reader.read(65_536):
            text += piece
    except ConnectionResetError:
        pass
    return bytes(text)


def request(
    url: str,
    body: bytes | str = b'{"argv": ["uname", "-a"]}',
    *,
    method: str = "POST",
    path: str = "/v1/exec",
    headers: Mapping[str, str | None] | None = None,
) -> bytes:
    """A well-formed request, but for these changes; a header that is None is left out."""
    data = body.encode() if isinstance(body, str) else body
    plain: dict[str, str | None] = {
        "Host": urlsplit(url).netloc,
        "X-Exec-Token": TOKEN.reveal(),
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        "Connection": "close",
    }
    if method != "POST":
        plain |= {"Content-Type": None, "Content-Length": None}
        data = b""
    merged = plain | dict(headers or {})
    lines = [f"{name}: {value}" for name, value in merged.items() if value is not None]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines])
    return head.encode("latin-1") + b"\r\n\r\n" + data


async def ask(
    url: str, body: bytes | str = b'{"argv": ["uname", "-a"]}', **options: Any
) -> Response:
    """The response to `request`."""
    return await raw(url, request(url, body, **options))
