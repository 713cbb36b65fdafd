"""A part of a task that can be cancelled alone."""

import asyncio

import pytest

from paceline.engine.scope import CancelScope, uncancelled
from paceline.testing.virtual_time import run


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def test_a_scope_is_left_as_it_was_entered() -> None:
    """A scope that is cancelled, or late, cancels what is in it once, and nothing after it (S2-25)."""

    async def main(scope: CancelScope, *, late: bool) -> None:
        scope.enter(1.0)
        if not late:
            asyncio.get_running_loop().call_later(0.5, scope.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(9)
        assert (scope.cancelled, scope.late, scope.foreign) == (not late, late, False)
        await scope.leave(told=True)
        assert not scope.cancel()
        assert cancelling() == 0
        await asyncio.sleep(9)

    run(main(CancelScope(), late=False))
    run(main(CancelScope(), late=True))


def test_a_cancel_that_is_still_to_come_does_not() -> None:
    """A scope that was cancelled in its last step says so when asked, and is left without a
    CancelledError that comes later (S2-25)."""

    async def main() -> None:
        scope = CancelScope()
        scope.enter(1.0)
        assert scope.cancel()
        assert scope.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scope.check()
        await scope.leave(told=True)
        other = CancelScope()
        other.enter(1.0)
        await other.check()
        other.cancel()
        await other.leave(told=False)
        assert cancelling() == 0
        await asyncio.sleep(9)

    run(main())


def test_the_end_can_be_moved() -> None:
    """The end that counts is the one that was set last, and none does after the scope (S2-25)."""

    async def main() -> None:
        scope = CancelScope()
        scope.enter(1.0)
        scope.end_in(5.0)
        await asyncio.sleep(4)
        scope.end_in(2.0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(3)
        assert scope.late
        await scope.leave(told=True)
        scope.end_in(0.0)
        await asyncio.sleep(1)
        assert cancelling() == 0

    run(main())


def test_who_else_cancels_the_task_is_seen() -> None:
    """A cancellation from elsewhere is told from the scope's own, and outlives the scope (S2-25)."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        scope = CancelScope()
        scope.enter(1.0)
        scope.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(9)
        assert scope.foreign
        await scope.leave(told=True)
        assert scope.foreign
        assert task.uncancel() == 0

    run(main())


def test_what_must_be_done_is_done_whoever_cancels() -> None:
    """What is cancelled meanwhile is done again, as often as that happens; a CancelledError that
    nobody asked for is raised (S2-25)."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        tries = 0

        async def do() -> None:
            nonlocal tries
            tries += 1
            if tries < 4:
                task.cancel()
            await asyncio.sleep(1)

        await uncancelled(do)
        assert tries == 4
        assert [task.uncancel() for _ in range(3)] == [2, 1, 0]

        async def gone() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await uncancelled(gone)

    run(main())
