"""Tools for processes of their own to run, and what decorators make of them."""

import dataclasses
import enum
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from paceline.tools.function import function_tool

__all__ = ["Colour", "Item", "Total", "busy", "decorated", "hang", "hungry", "pid", "total", "who"]


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Item:
    """One line of an order."""

    sku: str
    count: int = 1


class Total(msgspec.Struct):
    count: int
    colour: Colour


def total(items: list[Item], colour: Colour = Colour.RED) -> Total:
    """Needs its arguments as they are annotated."""
    return Total(sum(item.count for item in items), colour)


def pid() -> int:
    """The process it runs in."""
    return os.getpid()


def who(query: str, user: str | None = None) -> list[object]:
    """What it was called with."""
    return [query, user]


def hang(path: str) -> None:
    """Starts a process, says which they are, and does not end."""
    code = "import threading; threading.Event().wait()"
    child = subprocess.Popen([sys.executable, "-c", code])
    Path(path).write_text(f"{os.getpid()} {child.pid}")
    threading.Event().wait()


async def wait(path: str) -> None:
    """Says which process it is, and waits until it is cancelled."""
    import asyncio

    Path(path).write_text(str(os.getpid()))
    await asyncio.get_running_loop().create_future()


async def meet(path: str, name: str, others: int) -> None:
    """Waits until so many are there; holds on to its place when it is cancelled."""
    import asyncio

    place = Path(path)
    (place / name).touch()
    while len(list(place.iterdir())) <= others:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            continue


def hungry(mb: int) -> int:
    """Takes so much memory for a moment."""
    return len(bytearray(mb * 1024**2)) // 1024**2


def fill(path: str, mb: int) -> None:
    """Writes so much to a disk."""
    with Path(path).open("wb") as file:
        file.write(b"x" * mb * 1024**2)
        file.flush()
        os.fsync(file.fileno())


def busy(seconds: float) -> int:
    """Works until its thread has used so much processor time."""
    count, end = 0, _cpu_s() + seconds
    while _cpu_s() < end:
        count += 1
    return count


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime


def _decorated(x: int) -> int:
    """A function behind a tool of its name."""
    return x + 1


_decorated.__qualname__ = "decorated"
decorated = function_tool(_decorated, name="decorated", killable=True)
