"""Importing one agent from bytes, whatever its module does."""

import gc
import importlib
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from paceline.agents import load as load_module
from paceline.agents.files import MAX_BYTES, Listing, Source, read, settled
from paceline.agents.load import Loader
from paceline.agents.spec import AgentSpec
from paceline.clock import SystemClock
from paceline.errors import AgentLoadError, Category

ECHO = "def run(query):\n    return query\n"


def listing(folder: Path) -> Listing:
    return settled([folder], clock=SystemClock(), pause=lambda _: None)


def source(folder: Path, text: str | bytes, name: str = "agent") -> Source:
    path = folder / f"{name}.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(listing(folder).agents[name])


def load(folder: Path, text: str | bytes, *, timeout_s: float = 20.0) -> AgentSpec:
    return Loader(timeout_s=timeout_s).load(source(folder, text))


def modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("paceline_agent_")]


def test_a_module_becomes_an_agent(tmp_path: Path) -> None:
    """A loaded module knows its file, where it came from, and a version that is its code's."""
    spec = load(tmp_path, f'"""Echo."""\nVERSION = "2"\n{ECHO}')
    assert spec.run("x") == "x"
    assert (spec.description, spec.source, spec.path) == ("Echo.", "module", tmp_path / "agent.py")
    again = load(tmp_path, f'"""Echo."""\nVERSION = "2"\n{ECHO}')
    edited = load(tmp_path, f'"""Echo!"""\nVERSION = "2"\n{ECHO}')
    assert again.version == spec.version != edited.version


BAD: dict[str, tuple[str | bytes, str]] = {
    "syntax": ("x = 1\ndef run(:\n", "agent.py:2: SyntaxError"),
    "exit": ("import sys\nsys.exit(3)\n", "agent.py:2: SystemExit: 3"),
    "interrupt": ("raise KeyboardInterrupt\n", "agent.py:1: KeyboardInterrupt"),
    "generator exit": ("raise GeneratorExit\n", "agent.py:1: GeneratorExit"),
    "own": ("class Odd(BaseException): ...\nraise Odd('o')\n", "agent.py:2: Odd: o"),
    "mute": ("class M(Exception):\n  def __str__(s): 1/0\nraise M\n", "agent.py:3: M"),
    "import": ("\nimport no_such_thing\n", "agent.py:2: ModuleNotFoundError"),
    "deep": ("-" * 200_000, "agent.py: MemoryError"),
    "parens": ("(" * 200_000, "agent.py:1: SyntaxError: too many nested parentheses"),
    "nul": ("x = 1\0\n", "null bytes"),
    "not text": (b"x = '\xff'\n", "invalid or missing encoding"),
    "coding": (b"# coding: nonsense\n", "SyntaxError: unknown encoding"),
    "empty": ("", "has nothing to run"),
    "no run": ("def ran(query): ...\n", "has nothing to run"),
    "wrong": (f"TIMEOUT = 0\n{ECHO}", "agent.py: TIMEOUT is 0"),
    "signal": ("import signal\nsignal.signal(15, print)\n", "agent.py:2: ValueError"),
    "inner": ("def f():\n  {}[1]\nf()\n", "agent.py:2: KeyError: 1"),
    "far": ("import json\njson.loads('x')\n", "agent.py:2: JSONDecodeError"),
    "relative": ("from . import x\n", "agent.py:1: ImportError"),
    "recursion": ("def f(): f()\nf()\n", "agent.py:1: RecursionError"),
    "thief": ("import sys\nsys.modules.pop(__name__)\nraise OSError\n", "agent.py:3: OSError"),
}


