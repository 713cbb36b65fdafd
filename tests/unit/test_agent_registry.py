"""The registry: agents in memory, renewed as a whole, never worse than before."""

import asyncio
import builtins
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from paceline.agents import files as files_module
from paceline.agents.module import function_spec
from paceline.agents.registry import AgentRegistry, Changes
from paceline.clock import SystemClock
from paceline.errors import AgentLoadError, UnknownAgentError


def text(value: int) -> str:
    return f"def run(query):\n    return {value}\n"


def no_pause(_: float) -> None:
    """Files in these tests are written at once."""


def registry_of(*dirs: Path, **options: Any) -> AgentRegistry:
    return AgentRegistry(dirs, **{"clock": SystemClock(), "pause": no_pause, **options})


def loaded(*dirs: Path, **options: Any) -> AgentRegistry:
    registry = registry_of(*dirs, **options)
    registry.reload()
    return registry


# -- look-up ------------------------------------------------------------------------------------


def test_agents_are_found_by_name(tmp_path: Path) -> None:
    """After a reload every module is an agent by its file's name, packages too. (S1-11, E-02)"""
    (tmp_path / "one.py").write_text(text(1))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "__init__.py").write_text(text(2))
    registry = registry_of(tmp_path)
    assert registry.list_agents() == []
    assert registry.reload() == Changes(added=("one", "two"))
    assert registry.get("one").run("q") == 1
    assert registry.get("two").run("q") == 2
    assert [spec.name for spec in registry.list_agents()] == ["one", "two"]
    assert list(registry.snapshot()) == ["one", "two"]


def test_unknown_agents_name_the_nearest(tmp_path: Path) -> None:
    """An unknown name says which names are like it. (E-03)"""
    (tmp_path / "weather.py").write_text(text(1))
    registry = loaded(tmp_path)
    with pytest.raises(UnknownAgentError, match="no agent 'wether'") as caught:
        registry.get("wether")
    assert caught.value.next_step == "Did you mean weather?"
    with pytest.raises(UnknownAgentError) as caught:
        registry.get("zzz")
    assert "paceline agents" in caught.value.next_step


def test_a_look_up_touches_no_file(tmp_path: Path, monkeypatch) -> None:
    """Looking up and listing make no call of the file system. (S1-14)"""
    (tmp_path / "one.py").write_text(text(1))
    registry = loaded(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the file system was touched")

    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "scandir", "listdir", "open", "fstat"):
            patch.setattr(os, name, refuse)
        patch.setattr(builtins, "open", refuse)
        assert registry.get("one").run("q") == 1
        assert len(registry.list_agents()) == 1
        with pytest.raises(UnknownAgentError):
            registry.get("none")


def test_a_missing_directory_holds_no_agents(tmp_path: Path) -> None:
    """A directory that does not exist is no error, and counts as soon as it does."""
    registry = registry_of(tmp_path / "later")
    assert not registry.reload()
    assert not registry.warnings
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "one.py").write_text(text(1))
    assert registry.reload().added == ("one",)


# -- reload -------------------------------------------------------------------------------------


def test_a_broken_module_keeps_its_last_good_version(tmp_path: Path) -> None:
    """A module that breaks goes on as it was, shows its error, and recovers. (S1-13)"""
    path = tmp_path / "one.py"
    path.write_text(text(1))
    registry = loaded(tmp_path)
    good = registry.get("one")
    path.write_text("def run(:")
    assert registry.reload() == Changes(broken=("one",))
    assert registry.get("one") is good
    assert "one.py:1: SyntaxError" in str(registry.broken["one"])
    path.write_text(text(22))
    assert registry.reload() == Changes(changed=("one",))
    assert not registry.broken
    assert registry.get("one").run("q") == 22


def test_a_module_that_never_worked_gives_its_error(tmp_path: Path) -> None:
    """Asking for a module that never was good raises what is wrong with it. (S1-13)"""
    (tmp_path / "one.py").write_text("1 / 0")
    (tmp_path / "two.py").write_text(text(2))
    registry = loaded(tmp_path)
    with pytest.raises(AgentLoadError, match=r"one\.py:1: ZeroDivisionError"):
        registry.get("one")
    assert registry.get("two").run("q") == 2


def test_unchanged_code_is_not_imported_again(tmp_path: Path) -> None:
    """A touched or rewritten file with the same content keeps its module and state. (S1-13,
    E101)"""
    path = tmp_path / "one.py"
    path.write_text(text(1))
    registry = loaded(tmp_path)
    spec = registry.get("one")
    os.utime(path, (1, 1))
    assert not registry.reload()
    path.unlink()
    path.write_text(text(1))
    assert not registry.reload()
    path.write_text("broken(")
    registry.reload()
    path.write_text(text(1))
    assert not registry.reload()
    assert not registry.broken
    assert registry.get("one") is spec


