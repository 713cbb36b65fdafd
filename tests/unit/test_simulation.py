"""The simulator of language models and their balancing."""

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import Request
from paceline.balance.strategy import Strategy
from paceline.clock import Clock
from paceline.errors import CallTimeoutError, Category, OverloadedError, Shortage
from paceline.testing.simulation import (
    Agents,
    Client,
    Engine,
    Habits,
    Incident,
    Oracle,
    Recorded,
    Run,
    Server,
    Simulation,
    Story,
    Traffic,
    Trouble,
    Work,
    flapping,
)
from paceline.testing.simulation.prefix_cache import PrefixCache
from paceline.testing.simulation.prompt import Prompt

ENGINE = Engine()


class Least(Strategy):
    """The one with the least in flight, by chance among equals."""

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:
        self.rng = rng

    def pick(
        self, candidates: Sequence[AgentInstance], request: Request, now_ns: int
    ) -> AgentInstance:
        return min(candidates, key=lambda instance: (instance.in_flight, self.rng.random()))


class First(Strategy):
    """The first of the candidates."""

    def __init__(self, *, clock: Clock, rng: random.Random) -> None: ...

    def pick(
        self, candidates: Sequence[AgentInstance], request: Request, now_ns: int
    ) -> AgentInstance:
        return candidates[0]


class Opening:
    """A guard that opens at a moment."""

    reason = Shortage.RATE_LIMIT

    def __init__(self, at_s: float) -> None:
        self.at_ns = round(at_s * 1e9)

    def opens_ns(self) -> int:
        return self.at_ns

    def admit(self, request: Request) -> object:
        return self

    def ended(self, permit: object, lease: Lease) -> None: ...


class Listed:
    """Work as it is listed; keeps what it was told of."""

    def __init__(self, works: Iterable[Work]) -> None:
        self.works = list(works)
        self.told: list[int] = []

    def opening(self) -> Iterator[Work]:
        yield from self.works

    def after(self, story: Story) -> None:
        self.told.append(story.number)


def request(at_s: float, tokens: int, answer: int, *blocks: int) -> Recorded:
    return Recorded(at_s, tokens, answer, blocks)


def alone(*recorded: Recorded, engine: Engine = ENGINE, speed: float = 1.0) -> Run:
    """What a single server makes of it."""
    return Simulation(First, [Server(speed, engine)], Traffic(recorded)).run()


def took_s(story: Story) -> float:
    return (story.ended_ns - story.arrived_ns) / 1e9


def first_s(story: Story) -> float:
    return (story.first_ns - story.arrived_ns) / 1e9


def chat(count: int, seed: int = 0) -> list[Recorded]:
    """Prompts of several sizes, half of which go on from an earlier one."""
    rng = random.Random(seed)
    asked: list[tuple[int, ...]] = []
    found: list[Recorded] = []
    for number in range(count):
        before = rng.choice(asked) if asked and rng.random() < 0.5 else ()
        blocks = (*before, *(1_000 * number + i for i in range(1 + int(rng.expovariate(0.15)))))
        asked.append(blocks)
        answer = 1 + int(rng.expovariate(1 / 200))
        found.append(Recorded(0.3 * number, 512 * len(blocks) - 100, answer, blocks))
    return found


