"""No test waits in real time: what takes time runs on `paceline.testing.virtual_time`."""

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from paceline.testing.virtual_time import VirtualTimeLoop

# What is collected stays until the end: looking through it again and again for garbage is for nothing.
gc.disable()

TESTS = str(Path(__file__).parent)
real_sleep = asyncio.sleep

# A busy machine is no defect of what is tested.
hypothesis.settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any machine")

# What a shell starts in the background ignores interrupts, and so would all that we start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Tests have a collector of garbage, which leaves alone what was there before them."""
    gc.collect()
    gc.freeze()
    gc.enable()


def sleep(delay: float, result: Any = None) -> Any:
    """`asyncio.sleep`, but tests may only let others run with it, unless time is virtual."""
    asked_by = sys._getframe(1).f_code.co_filename
    if delay > 0 and asked_by.startswith(TESTS):
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop), f"{asked_by} sleeps in real time"
    return real_sleep(delay, result)


@pytest.fixture(autouse=True)
def no_real_sleeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails every test that sleeps in real time itself."""
    monkeypatch.setattr(asyncio, "sleep", sleep)


@pytest.fixture
def closed_rosters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes after a test all rosters that it made: an open file is a warning from Python 3.13 on."""
    from paceline.roster import Roster  # few tests have them

    made: list[Roster] = []
    make = Roster.__init__

    def noted(roster: Roster, *args: Any, **options: Any) -> None:
        make(roster, *args, **options)
        made.append(roster)

    monkeypatch.setattr(Roster, "__init__", noted)
    yield
    for roster in made:
        roster.close()