@pytest.mark.parametrize("case", BAD)
def test_whatever_a_module_does_is_a_load_error(tmp_path: Path, case: str) -> None:
    """Every way in which a module can fail is an AgentLoadError with file and line, which leaves
    nothing behind. (E100)"""
    before, handler = modules(), signal.getsignal(signal.SIGTERM)
    text, said = BAD[case]
    with pytest.raises(AgentLoadError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.next_step
    assert modules() == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_advice_fits_the_error(tmp_path: Path) -> None:
    """A missing library and a relative import come with what to do about them."""
    with pytest.raises(AgentLoadError) as caught:
        load(tmp_path, "import no_such_thing")
    assert caught.value.next_step == "Install what provides 'no_such_thing', or correct the import."
    with pytest.raises(AgentLoadError) as caught:
        load(tmp_path, "from .other import x")
    assert "Make the agent a package" in caught.value.next_step


def test_an_import_that_never_ends_is_ended(tmp_path: Path) -> None:
    """An endless loop at import is given up after the time limit, and its thread ends though it
    catches every Exception. (E100)"""
    text = "while True:\n  try:\n    while True: pass\n  except Exception: pass\n"
    with pytest.raises(AgentLoadError, match=r"not imported within 0\.5 s") as caught:
        load(tmp_path, text, timeout_s=0.5)
    assert caught.value.category is Category.TIMEOUT
    assert "import_timeout_s" in caught.value.next_step
    for thread in threading.enumerate():
        if thread.name == "paceline-import-agent":
            thread.join(20)
            assert not thread.is_alive()


def test_an_import_that_blocks_is_left_behind(tmp_path: Path, monkeypatch) -> None:
    """An import that waits in C code cannot be ended; it is left to a daemon, and what it comes
    to later is not used."""
    monkeypatch.setattr(load_module, "_ENDING_S", 0.0)
    go = threading.Event()
    monkeypatch.setattr(sys, "paceline_test_go", go, raising=False)
    with pytest.raises(AgentLoadError, match="was not imported"):
        load(tmp_path, f"import sys\nsys.paceline_test_go.wait()\n{ECHO}", timeout_s=0.05)
    (left,) = [t for t in threading.enumerate() if t.name == "paceline-import-agent"]
    assert left.daemon
    go.set()
    left.join(20)
    assert not left.is_alive()


def package(folder: Path, one: int, two: int) -> Source:
    files = {
        "__init__": "from .part import ONE\n"
        "def run(query):\n"
        "    from .sub import late\n"
        "    return f'{ONE} {late.TWO} {query}'\n",
        "part": f"ONE = {one}",
        "sub/__init__": "",
        "sub/late": f"from ..part import ONE\nTWO = {two}",
    }
    (folder / "pack" / "sub").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "pack" / f"{name}.py").write_text(text)
    return read(listing(folder).agents["pack"])


def test_a_package_is_an_agent_of_one_moment(tmp_path: Path) -> None:
    """A package's modules, also those it imports late, are the files as they were when it was
    loaded; two versions run side by side without mixing. (E102)"""
    first = Loader(timeout_s=20).load(package(tmp_path, 1, 1))
    second = Loader(timeout_s=20).load(package(tmp_path, 2, 2))
    importlib.invalidate_caches()
    assert second.run("x") == "2 2 x"
    assert first.run("x") == "1 1 x"
    assert first.version != second.version


def test_stale_bytecode_is_never_used(tmp_path: Path) -> None:
    """A same-size edit of a package's module with the same time stamp is seen: no `.pyc` is read
    or written. (E101)"""
    for number in (1, 2):
        made = package(tmp_path, number, 1)
        os.utime(tmp_path / "pack" / "part.py", (1, 1))
        assert Loader(timeout_s=20).load(made).run("x") == f"{number} 1 x"
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_version_is_forgotten_with_its_last_user(tmp_path: Path) -> None:
    """Modules of a version leave `sys.modules` once nobody holds its spec any more. (S1-13)"""
    before, loader = modules(), Loader(timeout_s=20)
    spec = loader.load(package(tmp_path, 1, 1))
    spec.run("x")
    assert len(modules()) == len(before) + 4
    places = [key for key in sys.path_importer_cache if key.startswith(f"{tmp_path}/pack/<")]
    assert len(places) == 1
    loader.forget_ended()
    assert spec.run("x") == "1 1 x"
    del spec
    gc.collect()
    loader.forget_ended()
    assert modules() == before
    assert places[0] not in sys.path_importer_cache


def test_annotations_in_words_work(tmp_path: Path) -> None:
    """A module may use dataclasses with postponed annotations, and declare them as results."""
    spec = load(
        tmp_path,
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Answer:\n  parts: list[Part]\n"
        "@dataclass\nclass Part:\n  text: str\n"
        "def run(query) -> Answer:\n  return Answer([Part(query)])\n",
    )
    assert spec.result_type is type(spec.run("x"))
    assert not spec.warnings