# --- one server


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("tokens", [1, 2_047, 2_048, 2_049, 20_000])
@pytest.mark.parametrize("answer", [1, 2, 300])
def test_alone_it_takes_the_time_that_can_be_reckoned(
    tokens: int, answer: int, speed: float
) -> None:
    """Work alone on a server takes a step for each chunk of its prompt and each further token of
    its answer, all in proportion to the server's speed (S0-83)."""
    story = alone(request(1.0, tokens, answer), speed=speed).stories[0]
    chunks = -(-tokens // ENGINE.chunk_tokens)
    prefill = chunks * ENGINE.step_s + tokens / ENGINE.prefill_per_s
    decode = (answer - 1) * (ENGINE.step_s + ENGINE.answer_s)
    assert first_s(story) == pytest.approx(prefill / speed, abs=1e-6)
    assert took_s(story) == pytest.approx((prefill + decode) / speed, abs=1e-6)


def test_answers_share_the_steps() -> None:
    """Answers of one moment take steps together, each making them longer, and short prompts are
    read in one chunk (S0-83)."""
    run = alone(*[request(0, 100, 50) for _ in range(8)])
    step = ENGINE.step_s + ENGINE.answer_s + 700 / ENGINE.prefill_per_s
    decode = 49 * (ENGINE.step_s + 8 * ENGINE.answer_s)
    first, *others = [first_s(story) for story in run.stories]
    assert first == pytest.approx(ENGINE.step_s + 100 / ENGINE.prefill_per_s)
    assert others == pytest.approx([first + step] * 7)
    assert took_s(run.stories[-1]) == pytest.approx(others[0] + decode, rel=0.01)


def test_a_prompt_that_comes_is_read_after_the_step_under_way() -> None:
    """Work that comes while others are answered waits for no more than a step, and delays their
    answers by what is read of it (S0-83)."""
    one, two = alone(request(0, 100, 1_000), request(1.0, 1_000, 2)).stories
    step = ENGINE.step_s + ENGINE.answer_s
    assert first_s(two) <= 2 * step + 1_000 / ENGINE.prefill_per_s
    alone_s = took_s(alone(request(0, 100, 1_000)).stories[0])
    extra = 1_000 / ENGINE.prefill_per_s + ENGINE.answer_s
    assert took_s(one) == pytest.approx(alone_s + extra, abs=1e-6)


def test_what_was_read_before_is_not_read_again() -> None:
    """A prompt that begins like an earlier one is read from where it differs (S0-83)."""
    blocks = tuple(range(20))
    recorded = [
        request(0, 20 * 512, 1, *blocks),
        request(10, 20 * 512 + 300, 1, *blocks, 20),
        request(20, 20 * 512, 1, *blocks[:10], *range(100, 110)),
        request(30, 20 * 512, 1, *blocks),
    ]
    run = alone(*recorded)
    assert [story.cached_tokens for story in run.stories] == [0, 20 * 512, 10 * 512, 20 * 512 - 1]
    times = [first_s(story) for story in run.stories]
    assert times[1] == pytest.approx(ENGINE.step_s + 300 / ENGINE.prefill_per_s)
    assert times[3] < times[1] < times[2] < times[0]
    assert run.loads[0].cached_tokens == sum(story.cached_tokens for story in run.stories)


def test_the_batch_and_the_memory_are_bounded() -> None:
    """No more than a batch, or than fits into memory, is worked on at once; the rest waits there
    and is begun as soon as there is room (S0-83)."""
    for engine in (Engine(batch=2), Engine(memory_tokens=250)):
        times = [took_s(s) for s in alone(*[request(0, 100, 20)] * 4, engine=engine).stories]
        assert times[0] < times[1] < times[2] <= times[3]
        assert times[2] > 1.8 * times[1]
        assert times[3] < 1.1 * times[2]


def test_work_too_large_for_the_memory_is_done_alone() -> None:
    """Work that never fits is begun when nothing else runs (S0-83)."""
    run = alone(request(0, 100, 5), request(0, 900, 5), engine=Engine(memory_tokens=500))
    assert [story.error for story in run.stories] == [None, None]


@given(
    st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6, unique=True), max_size=30),
    st.integers(1, 8),
)
def test_a_prefix_cache_is_bounded_and_says_what_it_was_given(
    prompts: list[list[int]], capacity: int
) -> None:
    """A prefix cache never has more than its capacity, nor a block that it did not read, and has
    what it read last as far as that fits (S0-83)."""
    cache = PrefixCache(capacity)
    seen: set[int] = set()
    for prompt in prompts:
        cache.read(prompt)
        seen.update(prompt)
        assert len(cache) <= capacity
        assert cache.matched(prompt) == min(len(prompt), capacity)
        assert all(block in seen for block in range(13) if block in cache)
    cache.clear()
    assert len(cache) == 0


def test_ends_of_prompts_are_forgotten_first() -> None:
    """Where a prompt cannot be kept in whole, its beginning is kept (S0-83)."""
    cache = PrefixCache(4)
    cache.read([1, 2, 3])
    cache.read([4, 5])
    assert [cache.matched([1, 2, 3]), cache.matched([4, 5])] == [2, 2]


def test_a_prompt_grows_by_blocks_of_its_own() -> None:
    """Full blocks of a prompt stay as they are, one that is not full is of its turn alone, and two
    sessions share what is full of their instructions only (S0-83)."""
    one, two = Prompt(0, 0, 1_200), Prompt(1, 0, 1_200)
    first = one.blocks()
    one.grow(100)
    second = one.blocks()
    one.grow(1_000)
    assert len(first) == len(second) == 3
    assert first[:2] == second[:2] == one.blocks()[:2] == two.blocks()[:2]
    assert len({first[2], second[2], one.blocks()[2], two.blocks()[2]}) == 4


# --- many servers


SERVERS = [Server(2.0), Server(1.0), Server(0.5)]


@given(st.integers(0, 1_000), st.integers(0, 2), st.sampled_from([0.0, 3.0]))
@settings(max_examples=25, deadline=None)
def test_every_piece_of_work_ends_once(seed: int, retries: int, timeout_s: float) -> None:
    """Whatever goes wrong, every piece of work ends exactly once, well or not, after it came, and
    nothing is left in flight (S0-83)."""
    rng = random.Random(seed)
    incidents = [
        Incident(trouble, begin, begin + rng.uniform(0.1, 10), rng.choice(["", "e0", "e1", "e2"]))
        for trouble in Trouble
        for begin in (rng.uniform(0, 10), rng.uniform(0, 10))
    ]
    work = Listed(Traffic(chat(40, seed)).opening())
    client = Client(retries=retries, timeout_s=timeout_s)
    simulation = Simulation(Least, SERVERS, work, incidents=incidents, client=client, seed=seed)
    run = simulation.run()
    assert sorted(work.told) == list(range(40))
    assert len(run.stories) == 40
    for story in run.stories:
        assert story.ended_ns >= story.arrived_ns
        if story.error is None:
            assert story.arrived_ns <= story.sent_ns < story.first_ns <= story.ended_ns
    assert [instance.in_flight for instance in simulation.instances] == [0, 0, 0]
    assert [each.running + each.queued for each in simulation.endpoints] == [0, 0, 0]
    assert run.summary(skip=0.5).count == 20
    assert sum(load.succeeded for load in run.loads) == 40 - run.summary(skip=0).failed


def fates(run: Run) -> list[tuple[str, int, int, int]]:
    return [(s.endpoint, s.sent_ns, s.first_ns, s.ended_ns) for s in run.stories]


def test_the_same_seed_gives_the_same_run() -> None:
    """Two runs of one seed are alike to the nanosecond, of another seed they differ (S0-83)."""

    def run(seed: int) -> Run:
        return Simulation(Least, SERVERS, Agents(5, until_s=60, seed=3), seed=seed).run()

    assert fates(run(1)) == fates(run(1))
    assert fates(run(1)) != fates(run(2))


def test_the_oracle_does_better_than_the_least_loaded() -> None:
    """Who sees queues, caches and lengths sends work where it takes less long, on the mean
    (S0-83)."""
    recorded = chat(300)
    known = Client(lengths_known=True)
    best = Simulation(Oracle, SERVERS, Traffic(recorded, load=2.0), client=known).run().summary()
    least = Simulation(Least, SERVERS, Traffic(recorded, load=2.0)).run().summary()
    assert best.mean_s < 0.9 * least.mean_s
    assert best.hit_share > least.hit_share


@pytest.mark.parametrize(
    ("request_", "speeds", "in_flight", "best"),
    [
        (Request(input_tokens=8_000, output_tokens=1), (1.0, 1.2), (0, 0), 1),
        (Request(input_tokens=8_000, output_tokens=1), (1.0, 1.2), (1, 20), 0),
        (Request(input_tokens=1, output_tokens=1_000), (1.0, 1.1), (0, 0), 1),
        (Request(input_tokens=1, output_tokens=1_000), (1.0, 1.1), (0, 3), 0),
    ],
)
def test_the_oracle_minds_the_delay_of_all(
    request_: Request, speeds: tuple[float, float], in_flight: tuple[int, int], best: int
) -> None:
    """The oracle sends work to the quicker server unless its own answer, or those that are there
    already, would be the slower for it (S0-83)."""
    simulation = Simulation(Oracle, [Server(speed) for speed in speeds], Listed([]))
    for instance, count in zip(simulation.instances, in_flight, strict=True):
        instance.in_flight = count
    oracle = Oracle(clock=simulation.agenda, rng=random.Random(0))
    assert oracle.pick(simulation.instances, request_, 0) is simulation.instances[best]


