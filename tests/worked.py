"""Functions for workers to run: they do in their process what ours had better not."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from paceline.errors import Category, PacelineError
from paceline.usage import report_usage

__all__ = ["act", "blocked", "plain"]


async def act(query: str, **context: object) -> object:
    """Does what the query says, on the event loop."""
    if query == "stubborn":
        return await _stubborn(str(context["pids"]))
    if query == "wait":
        return await _wait(Path(str(context["path"])))
    return _do(query)


def plain(query: str, **context: object) -> object:
    """Does what the query says, in a thread."""
    if query == "stuck":
        threading.Event().wait()
    return _do(query)


async def blocked(query: str) -> object:
    """Holds up its event loop, for good."""
    threading.Event().wait()
    return query


def _do(query: str) -> object:
    return _DOES.get(query, os.getpid)()


def _print() -> object:
    print("told", flush=True)  # noqa: T201 (that is what is tested)
    os.write(1, b"told\n")
    return sys.stdin.read()


def _crash() -> object:
    os._exit(3)


def _exit() -> object:
    raise SystemExit(4)


def _stop() -> object:
    raise StopIteration


def _fail() -> object:
    raise PacelineError("busy", category=Category.RATE_LIMIT, retry_after_s=2.5, next_step="W")


_DOES: Mapping[str, Callable[[], object]] = {
    "crash": _crash,
    "environment": lambda: dict(os.environ),
    "exit": _exit,
    "fail": _fail,
    "hungry": lambda: len(bytearray(600 * 1024**2)),
    "long": lambda: "x" * (65 * 1024**2),
    "print": _print,
    "stop": _stop,
    "strange": object,
    "thread": lambda: threading.current_thread() is threading.main_thread(),
    "use": lambda: report_usage("m", input=7, output=2),
}


async def _stubborn(pids: str) -> object:
    """Starts a process, and does not end when it is cancelled."""
    hang = "import threading; threading.Event().wait()"
    child = subprocess.Popen([sys.executable, "-c", hang])  # noqa: ASYNC220 (it is short)
    Path(pids).write_text(f"{os.getpid()} {child.pid}")
    while True:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            continue


async def _wait(path: Path) -> object:
    """Waits for a file."""
    while not path.exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0)
    return os.getpid()
