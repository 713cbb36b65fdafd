"""Watching the directories of agents."""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import watchfiles

from paceline.agents import watch as watch_module
from paceline.agents.registry import AgentRegistry, Changes
from paceline.agents.watch import watch
from paceline.clock import SystemClock

QUICK_S = 0.02


class Reloads:
    """Stands for a registry: tells of each reload."""

    def __init__(self, *dirs: Path) -> None:
        self.dirs: Sequence[Path] = dirs
        self.seen: asyncio.Queue[str] = asyncio.Queue()
        self.errors: list[Exception] = []

    async def reload_async(self, *, retry_broken: bool = False) -> Changes:
        self.seen.put_nowait("retry" if retry_broken else "plain")
        if self.errors:
            raise self.errors.pop()
        return Changes()

    def count(self) -> int:
        """How many there were since the last count."""
        number = self.seen.qsize()
        while not self.seen.empty():
            self.seen.get_nowait()
        return number


@asynccontextmanager
async def watching(registry: Any, stamp: Path | None = None) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(watch(registry, stop, stamp=stamp, recheck_s=QUICK_S))
    try:
        yield stop
    finally:
        stop.set()
        await task


class Events:
    """Stands for the file system's watcher: tells what a test says it should."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: asyncio.Queue[list[str] | Exception] = asyncio.Queue()
        self.watched: list[list[Path]] = []
        monkeypatch.setattr(watch_module, "awatch", self._awatch)

    async def _awatch(
        self, *paths: Path, stop_event: asyncio.Event, **_: Any
    ) -> AsyncGenerator[set[tuple[watchfiles.Change, str]], None]:
        self.watched.append(list(paths))
        stopped = asyncio.ensure_future(stop_event.wait())
        try:
            while True:
                batch = asyncio.ensure_future(self.batches.get())
                await asyncio.wait([batch, stopped], return_when=asyncio.FIRST_COMPLETED)
                if not batch.done():
                    batch.cancel()
                    return
                said = batch.result()
                try:
                    if isinstance(said, Exception):
                        raise said
                    yield {(watchfiles.Change.modified, path) for path in said}
                finally:
                    self.batches.task_done()
        finally:
            stopped.cancel()

    async def tell(self, *paths: str) -> None:
        """Returns when the watch has dealt with it."""
        self.batches.put_nowait(list(paths))
        await self.batches.join()


async def test_an_edited_module_is_loaded_again(tmp_path: Path) -> None:
    """A change of a file reaches the registry by itself. (S1-13)"""
    path = tmp_path / "one.py"
    path.write_text("def run(query):\n    return 1\n")
    registry = AgentRegistry([tmp_path], clock=SystemClock())
    await registry.reload_async()
    reloads = Reloads(tmp_path)

    async def reload_async(*, retry_broken: bool = False) -> Changes:
        changes = await registry.reload_async(retry_broken=retry_broken)
        if changes:
            await reloads.reload_async()
        return changes

    watched = type("Watched", (), {"dirs": [tmp_path], "reload_async": staticmethod(reload_async)})
    async with watching(watched()):
        path.write_text("def run(query):\n    return 22\n")
        await reloads.seen.get()
        assert registry.get("one").run("q") == 22


async def test_a_touched_stamp_reloads_and_tries_again(tmp_path: Path) -> None:
    """Creating or touching the stamp reloads, broken modules included; other files in its
    directory do nothing."""
    (tmp_path / "home").mkdir()
    stamp = tmp_path / "home" / "reload"
    reloads = Reloads(tmp_path / "agents")
    async with watching(reloads, stamp):
        assert await reloads.seen.get() == "plain"
        (tmp_path / "home" / "cache.db").write_text("x")
        stamp.touch()
        assert await reloads.seen.get() == "retry"
        os.utime(stamp, (1, 1))
        assert await reloads.seen.get() == "retry"
    assert reloads.count() == 0


async def test_a_directory_may_come_later(tmp_path: Path) -> None:
    """A directory that did not exist is watched from when it does."""
    folder = tmp_path / "agents"
    reloads = Reloads(folder)
    async with watching(reloads):
        await reloads.seen.get()
        folder.mkdir()
        await reloads.seen.get()
        await reloads.seen.get()  # the look at the beginning of the new watch
        (folder / "one.py").write_text("x")
        assert await reloads.seen.get() == "plain"


async def test_a_replaced_directory_is_watched_again(tmp_path: Path) -> None:
    """A directory that is removed and made anew goes on being watched. (E101)"""
    folder = tmp_path / "agents"
    folder.mkdir()
    reloads = Reloads(folder)
    async with watching(reloads):
        await reloads.seen.get()
        (tmp_path / "new").mkdir()
        shutil.rmtree(folder)
        (tmp_path / "new").rename(folder)
        await reloads.seen.get()
        await reloads.seen.get()
        (folder / "one.py").write_text("x")
        assert await reloads.seen.get() == "plain"


async def test_the_first_look_is_after_the_watch_began(tmp_path: Path, monkeypatch) -> None:
    """What changed between the last reload and the watch is not missed."""
    events, reloads = Events(monkeypatch), Reloads(tmp_path)
    async with watching(reloads):
        await events.tell()
        assert reloads.count() == 1
        await events.tell()
        assert reloads.count() == 0


@pytest.mark.parametrize(
    ("name", "matters"),
    [("a.py", True), ("pack", True), ("notes.txt", False), ("__pycache__", False)],
)
async def test_only_code_matters(tmp_path: Path, monkeypatch, name: str, matters: bool) -> None:
    """Python files and directories make a reload; data that an agent writes beside it does not."""
    events, reloads = Events(monkeypatch), Reloads(tmp_path)
    async with watching(reloads):
        await events.tell()
        reloads.count()
        await events.tell(str(tmp_path / name))
        assert reloads.count() == int(matters)


async def test_changes_that_come_together_make_one_reload(tmp_path: Path, monkeypatch) -> None:
    """One batch of changes is one reload."""
    events, reloads = Events(monkeypatch), Reloads(tmp_path)
    async with watching(reloads):
        await events.tell()
        reloads.count()
        await events.tell(*(str(tmp_path / f"{number}.py") for number in range(50)))
        assert reloads.count() == 1


async def test_a_failing_reload_does_not_end_the_watch(tmp_path: Path, monkeypatch, caplog) -> None:
    """An error of a reload is logged, and the next change reloads again."""
    events, reloads = Events(monkeypatch), Reloads(tmp_path)
    async with watching(reloads):
        await events.tell()
        reloads.count()
        reloads.errors.append(OSError("disk"))
        await events.tell(str(tmp_path / "a.py"))
        assert "reloading agents failed" in caplog.text
        await events.tell(str(tmp_path / "a.py"))
        assert reloads.count() == 2


@pytest.mark.parametrize("error", [OSError("too many watches"), RuntimeError("watcher")])
async def test_a_failing_watcher_is_begun_again(
    tmp_path: Path, monkeypatch, caplog, error: Exception
) -> None:
    """Trouble of the watcher itself is logged, and watching begins again with a look."""
    events, reloads = Events(monkeypatch), Reloads(tmp_path)
    async with watching(reloads):
        await events.tell()
        reloads.count()
        events.batches.put_nowait(error)
        await events.tell()
        assert reloads.count() == 1
        assert "trying again" in caplog.text
        assert len(events.watched) == 2


async def test_reloads_that_change_something_are_logged(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    """A log line says what a reload changed."""
    events = Events(monkeypatch)
    (tmp_path / "one.py").write_text("def run(query):\n    return 1\n")
    registry = AgentRegistry([tmp_path], clock=SystemClock(), pause=lambda _: None)
    with caplog.at_level(logging.INFO, "paceline"):
        async with watching(registry):
            await events.tell()
    assert "added=('one',)" in caplog.text


async def test_stop_ends_the_watch_with_or_without_directories(tmp_path: Path) -> None:
    """The watch returns soon after `stop` is set, and at once if it is set before."""
    for folder in (tmp_path, tmp_path / "none"):
        async with watching(Reloads(folder)) as stop:
            await asyncio.sleep(0)
            stop.set()
    stop = asyncio.Event()
    stop.set()
    late = Reloads(tmp_path)
    await watch(late, stop)
    assert late.count() == 0


async def replaced(events: Events, reloads: Reloads, folder: Path) -> int:
    """Reloads after a directory was silently replaced by another."""
    async with watching(reloads):
        await events.tell()
        reloads.count()
        os.rename(folder, folder.with_name("old"))  # noqa: PTH104
        os.mkdir(folder)  # noqa: PTH102
        await events.tell()
        return reloads.count()


async def test_a_silent_replacement_is_noticed(tmp_path: Path, monkeypatch) -> None:
    """Without any event of the file system, a replaced directory is noticed at the next look."""
    folder = tmp_path / "agents"
    folder.mkdir()
    assert await replaced(Events(monkeypatch), Reloads(folder), folder) == 1


async def test_a_watch_that_trusts_paths_is_caught(tmp_path: Path, monkeypatch) -> None:
    """The test above fails for a watch that takes the same path for the same directory."""
    folder = tmp_path / "agents"
    folder.mkdir()
    monkeypatch.setattr(watch_module, "_places", lambda dirs: [(path, ()) for path in dirs])
    assert await replaced(Events(monkeypatch), Reloads(folder), folder) == 0
