"""For tests of what is built with Paceline, or plugged into it.

Conformance:   check_cache_backend, BrokenPromisesError, Conformance
Time:          VirtualClock, VirtualTimeLoop
"""

from paceline.testing.cache_suite import BrokenPromisesError, Conformance, check_cache_backend
from paceline.testing.virtual_time import VirtualClock, VirtualTimeLoop

__all__ = [
    "BrokenPromisesError",
    "Conformance",
    "VirtualClock",
    "VirtualTimeLoop",
    "check_cache_backend",
]
