"""What came of a simulation."""

import math
from collections.abc import Sequence

import msgspec

from paceline.testing.simulation.agenda import SECOND
from paceline.testing.simulation.work import Story

__all__ = ["Load", "Run", "Sample", "Summary"]


class Load(msgspec.Struct, frozen=True):
    """What one endpoint did: pieces of work that it ended well, tokens of prompts that it read and
    that it remembered, tokens that it answered, and the share of the time that it worked."""

    endpoint: str
    succeeded: int
    read_tokens: int
    cached_tokens: int
    answered_tokens: int
    busy: float


class Sample(msgspec.Struct, frozen=True):
    """How things stood at a moment. Tuples have one number for each endpoint, in their order.

    `waiting` had no endpoint yet; `in_flight` is what was sent to each, `queued` what was not begun
    there, `limits` how much it might have been sent at most, `usable` whether it was to be chosen.
    """

    at_s: float
    waiting: int
    succeeded: int
    failed: int
    in_flight: tuple[int, ...]
    queued: tuple[int, ...]
    limits: tuple[int, ...]
    usable: tuple[bool, ...]


class Summary(msgspec.Struct, frozen=True):
    """Seconds from arrival to the last token and to the first, of what ended well; the share of
    prompt tokens that were remembered."""

    count: int
    failed: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    first_mean_s: float
    first_p50_s: float
    first_p99_s: float
    hit_share: float


class Run(msgspec.Struct, frozen=True):
    """All that happened: the story of every piece of work in the order of arrival, what every
    endpoint did, and how things stood from time to time."""

    stories: list[Story]
    loads: list[Load]
    samples: list[Sample]
    ended_s: float

    def summary(self, *, skip: float = 0.1) -> Summary:
        """In figures; the first `skip` (a share) of the work is left out, as it found all empty."""
        stories = self.stories[int(skip * len(self.stories)) :]
        good = [story for story in stories if story.error is None]
        totals = sorted((story.ended_ns - story.arrived_ns) / SECOND for story in good)
        firsts = sorted((story.first_ns - story.arrived_ns) / SECOND for story in good)
        prompts = sum(story.work.request.input_tokens for story in good)
        cached = sum(story.cached_tokens for story in good)
        return Summary(
            len(stories),
            len(stories) - len(good),
            _mean(totals),
            _rank(totals, 0.5),
            _rank(totals, 0.95),
            _rank(totals, 0.99),
            _mean(firsts),
            _rank(firsts, 0.5),
            _rank(firsts, 0.99),
            cached / prompts if prompts else 0.0,
        )


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan
