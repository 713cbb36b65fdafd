"""The instances that the settings state, made to be looked at: none is given work."""

import random

from paceline.call import Call
from paceline.cli.place import Place
from paceline.clock import SystemClock
from paceline.fleets import Fleets
from paceline.settings import Settings

__all__ = ["stated"]


def stated(settings: Settings, place: Place) -> Fleets:
    """As a runtime would have them; its `troubles` say which cannot be. Raises ConfigError."""
    return Fleets(
        settings,
        clock=SystemClock(),
        rng=random.Random(),  # noqa: S311 (guards nothing)
        environ=place.environ,
        local=_done_here,
    )


async def _done_here(call: Call) -> object:
    """Nothing is run to see whether it could be."""
    raise AssertionError(call)
