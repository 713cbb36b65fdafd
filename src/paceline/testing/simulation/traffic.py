"""Work that comes at its own times: recorded or made up, faster or slower."""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, final

import msgspec

from paceline.balance.request import Request
from paceline.testing.simulation.agenda import SECOND
from paceline.testing.simulation.prompt import Prompt, around
from paceline.testing.simulation.work import Story, Work

__all__ = ["Recorded", "Traffic", "conversations"]

_TURNS: Final = 4
_INSTRUCTION_TOKENS: Final = 1_000
_SAID_TOKENS: Final = 2_500
_ANSWER_TOKENS: Final = 300
_PAUSE_S: Final = 30.0


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A request of a trace; `blocks` are hashes of its prompt's blocks of 512 tokens, each of all
    that is before it too, `session` is what it has in common with those before it."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    session: str = ""


@final
class Traffic:
    """Recorded requests in the order of their coming, `load` times as fast; nothing follows of how
    they end."""

    __slots__ = ("_load", "_recorded")

    def __init__(self, recorded: Iterable[Recorded], *, load: float = 1.0) -> None:
        self._recorded: Sequence[Recorded] = tuple(recorded)
        self._load = load

    def opening(self) -> Iterator[Work]:
        """All of them, the first at once."""
        begin_s = self._recorded[0].at_s if self._recorded else 0.0
        for each in self._recorded:
            yield Work(
                round((each.at_s - begin_s) / self._load * SECOND),
                Request(
                    affinity=each.session,
                    blocks=each.blocks,
                    input_tokens=each.input_tokens,
                ),
                max(1, each.output_tokens),
            )

    def after(self, story: Story) -> None:  # noqa: ARG002 (what other kinds of work go by)
        """Nothing."""
        return


def conversations(count: int, *, per_s: float, seed: int = 0) -> list[Recorded]:
    """So many requests of people who talk with a model, made up: `per_s` of them a second.

    A conversation has some four turns, half a minute apart; each adds its words, of a few sizes,
    to a prompt that begins as all do.
    """
    rng = random.Random(seed)  # noqa: S311 (conversations, drawn by seed)
    found: list[Recorded] = []
    begin_s, number = 0.0, 0
    while len(found) < count:
        begin_s += rng.expovariate(per_s / _TURNS)
        prompt = Prompt(number, 0, _INSTRUCTION_TOKENS)
        at_s = begin_s
        while True:
            prompt.grow(around(_SAID_TOKENS, rng))
            answer = around(_ANSWER_TOKENS, rng)
            found.append(
                Recorded(at_s, prompt.tokens, answer, prompt.blocks(), f"conversation {number}")
            )
            if rng.random() < 1 / _TURNS:
                break
            prompt.grow(answer)
            at_s += rng.expovariate(1 / _PAUSE_S)
        number += 1
    return sorted(found, key=lambda each: each.at_s)[:count]