def test_a_strategy_is_not_shown_what_nobody_knows() -> None:
    """Requests tell the lengths of their answers only if that was asked for (S0-83)."""
    for known in (False, True):
        run = Simulation(
            First, [Server()], Traffic(chat(3)), client=Client(lengths_known=known)
        ).run()
        told = [story.work.request.output_tokens for story in run.stories]
        assert told == (
            [story.work.output_tokens for story in run.stories] if known else [None] * 3
        )


def test_work_waits_for_room_in_its_order() -> None:
    """What finds all instances full waits, and is sent in the order in which it came (S0-83)."""
    servers = [Server(max_capacity=2), Server(max_capacity=1)]
    run = Simulation(Least, servers, Traffic(chat(30), load=100)).run(sample_s=1.0)
    sent = [story.sent_ns for story in run.stories]
    assert sent == sorted(sent)
    assert max(sample.waiting for sample in run.samples) > 20
    assert all(a <= 2 and b <= 1 for a, b in (sample.in_flight for sample in run.samples))
    assert [sample.at_s for sample in run.samples[:3]] == [0.0, 1.0, 2.0]
    assert run.samples[-1].succeeded <= 30


# --- trouble


def test_a_slow_endpoint_is_slow_for_a_while() -> None:
    """Everything takes longer from the step after the trouble begins to the step after its end
    (S0-83)."""
    slow = Incident(Trouble.SLOW, 1.0, 2.0, "e0", factor=5.0)
    run = Simulation(First, [Server()], Traffic([request(0, 100, 1_000)]), incidents=[slow]).run()
    alone_s = took_s(alone(request(0, 100, 1_000)).stories[0])
    assert took_s(run.stories[0]) == pytest.approx(alone_s + 0.8, abs=0.1)


def test_a_failing_endpoint_fails_fast_and_only_while_it_fails() -> None:
    """What comes to a failing endpoint ends with its error after its time, and what was under way
    there goes on (S0-83)."""
    trouble = Incident(Trouble.FAILING, 1.0, 2.0, "e0", after_s=0.02)
    recorded = [request(0, 100, 500), request(1.5, 100, 5), request(2.0, 100, 5)]
    one, two, three = (
        Simulation(First, [Server()], Traffic(recorded), incidents=[trouble]).run().stories
    )
    assert one.error is three.error is None
    assert two.error is not None
    assert two.error.category is Category.UNAVAILABLE
    assert took_s(two) == pytest.approx(0.02)


def test_work_is_tried_again_elsewhere() -> None:
    """Work that failed at one endpoint is sent to another, as often as its caller says (S0-83)."""
    down = [Incident(Trouble.DOWN, 0.5, 100, "e0"), Incident(Trouble.DOWN, 0.5, 100, "e1")]
    traffic = Traffic([request(0, 100, 500), request(1, 100, 5)])
    for retries, failed in ((0, 2), (1, 2), (2, 0)):
        run = Simulation(
            First, [Server()] * 3, traffic, incidents=down, client=Client(retries=retries)
        ).run()
        assert run.summary(skip=0).failed == failed
        assert {story.attempts for story in run.stories} == {retries + 1}


def test_a_limited_endpoint_says_when_to_come_back() -> None:
    """Of more requests than an endpoint lets in, the rest is refused with the time after which
    there is room (S0-83)."""
    limited = Incident(Trouble.LIMITED, 0, 100, per_s=2.0)
    recorded = [request(10 + 0.1 * number, 10, 1) for number in range(50)]
    run = Simulation(First, [Server()], Traffic(recorded), incidents=[limited]).run()
    errors = [story.error for story in run.stories if story.error is not None]
    assert 50 - len(errors) == pytest.approx(10, abs=2)
    assert all(error.category is Category.RATE_LIMIT for error in errors)
    assert all(0 < (error.retry_after_s or 0) <= 0.5 for error in errors)
    rare = Incident(Trouble.LIMITED, 0, 100, per_s=0.5)
    traffic = Traffic([request(at_s, 10, 1) for at_s in (0, 10, 10.5)])
    error = Simulation(First, [Server()], traffic, incidents=[rare]).run().stories[2].error
    assert error is not None
    assert error.retry_after_s == pytest.approx(1.5)


def test_what_flaps_is_down_for_a_part_of_each_period() -> None:
    """A flapping endpoint loses what it has at the beginning of each period and takes work again
    in the rest of it (S0-83)."""
    recorded = [request(0.25 * number, 10, 1) for number in range(40)]
    trouble = flapping("e0", 0, 10, period_s=2.0, down=0.5)
    run = Simulation(First, [Server()], Traffic(recorded), incidents=trouble).run()
    bad = [story.error is not None for story in run.stories]
    assert bad == [number % 8 < 4 for number in range(40)]


