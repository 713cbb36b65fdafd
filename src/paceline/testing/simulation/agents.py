"""Agents at work: sessions of many turns whose prompts grow, with tools in between."""

import random
from collections.abc import Iterator
from typing import final

import msgspec

from paceline.balance.request import Request
from paceline.testing.simulation.agenda import SECOND
from paceline.testing.simulation.prompt import Prompt, around
from paceline.testing.simulation.work import Story, Work

__all__ = ["Agents", "Habits"]


class Habits(msgspec.Struct, frozen=True):
    """How agents work; tokens and seconds are means.

    There are `kinds` of agents, which share their instructions with others of their kind. A session
    has some `turns`; in each the answer and what a tool returned are added to the prompt, until it
    has `most_tokens`. A tool takes `tool_s`.
    """

    kinds: int = 8
    instruction_tokens: int = 3_000
    task_tokens: int = 500
    turns: float = 12.0
    answer_tokens: float = 80.0
    result_tokens: float = 350.0
    tool_s: float = 20.0
    most_tokens: int = 30_000


@final
class Agents:
    """`count` agents that each begin a session after the other until `until_s`.

    A turn waits for the one before it: the slower the answers, the fewer there are.
    """

    __slots__ = ("_count", "_habits", "_instructions", "_rng", "_sessions", "_started", "_until_ns")

    def __init__(
        self, count: int, *, until_s: float, habits: Habits | None = None, seed: int = 0
    ) -> None:
        self._count = count
        self._habits = habits = habits or Habits()
        self._until_ns = round(until_s * SECOND)
        self._rng = rng = random.Random(seed)  # noqa: S311 (sessions, drawn by seed)
        self._instructions = [
            round(habits.instruction_tokens * rng.uniform(0.5, 1.5)) for _ in range(habits.kinds)
        ]
        self._started = 0
        self._sessions: dict[str, tuple[Prompt, int]] = {}  # with the turns that are left

    def opening(self) -> Iterator[Work]:
        """First turns, spread over the time that a turn takes."""
        begins = sorted(self._rng.uniform(0, 2 * self._habits.tool_s) for _ in range(self._count))
        for begin in begins:
            yield self._begin(round(begin * SECOND))

    def after(self, story: Story) -> Work | None:
        """The next turn, once the tool has returned, or a new session; after a failure the same
        turn again."""
        affinity = story.work.request.affinity
        prompt, left = self._sessions[affinity]
        at_ns = story.ended_ns + self._pause_ns()
        over = at_ns >= self._until_ns
        if story.error is not None and not over:
            return msgspec.structs.replace(story.work, at_ns=at_ns)
        prompt.grow(story.work.output_tokens + self._around(self._habits.result_tokens))
        if over or left <= 1 or prompt.tokens > self._habits.most_tokens:
            del self._sessions[affinity]
            return None if over else self._begin(at_ns)
        self._sessions[affinity] = prompt, left - 1
        return self._turn(affinity, prompt, at_ns)

    def _begin(self, at_ns: int) -> Work:
        rng, habits = self._rng, self._habits
        kind = rng.randrange(habits.kinds)
        prompt = Prompt(self._started, kind, self._instructions[kind])
        prompt.grow(self._around(habits.task_tokens))
        affinity = f"session {self._started}"
        self._started += 1
        self._sessions[affinity] = prompt, 1 + int(rng.expovariate(1 / habits.turns))
        return self._turn(affinity, prompt, at_ns)

    def _turn(self, affinity: str, prompt: Prompt, at_ns: int) -> Work:
        request = Request(affinity=affinity, blocks=prompt.blocks(), input_tokens=prompt.tokens)
        return Work(at_ns, request, self._around(self._habits.answer_tokens))

    def _around(self, mean: float) -> int:
        return around(mean, self._rng)

    def _pause_ns(self) -> int:
        return round(self._rng.expovariate(1 / self._habits.tool_s) * SECOND)
