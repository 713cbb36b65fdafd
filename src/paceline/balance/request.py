"""What is known of a piece of work before it is given to an instance."""

from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["ANYTHING", "Features", "Needs", "Request"]

_NONE: Final[Mapping[str, str]] = {}


class Features(msgspec.Struct, frozen=True, gc=False):
    """What an instance can do, and what it costs.

    `context_window` in tokens, 0 for no limit that is known; `modalities` such as "text" and
    "image"; `labels` are free names with values, as are `zone` and `version`. Prices are USD per
    million tokens of input and output, and per call.
    """

    context_window: int = 0
    modalities: frozenset[str] = frozenset({"text"})
    labels: Mapping[str, str] = _NONE
    zone: str = ""
    version: str = ""
    input_usd: float = 0.0
    output_usd: float = 0.0
    call_usd: float = 0.0


class Needs(msgspec.Struct, frozen=True, gc=False):
    """What an instance must have for a piece of work, and what it had better have.

    An instance without the required is never chosen. Among those with it, the ones that have most
    of the preferred go first, as long as one of them has capacity. Labels are pairs, so that needs
    can be compared and hashed.
    """

    context_window: int = 0
    modalities: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()
    most_input_usd: float | None = None
    preferred_labels: tuple[tuple[str, str], ...] = ()
    preferred_zone: str = ""


ANYTHING: Final = Needs()
"""Any instance will do."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One piece of work, as far as choosing an instance for it goes.

    `affinity` is what its followers have in common (a session, a prompt's beginning): those are
    best served where the first was. `blocks` are hashes of the prompt's blocks of
    `paceline.balance.strategies.prefixes.BLOCK_TOKENS` tokens, each of all that is before it too,
    so equal hashes mean equal prefixes. `output_tokens` is None where nobody knows. `avoid` are
    ids of instances that were tried already: they are chosen only if there is no other.
    """

    needs: Needs = ANYTHING
    affinity: str = ""
    blocks: tuple[int, ...] = ()
    input_tokens: int = 0
    output_tokens: int | None = None
    avoid: frozenset[str] = frozenset()
