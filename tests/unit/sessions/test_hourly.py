"""What a runtime that stays open does each hour."""

import asyncio

from paceline.testing.virtual_time import run
from tests.unit.sessions.quiet import a_runtime


def test_the_hour_is_one() -> None:
    """What is to be done hourly is done each hour, until it is no longer wanted (S2-43)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            done: list[int] = []
            stop = runtime._parts.state.hourly(lambda: done.append(1))
            for _ in range(3 * 60):  # in between its thread has the time it needs
                await asyncio.sleep(60)
            assert 2 <= len(done) <= 4
            stop()
            done.clear()
            await asyncio.sleep(2 * 3_600)
            assert done == []

    run(main())
