"""What `import paceline` does to the process: nothing but define names.

Observed from inside a fresh interpreter by an audit hook (PEP 578), which sees every socket,
thread, process and file, whoever opens it.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

import pytest

import paceline
from bench.import_cost import run

OBSERVER: Final = r"""
import _thread
import collections.abc
import importlib
import json
import os
import sys
import threading

seen = []
looking = False
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = (
    "socket.", "subprocess.", "os.fork", "os.exec", "os.spawn", "os.posix_spawn", "os.system",
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.putenv", "os.unsetenv", "shutil.", "tempfile.", "sqlite3.", "signal.",
    "ctypes.dlopen", "urllib.",
)


def hook(event, details):
    if not looking:
        return
    if event == "open":
        path, mode, flags = details
        if isinstance(mode, str) and set(mode) & set("wax+") or (flags or 0) & WRITES:
            seen.append(f"writes {path}")
    elif event.startswith(EVENTS):
        seen.append(event)


class Environment(collections.abc.MutableMapping):
    def __init__(self, real):
        self.real = real

    def note(self, name):
        if looking:
            seen.append(f"reads ${name}")

    def __getitem__(self, name):
        self.note(name)
        return self.real[name]

    def __iter__(self):
        self.note("*")
        return iter(self.real)

    def __len__(self):
        self.note("*")
        return len(self.real)

    def __setitem__(self, name, value):
        self.note(name)

    def __delitem__(self, name):
        self.note(name)


def reported(start):
    def started(*arguments, **options):
        if looking:
            seen.append("starts a thread")
        return start(*arguments, **options)

    return started


for module in (_thread, threading):  # before Python 3.12 no audit event tells of a thread
    for name in dir(module):
        if name.strip("_") in {"start_new_thread", "start_joinable_thread", "start_new"}:
            setattr(module, name, reported(getattr(module, name)))

os.environ = Environment(os.environ)
sys.addaudithook(hook)
looking = True
importlib.import_module(sys.argv[1])
looking = False
json.dump({"seen": seen, "modules": sorted(sys.modules)}, sys.stdout)
"""

HEAVY: Final = frozenset(
    [
        "aiohttp",
        "rich",
        "typer",
        "psutil",
        "watchfiles",
        "sqlite3",
        "platformdirs",
        "starlette",
        "jinja2",
        "redis",
        "psycopg",
        "ray",
        "opentelemetry",
        "prometheus_client",
        "openai",
        "pydantic_ai",
        "mcp",
        "discord",
    ]
)


def _observed(module: str, folder: Path | None = None) -> tuple[list[str], set[str]]:
    """What importing a module did that can be seen from outside, and what it brought along."""
    command = [sys.executable, "-B", "-c", OBSERVER, module]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["seen"], {name.partition(".")[0] for name in told["modules"]}


def test_importing_changes_nothing_and_reads_nothing() -> None:
    """`import paceline` opens no socket, starts no thread or process, writes no file and reads
    no environment variable."""
    seen, _ = _observed("paceline")
    assert seen == []


def test_importing_brings_nothing_heavy_along() -> None:
    """`import paceline` loads no network, terminal, database or model library."""
    _, modules = _observed("paceline")
    assert "paceline" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        ("import socket; socket.socket().close()", "socket.__new__"),
        ("import socket; socket.getaddrinfo('localhost', 1)", "socket.getaddrinfo"),
        ("import threading; threading.Thread(target=int).start()", "starts a thread"),
        ("import _thread; _thread.start_new_thread(int, ())", "starts a thread"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import os; os.waitpid(os.fork() or os._exit(0), 0)", "os.fork"),
        ("open('made', 'w').close()", "writes made"),
        ("import os; os.close(os.open('made', os.O_CREAT))", "writes made"),
        ("from pathlib import Path; Path('made').mkdir()", "os.mkdir"),
        ("import sqlite3; sqlite3.connect('made').close()", "sqlite3.connect"),
        ("import os; os.environ.get('HOME')", "reads $HOME"),
        ("import os; os.getenv('HOME')", "reads $HOME"),
        ("import os; dict(os.environ)", "reads $*"),
        ("import os; os.environ['A'] = 'b'", "reads $A"),
    ],
)
def test_whatever_an_import_does_is_seen(tmp_path: Path, code: str, finding: str) -> None:
    """A module that does one of these things at import is caught doing it."""
    (tmp_path / "meddling.py").write_text(textwrap.dedent(code))
    seen, _ = _observed("meddling", tmp_path)
    assert any(one.startswith(finding) for one in seen), seen


def test_heavy_modules_are_seen(tmp_path: Path) -> None:
    """A module that brings a heavy library along is caught by the same list."""
    (tmp_path / "meddling.py").write_text("def f(): ...\nimport rich.table\n")
    _, modules = _observed("meddling", tmp_path)
    assert modules & HEAVY == {"rich"}


def test_every_public_name_is_there_when_asked_for() -> None:
    """All names of the package's table of contents can be used, and no others seem to be there."""
    assert all(getattr(paceline, name) is not None for name in paceline.__all__)
    with pytest.raises(AttributeError):
        _ = paceline.nothing_of_this_name


def test_the_cost_can_be_measured() -> None:
    """The benchmark of the import gives both medians, their difference and their ratio."""
    figures = run(rounds=1)
    bare, loaded = figures["bare_ms"], figures["paceline_ms"]
    assert isinstance(bare, float)
    assert isinstance(loaded, float)
    assert figures["cost_ms"] == pytest.approx(loaded - bare)
    assert figures["ratio"] == pytest.approx(loaded / bare)
