"""A worker that is called with arguments by name, and tells what each call took."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any

from paceline.clock import SystemClock
from paceline.instances.worker import Worker
from paceline.resources import Resources, ResourceUsage, current_resources
from tests.tool_functions import Colour


def worker(function: str) -> Worker:
    """One of `tests.tool_functions` in a process."""
    return Worker(
        f"tests.tool_functions:{function}",
        clock=SystemClock(),
        rng=random.Random(1),
        environ=os.environ,
    )


async def used(target: Worker, **arguments: Any) -> ResourceUsage | None:
    """What a call takes, if that is told."""
    resources = Resources()
    token = current_resources.set(resources)
    await target.call("t", arguments)
    current_resources.reset(token)
    return resources.used


async def test_values_come_as_plain_data() -> None:
    """Arguments of declared types arrive as those, whether they are sent as such or as plain data;
    a value of a declared type comes back as what it is made of. (S2-35)"""
    async with worker("total") as target:
        for colour in (Colour.RED, "red", None):
            items = {"items": [{"sku": "a", "count": 2}]}
            given = items if colour is None else {**items, "colour": colour}
            assert await target.call("t", given) == {"count": 2, "colour": "red"}


async def test_figures_are_of_one_call_alone(tmp_path: Path) -> None:
    """A call that is alone in its process has figures; one that is not has none, as nothing tells
    whose they are. (S2-11)"""
    async with worker("meet") as target:
        alone = await used(target, path=str(tmp_path), name="a", others=0)
        assert alone is not None
        assert alone.cpu_ns is not None
        first = asyncio.create_task(used(target, path=str(tmp_path), name="b", others=2))
        while not (tmp_path / "b").exists():  # noqa: ASYNC110 (another process makes it)
            await asyncio.sleep(0)
        second = await used(target, path=str(tmp_path), name="c", others=2)
        assert (await first, second) == (None, None)


async def test_it_is_known_when_all_is_over(tmp_path: Path) -> None:
    """A worker tells when nothing runs any more that nobody waits for."""
    async with worker("meet") as target:
        task = asyncio.create_task(
            target.call("t", {"path": str(tmp_path), "name": "a", "others": 9})
        )
        while not (tmp_path / "a").exists():  # noqa: ASYNC110 (another process makes it)
            await asyncio.sleep(0)
        (pid,) = target.processes
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert target.in_flight == 1
        await target.settled()
        assert target.in_flight == 0
        assert pid not in target.processes