def test_callers_give_up() -> None:
    """Work that is not done in the time its caller waits ends with a time-out, wherever it is, and
    its place is free for others (S0-83)."""
    recorded = [request(0, 100, 2_000), request(1, 100, 20), request(1, 100, 2_000)]
    run = Simulation(
        First, [Server(max_capacity=1)], Traffic(recorded), client=Client(timeout_s=5.0)
    ).run()
    one, two, three = run.stories
    assert isinstance(one.error, CallTimeoutError)
    assert took_s(one) == took_s(three) == 5.0
    assert two.error is None
    assert two.sent_ns == one.ended_ns
    assert three.sent_ns == two.ended_ns
    recorded = [request(0, 100, 2_000), request(1, 100, 20)]
    run = Simulation(First, [Server()], Traffic(recorded), client=Client(timeout_s=5.0)).run()
    assert [story.error is None for story in run.stories] == [False, True]


def test_who_gave_up_frees_the_memory_and_is_not_tried_again() -> None:
    """Work that was given up holds no memory, and if it fails later it is not sent again
    (S0-83)."""
    client, engine = Client(timeout_s=5.0), Engine(memory_tokens=2_250)
    recorded = [request(0, 100, 2_000), request(5.5, 100, 100), request(5.5, 100, 100)]
    run = Simulation(First, [Server(engine=engine)], Traffic(recorded), client=client).run()
    assert took_s(run.stories[2]) < 1.2 * took_s(run.stories[1])
    work = Listed(Traffic([request(0, 100, 5), request(1, 100, 5)]).opening())
    client, failing = Client(timeout_s=0.01, retries=3), [Incident(Trouble.FAILING, 0, 9)]
    story = Simulation(First, [Server()], work, incidents=failing, client=client).run().stories[0]
    assert (story.attempts, work.told, took_s(story)) == (1, [0, 1], 0.01)


def test_guards_open_again_by_themselves() -> None:
    """Work that waits while all instances are shut is sent as soon as one of them opens, and ends
    with an error if none ever does (S0-83)."""

    def equip(instances: Sequence[AgentInstance], *, clock: Clock, rng: random.Random) -> None:
        instances[0].guards = (Opening(20),)
        instances[1].guards = (Opening(30),)

    traffic = Traffic([request(number, 100, 5) for number in range(40)])
    run = Simulation(First, [Server(max_capacity=1)] * 2, traffic, equip=equip).run()
    assert all(story.error is None for story in run.stories)
    assert min(story.sent_ns for story in run.stories) == 20_000_000_000
    assert {story.endpoint for story in run.stories if story.sent_ns < 30e9} == {"e0"}
    run = Simulation(First, [Server(max_capacity=0)], traffic).run()
    assert all(isinstance(story.error, OverloadedError) for story in run.stories)


# --- agents


def test_agents_wait_for_their_answers() -> None:
    """A session sends its next turn after the answer to the last, its prompt having grown, and
    shares its instructions with others of its kind (S0-83)."""
    habits = Habits(kinds=2, tool_s=2.0)
    run = Simulation(Least, SERVERS, Agents(10, until_s=120, habits=habits)).run()
    sessions: dict[str, list[Story]] = {}
    for story in run.stories:
        sessions.setdefault(story.work.request.affinity, []).append(story)
    assert len(sessions) > 10
    assert len({turns[0].work.request.blocks[0] for turns in sessions.values()}) == 2
    for turns in sessions.values():
        for one, two in pairwise(turns):
            assert two.arrived_ns > one.ended_ns
            assert two.work.request.input_tokens > one.work.request.input_tokens
            known = len(one.work.request.blocks) - 1
            assert two.work.request.blocks[:known] == one.work.request.blocks[:known]
    assert run.summary().hit_share > 0.3


def test_an_agent_repeats_a_turn_that_failed() -> None:
    """After an error the same turn comes again (S0-83)."""
    trouble = Incident(Trouble.DOWN, 0, 30)
    run = Simulation(
        First, [Server()], Agents(1, until_s=120, habits=Habits(tool_s=2.0)), incidents=[trouble]
    ).run()
    failed = [story for story in run.stories if story.error is not None]
    assert len(failed) > 3
    assert {story.work.request for story in failed} == {failed[0].work.request}
