"""Pieces of work, and what came of them."""

from typing import TYPE_CHECKING, final

import msgspec

from paceline.balance.request import Request
from paceline.call import Tokens

if TYPE_CHECKING:
    from paceline.errors import PacelineError

__all__ = ["Attempt", "Story", "Work"]


class Work(msgspec.Struct, frozen=True, gc=False):
    """One call of a language model, as it will turn out to be.

    It comes `at_ns`. What strategies are shown of it is `request`; `output_tokens` is how long the
    answer will be, which nobody knows before.
    """

    at_ns: int
    request: Request
    output_tokens: int


@final
class Story:
    """What came of a piece of work: moments in nanoseconds, 0 for what did not happen.

    It arrived, was sent (for the last time), gave its first token, and ended, well if `error` is
    None. `endpoint` is the id of the one that had it last.
    """

    __slots__ = (
        "attempts",
        "cached_tokens",
        "ended_ns",
        "endpoint",
        "error",
        "first_ns",
        "number",
        "sent_ns",
        "tried",
        "work",
    )

    def __init__(self, number: int, work: Work) -> None:
        self.number = number
        self.work = work
        self.sent_ns = 0
        self.first_ns = 0
        self.ended_ns = 0
        self.endpoint = ""
        self.attempts = 0
        self.tried: frozenset[str] = frozenset()
        self.cached_tokens = 0
        self.error: PacelineError | None = None

    @property
    def arrived_ns(self) -> int:
        """When it came."""
        return self.work.at_ns

    @property
    def ended(self) -> bool:
        """Whether there is an end to tell of."""
        return self.ended_ns > 0


@final
class Attempt:
    """One piece of work at one endpoint."""

    __slots__ = (
        "cached_tokens",
        "estimated",
        "left",
        "over",
        "request",
        "reserved",
        "story",
        "work",
    )

    def __init__(self, work: Work, story: Story) -> None:
        self.work = work
        self.request = work.request
        self.story = story
        self.reserved = max(1, work.request.input_tokens) + work.output_tokens
        """Tokens of memory that it holds while it runs."""
        self.estimated = 0
        """Tokens that have to be read, as it looked when it came."""
        self.left = 0
        """Tokens of the prompt that are still to be read."""
        self.cached_tokens = 0
        """Tokens of the prompt that did not have to be read."""
        self.over = False

    @property
    def tokens(self) -> Tokens:
        """As the answer reports them."""
        return Tokens(
            self.request.input_tokens, self.work.output_tokens, cached_input=self.cached_tokens
        )