def test_what_an_import_does_to_the_process_is_reported(tmp_path: Path, monkeypatch) -> None:
    """Patching shared modules, threads, the working directory, sys.path and sys.modules: each is
    reported with the agent. (E103)"""
    import json

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(json, "dumps", json.dumps)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "colorsys", json)
    done = threading.Event()
    monkeypatch.setattr(sys, "paceline_test_done", done, raising=False)
    spec = load(
        tmp_path,
        "import json, os, sys, threading\n"
        "json.dumps = lambda *a: 'x'\n"
        "os.chdir('/')\n"
        "sys.path.append('/nowhere')\n"
        "sys.modules['colorsys'] = os\n"
        "threading.Thread(target=sys.paceline_test_done.wait, name='mine', daemon=True).start()\n"
        + ECHO,
    )
    done.set()
    assert [text.removeprefix("importing it ") for text in spec.warnings] == [
        "changed the working directory of the process",
        "started threads: mine",
        "changed sys.path",
        "replaced the module colorsys",
        "replaced json.dumps for the whole process",
    ]


def test_an_ordinary_import_is_not_reported(tmp_path: Path) -> None:
    """Importing and using the standard library is nothing to report."""
    assert not load(tmp_path, f"import asyncio, json, logging, random, wave\n{ECHO}").warnings


def test_freeing_a_version_changes_nothing_by_itself(tmp_path: Path) -> None:
    """The garbage collector, which runs at any moment, leaves `sys.modules` as it is: others may
    be iterating over it."""
    loader = Loader(timeout_s=20)
    circle: list[object] = [loader.load(source(tmp_path, ECHO))]
    circle.append(circle)
    before = modules()
    del circle
    gc.collect()
    assert modules() == before
    loader.forget_ended()
    assert len(modules()) == len(before) - 1


def test_files_that_are_no_modules_are_named(tmp_path: Path) -> None:
    """Pipes, links in a circle, huge files and directories named like modules are errors of that
    one agent, and nothing blocks. (E100)"""
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    (tmp_path / "folder.py").mkdir()
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(10**9)
    (tmp_path / "with space.py").write_text(ECHO)
    agents = listing(tmp_path).agents
    assert len(agents) == 6
    said = {}
    for name, files in agents.items():
        with pytest.raises(AgentLoadError) as caught:
            read(files)
        said[name] = str(caught.value)
    assert "not a regular file" in said["pipe"]
    assert "not a regular file" in said["folder"]
    assert "symbolic links" in said["loop"]
    assert "No such file" in said["gone"]
    assert f"a module may have {MAX_BYTES}" in said["huge"]
    assert "cannot be the name" in said["with space"]


def test_what_is_no_agent_is_left_out(tmp_path: Path) -> None:
    """Names that start with `_` or `.`, other files, and directories without `__init__.py` are
    not agents. (S1-13)"""
    for name in ("_part.py", ".#a.py", "a.txt", "a.py~", "a.pyc", "__init__.py"):
        (tmp_path / name).write_text(ECHO)
    (tmp_path / "data").mkdir()
    (tmp_path / "_pack").mkdir()
    (tmp_path / "_pack" / "__init__.py").write_text(ECHO)
    assert not listing(tmp_path).agents


@pytest.mark.parametrize("change", ["size", "time", "inode", "pipe"])
def test_a_file_that_changes_is_not_read(tmp_path: Path, change: str) -> None:
    """A file that is no longer the one that was listed is refused for now. (E101)"""
    path = tmp_path / "agent.py"
    path.write_text(ECHO)
    files = listing(tmp_path).agents["agent"]
    if change == "size":
        path.write_text(f"{ECHO}#")
    elif change == "time":
        os.utime(path, (1, 1))
    elif change == "inode":
        (tmp_path / "new").write_text(ECHO)
        (tmp_path / "new").replace(path)
    else:
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(AgentLoadError, match="changed while it was read") as caught:
        read(files)
    assert caught.value.category is Category.UNAVAILABLE


def test_digests_keep_files_apart(tmp_path: Path) -> None:
    """Text that moves from one file of a package to another changes the digest."""
    digests: set[str] = set()
    for part, late in (("ONE = 1", ""), ("", "ONE = 1"), ("ONE", " = 1")):
        package(tmp_path, 1, 1)
        (tmp_path / "pack" / "part.py").write_text(part)
        (tmp_path / "pack" / "sub" / "late.py").write_text(late)
        digests.add(read(listing(tmp_path).agents["pack"]).digest)
    assert len(digests) == 3
