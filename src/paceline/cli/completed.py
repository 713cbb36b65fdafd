"""Runs the asynchronous part of a command: to its end, or until somebody stops it."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from typing import TypeVar

from paceline.cli.output import TERMINATED

__all__ = ["completed"]

T = TypeVar("T")


def completed(work: Coroutine[object, object, T]) -> T:
    """The result of `work`. What agents print on the way goes to standard error: standard output
    is for results.

    Ctrl-C and SIGTERM cancel it; when it has cleaned up they are raised, as KeyboardInterrupt and
    as SystemExit.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return asyncio.run(_until_terminated(work))
    except asyncio.CancelledError:
        raise SystemExit(TERMINATED) from None


async def _until_terminated(work: Coroutine[object, object, T]) -> T:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
