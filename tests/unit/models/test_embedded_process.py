"""The process of the embedded model, with other programs in it: what ends, hangs and babbles."""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paceline.clock import SystemClock
from paceline.errors import AgentError, Category, ConfigError, RuntimeClosedError
from paceline.models.embedded.process import ModelProcess

ANSWER = """
import json, os, signal, sys
print(json.dumps({"memory": 7}), flush=True) if sys.stdin.readline() else None
for line in sys.stdin:
    order = json.loads(line)
    os.write(2, b"noise")
    {deed}
    print(json.dumps({{"text": order["prompt"], "memory": 9}}), flush=True)
"""


@asynccontextmanager
async def running(
    tmp_path: Path, deed: str = "pass", *, program: str = ""
) -> AsyncIterator[ModelProcess]:
    """A process with a program that does something for each order before it answers."""
    file = tmp_path / "program.py"
    file.write_text(program or ANSWER.replace("{{", "{").replace("}}", "}").replace("{deed}", deed))
    process = ModelProcess(tmp_path / "a.gguf", clock=SystemClock(), program=file)
    try:
        yield process
    finally:
        await process.aclose()


async def until(file: Path) -> None:
    """Until another process has made the file."""
    while not file.exists():  # noqa: ASYNC110 (nothing here is told when it does)
        await asyncio.sleep(0)


def gone(pid: int | None) -> bool:
    """Whether there is no such process."""
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_it_starts_at_the_first_use_and_ends_when_closed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs before the first use or after the end, where it is is left clean, what is written
    there is not seen here, and memory and start are measured (S2-41)."""
    async with running(tmp_path) as process:
        assert process.pid is None
        assert (await process.next_words("Häh \U0001f600?", most=1)).text == "Häh \U0001f600?"
        first = process.pid
        assert (await process.write("b", {}, most=1)).text == "b"
        assert process.pid == first
        assert process.memory_bytes == 9
        assert process.load_ns > 0
    assert gone(first)
    with pytest.raises(RuntimeClosedError):
        await process.start()
    assert capfd.readouterr() == ("", "")


async def test_calls_at_once_take_turns(tmp_path: Path) -> None:
    """Calls at the same time get their own answers from one process (S2-41)."""
    async with running(tmp_path) as process:
        found = await asyncio.gather(*(process.next_words(str(n), most=1) for n in range(5)))
        assert [one.text for one in found] == list("01234")


async def test_a_crash_is_an_error_and_the_next_use_starts_anew(tmp_path: Path) -> None:
    """A process that is killed by its own fault raises an error that says how it ended, and the next
    use has a new one (S2-41)."""
    deed = 'order["prompt"] == "x" and os.kill(os.getpid(), signal.SIGSEGV)'
    async with running(tmp_path, deed) as process:
        with pytest.raises(AgentError, match="SIGSEGV") as caught:
            await process.next_words("x", most=1)
        assert caught.value.category is Category.UNAVAILABLE
        assert process.pid is None
        assert (await process.next_words("y", most=1)).text == "y"


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)", ConfigError, "AVX2"),
        ("raise SystemExit(3)", AgentError, "exit code 3"),
        ("import os\nos.write(1, b'no JSON\\n')\ninput()", AgentError, "cannot be read"),
        ('print(\'{"error": "ImportError: x"}\', flush=True)\ninput()', ConfigError, "a.gguf"),
    ],
)
async def test_what_cannot_start_says_why(
    tmp_path: Path, program: str, error: type[Exception], message: str
) -> None:
    """A processor without AVX2, a file that cannot be loaded, and a program that ends or babbles are
    typed errors that say so, and leave no process (S2-41)."""
    async with running(tmp_path, program=program) as process:
        with pytest.raises(error, match=message):
            await process.start()
        assert process.pid is None


async def test_a_failed_order_is_an_error_of_that_order(tmp_path: Path) -> None:
    """What the program says went wrong is raised, and the process goes on (S2-41)."""
    deed = (
        'if order["prompt"] == "x": print(json.dumps({"error": "too long"}), flush=True); continue'
    )
    async with running(tmp_path, deed) as process:
        with pytest.raises(AgentError, match="too long") as caught:
            await process.next_words("x", most=1)
        assert caught.value.category is Category.INVALID
        first = process.pid
        assert (await process.next_words("y", most=1)).text == "y"
        assert process.pid == first


async def test_who_is_cancelled_ends_what_works_for_them(tmp_path: Path) -> None:
    """A cancelled call ends a process that hangs, with its place, and those who wait their turn get
    a new one; who is cancelled while they wait ends nothing (S2-41)."""
    begun = tmp_path / "begun"
    deed = f'if order["prompt"] == "x": open({str(begun)!r}, "w").close(); signal.pause()'
    before = set(Path(tempfile.gettempdir()).glob("paceline-*"))
    async with running(tmp_path, deed) as process:
        hanging = asyncio.create_task(process.next_words("x", most=1))
        await until(begun)
        first = process.pid
        impatient = asyncio.create_task(process.next_words("y", most=1))
        patient = asyncio.create_task(process.next_words("z", most=1))
        await asyncio.sleep(0)
        impatient.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await impatient
        assert impatient.cancelled()
        assert not gone(first)
        hanging.cancel()
        assert (await patient).text == "z"
        assert gone(first)
        assert hanging.cancelled()
        assert len({*Path(tempfile.gettempdir()).glob("paceline-*")} - before) >= 1
        place = process._place
        assert Path(place).stat().st_mode & 0o077 == 0
    assert not Path(place).exists()


async def test_closing_ends_what_still_works(tmp_path: Path) -> None:
    """Closed while a call hangs, that call raises, and the process is gone (S2-41)."""
    begun = tmp_path / "begun"
    deed = f'open({str(begun)!r}, "w").close(); signal.pause()'
    async with running(tmp_path, deed) as process:
        hanging = asyncio.create_task(process.next_words("x", most=1))
        await until(begun)
        first = process.pid
        await process.aclose()
        with pytest.raises(AgentError, match=signal.Signals.SIGKILL.name):
            await hanging
        assert gone(first)


async def test_closed_while_it_starts_it_leaves_nothing(tmp_path: Path) -> None:
    """Closed at any step of a start, the start raises or has been done, and no process and no place
    are left (S2-41)."""
    for steps in range(6):
        async with running(tmp_path) as process:
            starting = asyncio.create_task(process.start())
            for _ in range(steps):
                await asyncio.sleep(0)
            await process.aclose()
            with contextlib.suppress(RuntimeClosedError, AgentError):
                await starting
            assert process.pid is None
            assert not process._place