def test_a_broken_module_is_tried_again_on_request(tmp_path: Path, monkeypatch) -> None:
    """Unchanged broken code is imported again only when that is asked for. (S1-13)"""
    (tmp_path / "one.py").write_text(f"import sys\nsys.paceline_test_ready\n{text(1)}")
    registry = loaded(tmp_path)
    assert registry.broken
    monkeypatch.setattr("sys.paceline_test_ready", True, raising=False)
    assert not registry.reload()
    assert [spec.name for spec in registry.list_agents(force_reload=True)] == ["one"]
    assert not registry.broken


def test_a_removed_file_removes_the_agent(tmp_path: Path) -> None:
    """An agent goes with its file, and comes back as new."""
    path = tmp_path / "one.py"
    path.write_text(text(1))
    registry = loaded(tmp_path)
    path.unlink()
    assert registry.reload() == Changes(removed=("one",))
    with pytest.raises(UnknownAgentError):
        registry.get("one")
    path.write_text(text(1))
    assert registry.reload() == Changes(added=("one",))


def test_a_directory_that_cannot_be_read_takes_nothing_away(tmp_path: Path, monkeypatch) -> None:
    """While a directory cannot be listed, its agents stay and a warning says so."""
    (tmp_path / "one.py").write_text(text(1))
    registry = loaded(tmp_path)
    with monkeypatch.context() as patch:

        def refuse(_: object) -> None:
            raise PermissionError(13, "Permission denied")

        patch.setattr(os, "scandir", refuse)
        assert not registry.reload()
    assert registry.get("one").run("q") == 1
    assert "cannot be listed: Permission denied" in registry.warnings[0]


def test_the_working_directory_may_change(tmp_path: Path, monkeypatch) -> None:
    """Directories given relative to the start mean the same ones ever after. (E103)"""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "one.py").write_text(text(1))
    registry = loaded(Path("agents"))
    monkeypatch.chdir("/")
    assert not registry.reload()
    assert registry.get("one").run("q") == 1


