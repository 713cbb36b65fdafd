"""Prompts that grow from turn to turn."""

import random
from typing import Final, final

from paceline.testing.simulation.endpoint import BLOCK_TOKENS

__all__ = ["Prompt", "around"]

_APART: Final = 1 << 20  # more than a prompt has blocks


@final
class Prompt:
    """What one session has said so far, as its blocks.

    It begins with instructions that all of its kind share. Full blocks are the same in all later
    turns; the last one, where it is not full, is of this turn alone.
    """

    __slots__ = ("_instructions", "_kind", "_name", "_turn", "tokens")

    def __init__(self, name: int, kind: int, instructions: int) -> None:
        """`name` and `kind` are numbers from 0 on; `instructions` are tokens."""
        self._name = name
        self._kind = kind
        self._instructions = instructions
        self._turn = 0
        self.tokens = instructions

    def grow(self, tokens: int) -> None:
        """Something is said, by whomever."""
        self.tokens += tokens
        self._turn += 1

    def blocks(self) -> tuple[int, ...]:
        """Hashes of its blocks; those of different sessions are equal in shared blocks only."""
        shared = self._instructions // BLOCK_TOKENS
        full, rest = divmod(self.tokens, BLOCK_TOKENS)
        kind, own = -_APART * (self._kind + 1), _APART * (self._name + 1)
        last = (own + _APART // 2 + self._turn,) if rest else ()
        return (*range(kind, kind + shared), *range(own + shared, own + full), *last)


def around(mean: float, rng: random.Random) -> int:
    """A number of tokens, a few of them many: lognormal with a sigma of 0.8; at least 1."""
    return max(1, round(mean * rng.lognormvariate(-0.32, 0.8)))
