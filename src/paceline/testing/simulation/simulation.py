"""Work, endpoints and a strategy, put together in virtual time."""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, final

import msgspec

from paceline.balance.fleet import Fleet
from paceline.balance.instance import NEVER, AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import Features
from paceline.balance.strategy import Strategy
from paceline.clock import Clock
from paceline.errors import CallTimeoutError, OverloadedError, PacelineError
from paceline.testing.simulation.agenda import SECOND, Agenda
from paceline.testing.simulation.endpoint import Endpoint, Engine
from paceline.testing.simulation.incidents import Front, Incident, Trouble, lost
from paceline.testing.simulation.run import Load, Run, Sample
from paceline.testing.simulation.work import Attempt, Story, Work

__all__ = ["Client", "Equip", "MakeStrategy", "Server", "Simulation", "Workload"]

_TYPE: Final = "model"


class Workload(Protocol):
    """Where work comes from."""

    def opening(self) -> Iterator[Work]:
        """Work that comes whatever becomes of the rest."""
        ...

    def after(self, story: Story) -> Work | None:
        """What comes of the end of a piece of work, if anything."""
        ...


class Server(msgspec.Struct, frozen=True):
    """One endpoint, and what the balancer is told of it."""

    speed: float = 1.0
    engine: Engine = Engine()
    weight: float = 1.0
    max_capacity: int = 1_000_000
    features: Features = Features()


class Client(msgspec.Struct, frozen=True):
    """How callers behave: they try again up to `retries` times, at once and elsewhere if there is
    an elsewhere, give up `timeout_s` after they came (0: never), and may know beforehand how long
    an answer will be."""

    retries: int = 0
    timeout_s: float = 0.0
    lengths_known: bool = False


class MakeStrategy(Protocol):
    """Makes the strategy of a run: a class of strategies will do."""

    def __call__(self, *, clock: Clock, rng: random.Random) -> Strategy:
        """On this clock, with these random numbers."""
        ...


class Equip(Protocol):
    """Prepares the instances of a run, as by giving them guards."""

    def __call__(
        self, instances: Sequence[AgentInstance], *, clock: Clock, rng: random.Random
    ) -> object:
        """On this clock, with these random numbers."""
        ...