def test_of_two_directories_the_earlier_counts(tmp_path: Path) -> None:
    """The module of the earlier directory is used, and a warning names the other; when it goes,
    the other takes its place."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.py").write_text(text(1))
    registry = loaded(tmp_path / "a", tmp_path / "b")
    assert registry.get("one").path == tmp_path / "a" / "one.py"
    assert f"{tmp_path / 'b' / 'one.py'} is not used" in registry.warnings[0]
    (tmp_path / "a" / "one.py").unlink()
    assert registry.reload() == Changes(changed=("one",))
    assert registry.get("one").path == tmp_path / "b" / "one.py"
    assert not registry.warnings


# -- added agents -------------------------------------------------------------------------------


def test_no_module_takes_the_place_of_an_added_agent(tmp_path: Path) -> None:
    """A module with the name of a built-in agent is not even imported, and is shown as broken."""
    (tmp_path / "host.py").write_text("raise AssertionError")
    registry = registry_of(tmp_path)
    registry.add_object("host", SimpleNamespace(run=lambda query: "built in"))
    registry.reload()
    assert registry.get("host").run("q") == "built in"
    assert "host.py is not used" in str(registry.broken["host"])
    assert registry.broken["host"].next_step.startswith("Rename ")
    assert any("is not used" in warning for warning in registry.warnings)


def test_added_agents_stay_and_can_be_replaced(tmp_path: Path) -> None:
    """An added agent is there at once, survives reloads, and gives way to one added later."""
    registry = loaded(tmp_path)

    def hello(query):
        return f"hello {query}"

    registry.add(function_spec(hello))
    registry.reload()
    assert registry.get("hello").run("x") == "hello x"
    registry.add_object("hello", SimpleNamespace(run=lambda query: "bye"))
    assert registry.get("hello").run("x") == "bye"
    with pytest.raises(AgentLoadError, match="agent bad: TIMEOUT is 0"):
        registry.add_object("bad", SimpleNamespace(run=hello, TIMEOUT=0))


# -- files that are being written ---------------------------------------------------------------

HALF = text(1)
WHOLE = HALF + text(2)


def torn(folder: Path) -> AgentRegistry:
    """A registry that looks while a writer is half through; it writes on during the pause."""
    path = folder / "one.py"
    path.write_text(HALF)
    rest = [WHOLE]
    registry = registry_of(folder, pause=lambda _: rest and path.write_text(rest.pop()))
    registry.reload()
    return registry


def test_half_a_module_is_never_served(tmp_path: Path) -> None:
    """The first half of a file, valid as it may be, is not taken for the file. (E101)"""
    assert torn(tmp_path).get("one").run("q") == 2


def test_a_registry_that_does_not_wait_serves_half_a_module(tmp_path: Path, monkeypatch) -> None:
    """Without the quiet time the test above fails."""
    monkeypatch.setattr(files_module, "_is_young", lambda *_: False)
    assert torn(tmp_path).get("one").run("q") == 1


def test_a_file_that_is_always_being_written_waits(tmp_path: Path) -> None:
    """A file that does not come to rest keeps its last good version, and is read after that;
    the others do not wait for it. (E101)"""
    path = tmp_path / "log.py"
    path.write_text(text(1))
    writing: list[Callable[[], object]] = []
    registry = loaded(tmp_path, pause=lambda _: [write() for write in writing])
    writing.append(lambda: path.write_text(path.read_text() + "#"))
    path.write_text(text(22))
    (tmp_path / "two.py").write_text(text(2))
    assert registry.reload() == Changes(added=("two",), broken=("log",))
    assert registry.get("log").run("q") == 1
    assert "still being written" in str(registry.broken["log"])
    writing.clear()
    assert registry.reload() == Changes(changed=("log",))
    assert registry.get("log").run("q") == 22


def test_what_was_broken_before_and_after_writing_says_so(tmp_path: Path) -> None:
    """A broken file that was caught while it was rewritten shows its own error again."""
    path = tmp_path / "log.py"
    path.write_text("1 / 0")
    writing: list[Callable[[], object]] = []
    registry = loaded(tmp_path, pause=lambda _: [write() for write in writing])
    writing.append(lambda: path.write_text(path.read_text() + "#"))
    registry.reload()
    assert "still being written" in str(registry.broken["log"])
    writing.clear()
    path.write_text("1 / 0")
    registry.reload()
    assert "ZeroDivisionError" in str(registry.broken["log"])


def test_edits_as_editors_make_them_are_seen_once(tmp_path: Path) -> None:
    """A same-size edit, a rename over the file, and delete and create are each one new version.
    (E101)"""
    path = tmp_path / "one.py"
    path.write_text(text(1))
    registry = loaded(tmp_path)

    def rename() -> None:
        (tmp_path / "one.py.new").write_text(text(3))
        (tmp_path / "one.py.new").replace(path)

    def recreate() -> None:
        path.unlink()
        path.write_text(text(4))

    edits: list[tuple[int, Callable[[], object]]] = [
        (2, lambda: path.write_text(text(2))),
        (3, rename),
        (4, recreate),
    ]
    for value, edit in edits:
        edit()
        os.utime(path, ns=(value, value))
        assert registry.reload().changed == ("one",)
        assert not registry.reload()
        assert registry.get("one").run("q") == value


# -- several at once ----------------------------------------------------------------------------


def test_old_versions_go_away(tmp_path: Path) -> None:
    """A replaced version that nobody uses is freed, broken modules or not. (S1-13)"""
    import weakref

    (tmp_path / "bad.py").write_text("1 / 0")
    path = tmp_path / "one.py"
    path.write_text(text(1))
    registry = loaded(tmp_path)
    old = weakref.ref(registry.get("one"))
    path.write_text(text(22))
    registry.reload()
    gc.collect()
    assert old() is None


async def test_reloads_come_one_after_the_other(tmp_path: Path) -> None:
    """Reloads asked for at the same time import each change once, and the loop goes on. (S1-13)"""
    for number in range(5):
        (tmp_path / f"a{number}.py").write_text(text(number))
    registry = registry_of(tmp_path)
    changes = await asyncio.gather(*(registry.reload_async() for _ in range(4)))
    assert sorted(len(change.added) for change in changes) == [0, 0, 0, 5]


def test_a_look_up_during_a_reload_sees_all_of_the_old(tmp_path: Path, monkeypatch) -> None:
    """While modules are imported, the snapshot is the one from before, complete. (S1-13)"""
    names = [f"a{number}" for number in range(4)]
    for name in names:
        (tmp_path / f"{name}.py").write_text(text(1))
    registry = loaded(tmp_path)
    seen: list[list[object]] = []

    def look() -> None:
        seen.append([registry.get(name).run("q") for name in names])

    monkeypatch.setattr("sys.paceline_test_look", look, raising=False)
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"import sys\nsys.paceline_test_look()\n{text(2)}")
    assert registry.reload().changed == tuple(names)
    look()
    assert seen == [[1] * 4] * 4 + [[2] * 4]


def test_adding_while_reloading_loses_nothing(tmp_path: Path) -> None:
    """Agents added from other threads during reloads are all there in the end."""
    registry = registry_of(tmp_path)

    def add(name: str) -> None:
        registry.add(function_spec(lambda query: name, name=name))

    threads = [threading.Thread(target=add, args=(f"b{number}",)) for number in range(20)]
    for number, thread in enumerate(threads):
        thread.start()
        (tmp_path / f"m{number}.py").write_text(text(number))
        registry.reload()
    for thread in threads:
        thread.join()
    assert len(registry.snapshot()) == 40


# -- against a model ----------------------------------------------------------------------------

NAMES = ("a", "b", "c")


class Files(RuleBasedStateMachine):
    """Files appear, change, break and disappear; after a reload the registry is what a dict of
    the last good values says."""

    make: Callable[..., AgentRegistry] = AgentRegistry

    def __init__(self) -> None:
        import tempfile

        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.registry = type(self).make(
            [Path(self.folder.name)], clock=SystemClock(), pause=no_pause
        )
        self.disk: dict[str, int | None] = {}  # None: broken
        self.good: dict[str, int] = {}
        self.dirty = False
        self.moment = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    def write(self, name: str, content: str) -> None:
        path = Path(self.folder.name) / f"{name}.py"
        path.write_text(content)
        self.moment += 1
        os.utime(path, ns=(self.moment, self.moment))
        self.dirty = True

    @rule(name=st.sampled_from(NAMES), value=st.integers(1, 3))
    def set(self, name: str, value: int) -> None:
        self.write(name, text(value))
        self.disk[name] = value

    @rule(name=st.sampled_from(NAMES), how=st.sampled_from(["def run(", "1/0", "exit()", ""]))
    def spoil(self, name: str, how: str) -> None:
        self.write(name, how)
        self.disk[name] = None

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        (Path(self.folder.name) / f"{name}.py").unlink(missing_ok=True)
        self.disk.pop(name, None)
        self.dirty = True

    @rule(again=st.booleans())
    def reload(self, again: bool) -> None:
        before = dict(self.good)
        self.good = {
            name: self.good[name] if value is None else value
            for name, value in self.disk.items()
            if value is not None or name in self.good
        }
        changes = self.registry.reload(retry_broken=again)
        self.dirty = False
        assert set(changes.added) == self.good.keys() - before.keys()
        assert set(changes.removed) == before.keys() - self.good.keys()
        assert set(changes.changed) == {
            name for name in self.good if before.get(name, self.good[name]) != self.good[name]
        }

    @invariant()
    def agrees(self) -> None:
        found = {name: spec.run("q") for name, spec in self.registry.snapshot().items()}
        assert found == self.good
        if not self.dirty:
            assert set(self.registry.broken) == {n for n, v in self.disk.items() if v is None}
        for name in set(NAMES) - self.good.keys():
            with pytest.raises((AgentLoadError, UnknownAgentError)):
                self.registry.get(name)


FEW = settings(max_examples=25, stateful_step_count=15, deadline=None, derandomize=True)
UNSHRUNK = settings(FEW, phases=[Phase.generate], max_examples=100)


def test_the_registry_agrees_with_its_model() -> None:
    """Whatever happens to the files, after a reload every agent is its last good version, and
    exactly the broken ones are shown as broken. (S1-13, E100)"""
    run_state_machine_as_test(Files, settings=FEW)


class Forgets(AgentRegistry):  # type: ignore[misc]
    """A broken module disappears."""

    def _renewed(self, known, files, *, retry_broken):
        renewed = super()._renewed(known, files, retry_broken=retry_broken)
        return renewed if renewed.error is None else replace(renewed, spec=None)


class Clings(AgentRegistry):  # type: ignore[misc]
    """A repaired module goes on showing its error."""

    def _renewed(self, known, files, *, retry_broken):
        renewed = super()._renewed(known, files, retry_broken=retry_broken)
        return replace(renewed, error=renewed.error or known.error)


class Sizes(AgentRegistry):  # type: ignore[misc]
    """A change is a change of size."""

    def _renewed(self, known, files, *, retry_broken):
        sizes = [[stamp.size for stamp in f.stamps] for f in (known.files, files)]
        if known.sure and sizes[0] == sizes[1]:
            return known
        return super()._renewed(known, files, retry_broken=retry_broken)


class Keeps(AgentRegistry):  # type: ignore[misc]
    """Removed modules stay."""

    def reload(self, *, retry_broken=False):
        old = self._modules
        changes = super().reload(retry_broken=retry_broken)
        self._modules = {**old, **self._modules}
        self._publish()
        return changes


@pytest.mark.parametrize("mutant", [Forgets, Clings, Sizes, Keeps])
def test_registries_with_a_seeded_bug_are_caught(mutant: type[AgentRegistry]) -> None:
    """The model finds each of these bugs."""

    class Wrong(Files):
        make = mutant

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Wrong, settings=UNSHRUNK)
