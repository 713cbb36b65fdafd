"""A subscriber's queue: bounded, in order, without waiting for those who do not read."""

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import given

from paceline.engine.watch import Watch
from paceline.errors import UsageError
from paceline.testing.virtual_time import run


@given(
    most=st.integers(1, 5),
    # A number puts so many items, None reads one that is there.
    course=st.lists(st.one_of(st.none(), st.integers(1, 7)), max_size=20),
)
def test_what_is_too_much_gives_way_and_is_counted(most: int, course: list[int | None]) -> None:
    """A reader gets the latest items in order, never more than the bound at once, and what it
    missed is counted. (S2-24)"""

    async def main() -> None:
        watch: Watch[int] = Watch(most)
        put = read = 0
        got: list[int] = []
        for count in course:
            for _ in range(count or 0):
                watch.put(put)
                put += 1
            if count is None and len(watch):
                got.append(await anext(watch))
                read += 1
            assert len(watch) <= most
        watch.close()
        got += [item async for item in watch]
        assert got == sorted(set(got))
        assert got[-most:] == list(range(put))[-most:]
        assert len(got) + watch.dropped == put

    run(main())


def test_a_reader_is_woken_by_the_next_item() -> None:
    """Who waits gets an item in the same turn of the event loop in which it is put. (S2-24)"""

    async def main() -> None:
        watch: Watch[str] = Watch()
        reader = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)
        watch.put("one")
        watch.put("two")
        await asyncio.sleep(0)
        assert reader.done()
        assert (reader.result(), await anext(watch), watch.dropped) == ("one", "two", 0)

    run(main())


def test_nobody_is_woken_while_nothing_happens() -> None:
    """A watch with a reader that waits has no timer and no callback on the event loop. (S2-24)"""

    async def main() -> None:
        watch: Watch[str] = Watch()

        async def read() -> list[str]:
            return [item async for item in watch]

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(3600)
        assert loop.time() == before + 3600
        assert vars(loop)["_scheduled"] == []
        watch.close()
        assert await reader == []

    run(main())


def test_after_closing_what_is_queued_still_comes() -> None:
    """Closing ends the reading after what was put before, takes in nothing after it, and happens
    once. (S2-24)"""

    async def main() -> None:
        closed: list[str] = []
        with Watch[str](closing=lambda: closed.append("closed")) as watch:
            watch.put("one")
            watch.close()
            watch.put("two")
            assert watch.closed
        assert [item async for item in watch] == ["one"]
        assert closed == ["closed"]
        assert [item async for item in watch] == []

    run(main())


def test_closing_ends_a_reader_that_waits() -> None:
    """A reader that waits for an item comes to the end when the watch is closed. (S2-24)"""

    async def main() -> None:
        watch: Watch[str] = Watch()

        async def read() -> list[str]:
            return [item async for item in watch]

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        watch.close()
        assert await reader == []

    run(main())


def test_a_cancelled_reader_loses_nothing() -> None:
    """A reader that is cancelled, even when an item has just come, leaves it for the next. (S2-24)"""

    async def main() -> None:
        watch: Watch[str] = Watch()
        for put_before in (False, True):

            async def read() -> str:
                return await anext(watch)

            reader = asyncio.create_task(read())
            await asyncio.sleep(0)
            if put_before:
                watch.put("one")
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
        assert await anext(watch) == "one"

    run(main())


def test_there_is_one_reader_at_a_time() -> None:
    """A second reader that would wait beside the first is refused, and told what to do. (S2-24)"""

    async def main() -> None:
        watch: Watch[str] = Watch()

        async def read() -> str:
            return await anext(watch)

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="somebody else reads"):
            await anext(watch)
        watch.put("one")
        assert await reader == "one"

    run(main())


def test_a_watch_holds_something() -> None:
    """A watch without any place is refused. (S2-24)"""
    with pytest.raises(ValueError, match="one item"):
        Watch[str](0)