@final
class Simulation:
    """One run of a workload on some servers, work being sent by a strategy.

    It is the balancer's own code that asks the strategy, which sees what it sees in life: requests,
    and its leases with their moments, tokens and errors. What finds no instance waits for one, in
    the order in which it came. The endpoints are called e0, e1 and so on. The same seed gives the
    same run.
    """

    def __init__(
        self,
        strategy: MakeStrategy,
        servers: Sequence[Server],
        workload: Workload,
        *,
        incidents: Sequence[Incident] = (),
        client: Client | None = None,
        equip: Equip | None = None,
        seed: int = 0,
    ) -> None:
        self.agenda = agenda = Agenda()
        self.endpoints: list[Endpoint] = []
        self.instances: list[AgentInstance] = []
        self._workload = workload
        self._incidents = incidents
        self._client = client or Client()
        self._stories: list[Story] = []
        self._waiting: deque[Story] = deque()
        self._under_way: dict[int, tuple[Endpoint, Attempt, Lease]] = {}
        self._open = 0
        self._succeeded = 0
        self._failed = 0
        self._wake_ns = NEVER
        self._samples: list[Sample] = []
        self._sample_ns = 0
        self._fronts: dict[str, Front] = {}
        self._tallies: dict[str, list[int]] = {}
        rng = random.Random(seed)  # noqa: S311 (a run, drawn by seed)
        self._fleet = Fleet(_TYPE, strategy(clock=agenda, rng=rng), clock=agenda)
        for server in servers:
            self._add(server)
        if equip is not None:
            equip(self.instances, clock=agenda, rng=rng)
        for instance in self.instances:
            self._fleet.add(instance)

    def _add(self, server: Server) -> None:
        endpoint = Endpoint(
            f"e{len(self.endpoints)}", self.agenda, speed=server.speed, engine=server.engine,
            first=self._first, done=self._done,
        )  # fmt: skip
        instance = AgentInstance(
            endpoint.id, _TYPE, max_capacity=server.max_capacity, weight=server.weight,
            features=server.features, target=endpoint,
        )  # fmt: skip
        self.endpoints.append(endpoint)
        self.instances.append(instance)
        self._fronts[endpoint.id] = Front(endpoint)
        self._tallies[endpoint.id] = [0, 0, 0, 0]

    def run(self, *, sample_s: float = 0.0) -> Run:
        """Runs it to its end: all work has ended, well or not. Called once.

        How things stand is noted every `sample_s` seconds, if that is not 0.
        """
        agenda = self.agenda
        for incident in self._incidents:
            agenda.enter(round(incident.from_s * SECOND), self._begin, incident)
            agenda.enter(round(incident.until_s * SECOND), self._end, incident)
        for work in self._workload.opening():
            self._expect(work)
        self._sample_ns = round(sample_s * SECOND)
        if self._sample_ns:
            agenda.enter(0, self._sample, None)
        agenda.run()
        while self._waiting:  # for ever, as nothing happens any more
            self._over(self._waiting.popleft(), OverloadedError("no endpoint can take it"))
        return Run(self._stories, self._loads(), self._samples, agenda.now_ns / SECOND)

    # --- the way of a piece of work

    def _expect(self, work: Work) -> None:
        self._open += 1
        self.agenda.enter(work.at_ns, self._arrive, work)

    def _arrive(self, work: Work) -> None:
        client = self._client
        if client.lengths_known:
            request = msgspec.structs.replace(work.request, output_tokens=work.output_tokens)
            work = msgspec.structs.replace(work, request=request)
        story = Story(len(self._stories), work)
        self._stories.append(story)
        if client.timeout_s:
            late_ns = self.agenda.now_ns + round(client.timeout_s * SECOND)
            self.agenda.enter(late_ns, self._late, story)
        self._send(story)

    def _send(self, story: Story) -> None:
        """Sends it to an endpoint, or lets it wait for one."""
        if self._waiting or not self._sent(story):
            self._waiting.append(story)
            self._wake()

    def _sent(self, story: Story) -> bool:
        request = story.work.request
        if story.tried:
            request = msgspec.structs.replace(request, avoid=story.tried)
        try:
            lease = self._fleet.lease(request)
        except OverloadedError:
            return False
        endpoint = lease.instance.target
        assert isinstance(endpoint, Endpoint)
        now_ns = self.agenda.now_ns
        story.sent_ns, story.endpoint = now_ns, endpoint.id
        story.attempts += 1
        refused = self._fronts[endpoint.id].refuses(now_ns)
        if refused is None:
            attempt = Attempt(story.work, story)
            self._under_way[story.number] = (endpoint, attempt, lease)
            endpoint.submit(attempt)
        else:
            error, after_ns = refused
            self.agenda.enter(now_ns + after_ns, self._refused, (story, lease, error))
        return True

    def _first(self, attempt: Attempt) -> None:
        story = attempt.story
        story.first_ns = self.agenda.now_ns
        self._under_way[story.number][2].first_token()

    def _done(self, attempt: Attempt) -> None:
        story = attempt.story
        _, _, lease = self._under_way.pop(story.number)
        tokens = attempt.tokens
        story.cached_tokens = tokens.cached_input
        lease.used(tokens)
        lease.release()
        tally = self._tallies[story.endpoint]
        tally[0] += 1
        tally[1] += tokens.input - tokens.cached_input
        tally[2] += tokens.cached_input
        tally[3] += tokens.output
        self._over(story, None)
        self._look_again()

    def _refused(self, what: tuple[Story, Lease, PacelineError]) -> None:
        story, lease, error = what
        lease.release(error)
        if not story.ended:
            story.tried |= {story.endpoint}
            if story.attempts <= self._client.retries:
                self._send(story)
            else:
                self._over(story, error)
        self._look_again()

    def _late(self, story: Story) -> None:
        """Its caller waits no longer."""
        if story.ended:
            return
        error = CallTimeoutError("the caller waits no longer")
        if story.number in self._under_way:
            endpoint, attempt, lease = self._under_way.pop(story.number)
            endpoint.cancel(attempt)
            lease.release(error)
        elif story in self._waiting:
            self._waiting.remove(story)
        self._over(story, error)
        self._look_again()

    def _over(self, story: Story, error: PacelineError | None) -> None:
        story.ended_ns = self.agenda.now_ns
        story.error = error
        if error is None:
            self._succeeded += 1
        else:
            self._failed += 1
        following = self._workload.after(story)
        if following is not None:
            self._expect(following)
        self._open -= 1
        if not self._open:
            self.agenda.stop()

    # --- those that wait

    def _look_again(self) -> None:
        """Sends what waits, in the order in which it came, as far as there is room."""
        while self._waiting and self._sent(self._waiting[0]):
            self._waiting.popleft()
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        """Looks again when time alone may have made room."""
        wake_ns = self._fleet.next_ns
        if wake_ns < min(self._wake_ns, NEVER):
            self._wake_ns = wake_ns
            self.agenda.enter(wake_ns, self._woken, wake_ns)

    def _woken(self, wake_ns: int) -> None:
        if wake_ns == self._wake_ns:
            self._wake_ns = NEVER
            self._look_again()

    # --- trouble, and what there is to see

    def _begin(self, incident: Incident) -> None:
        for endpoint in self._meant(incident):
            self._fronts[endpoint.id].begin(incident)
            if incident.trouble is Trouble.DOWN:
                for attempt in endpoint.drop():
                    _, _, lease = self._under_way.pop(attempt.story.number)
                    self._refused((attempt.story, lease, lost(endpoint.id)))

    def _end(self, incident: Incident) -> None:
        for endpoint in self._meant(incident):
            self._fronts[endpoint.id].end(incident)

    def _meant(self, incident: Incident) -> list[Endpoint]:
        return [each for each in self.endpoints if incident.endpoint in {"", each.id}]

    def _sample(self, _: None) -> None:
        agenda = self.agenda
        self._samples.append(
            Sample(
                agenda.now_ns / SECOND,
                len(self._waiting),
                self._succeeded,
                self._failed,
                tuple([instance.in_flight for instance in self.instances]),
                tuple([endpoint.queued for endpoint in self.endpoints]),
                tuple([instance.limit for instance in self.instances]),
                tuple([instance.shortage is None for instance in self.instances]),
            )
        )
        if agenda:
            agenda.enter(agenda.now_ns + self._sample_ns, self._sample, None)

    def _loads(self) -> list[Load]:
        span_ns = max(1, self.agenda.now_ns)
        loads: list[Load] = []
        for endpoint in self.endpoints:
            succeeded, read, cached, answered = self._tallies[endpoint.id]
            busy = endpoint.busy_ns / span_ns
            loads.append(Load(endpoint.id, succeeded, read, cached, answered, busy))
        return loads
