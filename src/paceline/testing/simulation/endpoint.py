"""A server of a language model, as far as time goes.

It works in steps. In a step every answer under way gets one more token, and up to a chunk of the
waiting prompts is read beside them, first come first read; the step takes longer for both. This is
chunked prefill with continuous batching: Agrawal et al., Taming throughput-latency tradeoff in LLM
inference with Sarathi-Serve, 2024. A prompt whose beginning was read before is read from there on.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final, final

import msgspec

from paceline.balance.request import Request
from paceline.testing.simulation.agenda import SECOND, Agenda
from paceline.testing.simulation.prefix_cache import PrefixCache
from paceline.testing.simulation.work import Attempt

__all__ = ["BLOCK_TOKENS", "Endpoint", "Engine"]

BLOCK_TOKENS: Final = 512
_MANY: Final = 1 << 40
_TELLING: Final = -1


class Engine(msgspec.Struct, frozen=True):
    """What a server can do at speed 1; a server of speed 2 takes half as long for everything.

    It reads `prefill_per_s` tokens of prompts a second, at most `chunk_tokens` in a step. A step
    takes `step_s`, and `answer_s` more for each answer under way, of which there are at most
    `batch`, with at most `memory_tokens` of prompts and answers. `cache_blocks` blocks of prompts
    are remembered.
    """

    prefill_per_s: float = 8_000.0
    step_s: float = 0.012
    answer_s: float = 0.000_25
    chunk_tokens: int = 2_048
    batch: int = 64
    memory_tokens: int = 600_000
    cache_blocks: int = 1_172


@final
class Endpoint:
    """One server. Everything about it is true: strategies of a real balancer cannot look here.

    What it does it tells: `first` is called with an attempt that has its first token, `done` with
    one that has its last.
    """

    __slots__ = (
        "_agenda",
        "_answers",
        "_awaited",
        "_backlog",
        "_began_ns",
        "_chunk",
        "_count",
        "_done",
        "_first",
        "_held",
        "_order",
        "_partly",
        "_plan",
        "_queue",
        "_read",
        "_share",
        "_step_ns",
        "_stepped",
        "_steps",
        "busy_ns",
        "cache",
        "engine",
        "id",
        "slowed",
        "speed",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 (as instances have it)
        agenda: Agenda,
        *,
        speed: float = 1.0,
        engine: Engine,
        first: Callable[[Attempt], object],
        done: Callable[[Attempt], object],
    ) -> None:
        self.id = id
        self.speed = speed
        self.engine = engine
        self.slowed = 1.0
        self.cache = PrefixCache(engine.cache_blocks)
        self.busy_ns = 0
        """How long it has worked so far, to the last step that it told of."""
        self._agenda = agenda
        self._first = first
        self._done = done
        self._queue: deque[Attempt] = deque()
        self._awaited: dict[int, int] = {}  # blocks of those in the queue, with how many have it
        self._backlog = 0
        self._partly: Attempt | None = None
        self._read: list[Attempt] = []  # of which all is read with the step under way
        self._answers: list[tuple[int, int, Attempt]] = []  # by the step that ends them
        self._count = 0  # answers under way
        self._held = 0  # tokens of memory
        self._order = 0
        self._stepped = 0
        self._plan = 0  # which plan is carried out; ends of earlier ones are void
        self._began_ns = self._step_ns = self._steps = 0
        self._chunk = 0  # tokens that are read in a step
        self._share = 0  # how many of them of the prompt that is not read to its end

    # --- what is true of it

    @property
    def queued(self) -> int:
        """Attempts of which nothing is read yet."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Attempts that hold memory."""
        return self._count + len(self._read) + (self._partly is not None)

    @property
    def answering(self) -> int:
        """Attempts that have their first token and not their last."""
        return self._count

    @property
    def pace(self) -> float:
        """How fast it is at the moment, where 1 is the engine's own figures."""
        return self.speed / self.slowed

    def backlog_tokens(self) -> int:
        """Tokens of prompts that are to be read before one that comes now."""
        return self._backlog + (self._partly.left if self._partly is not None else 0)

    def unread_tokens(self, request: Request) -> int:
        """Tokens of this prompt that would have to be read, when it is its turn."""
        known, awaited = self.cache, self._awaited
        count = 0
        for block in request.blocks:
            if block not in known and block not in awaited:
                break
            count += 1
        return max(1, request.input_tokens - BLOCK_TOKENS * count)

    # --- what is done with it

    def submit(self, attempt: Attempt) -> None:
        """Gives it work, which it will do when it gets there."""
        attempt.estimated = self.unread_tokens(attempt.request)
        self._backlog += attempt.estimated
        self._queue.append(attempt)
        for block in attempt.request.blocks:
            self._awaited[block] = self._awaited.get(block, 0) + 1
        if not self._steps:
            self._next()
        elif not self._chunk:
            self._cut()

    def cancel(self, attempt: Attempt) -> None:
        """Takes work away that is not over: `done` is not called for it."""
        if attempt.over:
            return
        attempt.over = True
        if attempt in self._queue:
            self._queue.remove(attempt)
            self._forget(attempt)
            return
        self._held -= attempt.reserved
        if attempt is self._partly:
            self._partly = None
        elif attempt in self._read:
            self._read.remove(attempt)
        else:
            self._count -= 1
        self._cut()

    def pace_by(self, slowed: float) -> None:
        """Makes everything take `slowed` times as long from the next step on."""
        self.slowed = slowed
        self._cut()

    def drop(self) -> list[Attempt]:
        """Takes away all of its work and its memory, as a crash does; returns the work."""
        running = [*self._read, *filter(None, (self._partly,))]
        running += [attempt for _, _, attempt in sorted(self._answers) if not attempt.over]
        lost = [*running, *self._queue]
        for attempt in lost:
            attempt.over = True
        self._queue.clear()
        self._awaited.clear()
        self._answers.clear()
        self._read.clear()
        self._partly = None
        self._backlog = self._count = self._held = self._steps = self._chunk = 0
        self._plan += 1
        self.cache.clear()
        return lost

    # --- how it works

    def _next(self) -> None:
        """Plans the coming steps: as many as will be alike."""
        self._chunk = chunk = self._fill()
        count = self._count
        if not chunk and not count:
            self._steps = 0
            return
        engine = self.engine
        seconds = engine.step_s + engine.answer_s * count + chunk / engine.prefill_per_s
        self._step_ns = step_ns = round(seconds * SECOND * self.slowed / self.speed)
        steps = self._answers[0][0] - self._stepped if self._answers else _MANY
        if self._read:
            steps = 1
        elif self._partly is not None:  # in whole chunks, up to the one that ends it
            steps = min(steps, (self._partly.left - 1) // chunk)
        self._steps = steps
        self._plan += 1
        self._began_ns = now_ns = self._agenda.now_ns
        self._agenda.enter(now_ns + steps * step_ns, self._over, self._plan)

    def _fill(self) -> int:
        """Chooses what is read beside the answers in the next step, and returns how much it is."""
        size = self.engine.chunk_tokens
        chunk = 0
        attempt = self._partly
        self._share = 0
        while True:
            if attempt is None:
                if chunk == size or not self._queue or not self._fits(self._queue[0]):
                    break
                attempt = self._admit()
            if attempt.left > size - chunk:
                self._share = size - chunk
                chunk = size
                break
            chunk += attempt.left
            self._read.append(attempt)
            attempt = None
        self._partly = attempt
        return chunk

    def _fits(self, attempt: Attempt) -> bool:
        running = self._count + len(self._read)
        memory = self.engine.memory_tokens - self._held
        return not running or (running < self.engine.batch and attempt.reserved <= memory)

    def _admit(self) -> Attempt:
        attempt = self._queue.popleft()
        self._forget(attempt)
        request = attempt.request
        known = BLOCK_TOKENS * self.cache.matched(request.blocks)
        attempt.left = max(1, request.input_tokens - known)
        attempt.cached_tokens = max(0, request.input_tokens - attempt.left)
        self.cache.read(request.blocks)
        self._held += attempt.reserved
        return attempt

    def _forget(self, attempt: Attempt) -> None:
        """It is no longer in the queue."""
        self._backlog -= attempt.estimated
        awaited = self._awaited
        for block in attempt.request.blocks:
            count = awaited[block]
            if count == 1:
                del awaited[block]
            else:
                awaited[block] = count - 1

    def _cut(self) -> None:
        """Plans anew after the step under way, as something has changed."""
        if self._steps <= 1 or self._chunk == _TELLING:
            return
        steps = -((self._began_ns - self._agenda.now_ns) // self._step_ns)
        if steps < self._steps:
            self._steps = steps
            self._plan += 1
            self._agenda.enter(self._began_ns + steps * self._step_ns, self._over, self._plan)

    def _over(self, plan: int) -> None:
        """The steps of a plan are over: tells of first and last tokens."""
        if plan != self._plan:
            return
        steps = self._steps
        self.busy_ns += steps * self._step_ns
        self._stepped = stepped = self._stepped + steps
        if self._partly is not None:
            self._partly.left -= steps * self._share
        self._chunk = _TELLING  # what is told may lead to new work here
        answers = self._answers
        if self._read:
            read, self._read = self._read, []
            self._count += len(read)
            for attempt in read:
                if not attempt.over:
                    self._order += 1
                    last = stepped + max(0, attempt.work.output_tokens - 1)
                    heapq.heappush(answers, (last, self._order, attempt))
                    self._first(attempt)
        while answers and answers[0][0] <= stepped:
            attempt = heapq.heappop(answers)[2]
            if not attempt.over:
                attempt.over = True
                self._count -= 1
                self._held -= attempt.reserved
                self._done(attempt)
        self._next()
