"""The instances of a runtime's agents: made of the settings, watched, and taken down."""

import asyncio
import contextlib
import hashlib
import random
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, Protocol, cast, final

import msgspec

from paceline.agents.spec import AgentSpec
from paceline.balance.adaptive import Adaptive, Aimd, Gradient
from paceline.balance.balancer import LoadBalancer
from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.durations import Durations
from paceline.balance.fallback import Answer, fallbacks_of
from paceline.balance.health import Liveness, Outliers, SlowStart
from paceline.balance.hedging import Hedging
from paceline.balance.instance import AgentInstance, Guard
from paceline.balance.rate import Rates
from paceline.balance.request import Features, Request
from paceline.balance.strategy import LoadBalancingStrategy
from paceline.call import Call, Effect, EffectKind, Kind
from paceline.clock import Clock
from paceline.errors import (
    AgentError,
    ConfigError,
    PacelineError,
    RuntimeClosedError,
    UsageError,
)
from paceline.home import Home
from paceline.instances.protocol import Target
from paceline.instances.raised import raised
from paceline.path.dispatch import FleetDispatch, Nowhere
from paceline.path.job import Dispatch
from paceline.redaction import Redactor, Secret
from paceline.settings import FleetSettings, InstanceSettings, Settings

__all__ = ["Fleets"]

_NS: Final = 1_000_000_000
_PROBE_S: Final = 5.0
_LOOK_S: Final = 1.0
_FLEET: Final = "fleet"
"""The source of agents that are nothing but their instances."""


class _Local(Protocol):
    """Does a call here, by the module of its agent."""

    def __call__(self, call: Call, /) -> Awaitable[object]: ...


def _tokens_of(settings: Settings, environ: Mapping[str, str]) -> list[Secret]:
    """The tokens of all instances: what is shown nowhere."""
    names = {i.token_env for fleet in settings.fleets.values() for i in fleet.instances}
    return [Secret(environ[name]) for name in sorted(names) if environ.get(name)]


@final
class Fleets:
    """What spreads the calls of agents that have more than themselves to run them."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        rng: random.Random,
        environ: Mapping[str, str],
        local: _Local,
    ) -> None:
        """Nothing is opened yet. Raises ConfigError for instances that cannot be."""
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._environ = environ
        self._local = local
        self.balancer = LoadBalancer(
            clock=clock,
            rng=rng,
            max_queue=settings.run.max_queue,
            ageing_s=settings.balance.ageing_s,
        )
        self.tokens = _tokens_of(settings, environ)
        """What is to be shown nowhere."""
        self._outliers: dict[str, Outliers] = {}
        self.troubles: list[tuple[str, ConfigError]] = []
        """Instances that cannot be used, and why."""
        self._unusable: dict[str, ConfigError] = {}
        """The first of them of each fleet."""
        self._stated: list[tuple[AgentInstance, Target, SlowStart]] = []
        self._is_open = False
        self._notice: Callable[[str, PacelineError], object] = _nothing
        self._opened: dict[AgentInstance, list[Target]] = {}
        """The targets of each instance that are open: those it had before, and last its own."""
        self._dispatches: weakref.WeakSet[FleetDispatch] = weakref.WeakSet()
        self._watches: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        for name, fleet in settings.fleets.items():
            self._build(name, fleet)

    async def open(
        self,
        parts: contextlib.AsyncExitStack,
        home: Home | None,
        notice: Callable[[str, PacelineError], object],
    ) -> None:
        """Opens what the instances are, and looks after them until `parts` is closed; a second time
        it does nothing. Operators can look after them too, through `home`; `notice` is told if
        they cannot."""
        if self._is_open:
            return
        self._is_open, self._notice = True, notice
        parts.push_async_callback(self._close)
        for what, trouble in self.troubles:
            notice(what, trouble)
        for instance, target, ease in self._stated:
            await target.__aenter__()
            self._opened[instance] = [target]
            self._begin(instance, ease)
        if home is not None:
            from paceline.roster import Roster, following  # noqa: PLC0415 (a database)

            await parts.enter_async_context(
                following(
                    Roster(home.roster, self._clock),
                    self.balancer,
                    self._clock,
                    notice=lambda exc: notice("the roster of instances", exc),
                )
            )

    async def add(self, instance: AgentInstance) -> None:
        """Opens and registers an instance that is made elsewhere. It gets the usual guards, unless
        it has some. Its target is closed when it is unregistered, or has another one, and the work
        of before has ended. Raises UsageError for one without a target, RuntimeClosedError."""
        target, name = instance.target, instance.agent_type
        if not isinstance(target, Target):
            if target is None:
                raise UsageError(
                    f"instance {instance.id} of {name} has no target that does the work",
                    next_step="Make it with target=..., such as one of paceline.instances.",
                )
            raise UsageError(
                f"the target of instance {instance.id} of {name} is of type "
                f"{type(target).__name__}, which cannot do the work of an instance",
                next_step="Take one of paceline.instances: FunctionTarget.of(function, "
                "clock=SystemClock()), HttpAgent(url, clock=SystemClock()).",
            )
        if not self._is_open:
            raise RuntimeClosedError("the runtime is not open")
        fleet = self._settings.fleets.get(name, FleetSettings())
        known = {other.id: other for other in self.balancer.instances.get(name, ())}
        before = known.get(instance.id)
        if before is None or before.target is not target:
            await target.__aenter__()
            self._opened.setdefault(before or instance, []).append(target)
        if before is not None:  # the same, said anew: what is known of it stays
            instance.guards = before.guards
            self.balancer.register(instance)
            return
        ease = None
        if not instance.guards:
            ease = self._guard(instance, fleet, Rates(self._clock))
        self.balancer.register(instance)
        self._begin(instance, ease)
        if not known:
            self.balancer.set_strategy(name, _strategy(fleet))

    def _begin(self, instance: AgentInstance, ease: SlowStart | None) -> None:
        """Looks after an instance from now on, as long as it is registered."""
        interval_s = self._settings.balance.health_interval_s
        back = ease.begin if ease is not None else _nothing
        liveness = Liveness(instance, self._rng, interval_s=interval_s, back=back)
        task = asyncio.create_task(self._look_after(liveness, instance))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _close(self) -> None:
        """Closes all that is open, what was opened last first, when nothing uses it any more."""
        self._is_open = False
        await asyncio.gather(*[dispatch.close() for dispatch in self._dispatches])
        watches = list(self._watches)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await asyncio.gather(*self._closing)
        async with contextlib.AsyncExitStack() as targets:
            for opened in self._opened.values():
                for target in opened:
                    targets.push_async_exit(target)

    def examine(
        self, there: Collection[str], notice: Callable[[str, PacelineError], object]
    ) -> None:
        """Tells `notice` of agents that the settings rely on and that are not `there`."""
        fleets = self._settings.fleets
        known = {*there, *(name for name, fleet in fleets.items() if fleet.instances)}
        for name, fleet in fleets.items():
            if name not in there and any(i.kind == "local" for i in fleet.instances):
                notice(f"fleets.{name}", _not_there(name, "it has a local instance"))
            for step in fallbacks_of(name, fleet.fallback):
                if step.answer is Answer.AGENT and step.value not in known:
                    notice(f"fleets.{name}", _not_there(step.value, f'its fallback is "{step}"'))

    def specs(self, there: Collection[str]) -> list[AgentSpec]:
        """Agents that are nothing but their instances: those that are not `there` otherwise."""
        return [
            _spec(name, fleet)
            for name, fleet in self._settings.fleets.items()
            if fleet.instances and name not in there
        ]

    def dispatch(self, spec: AgentSpec) -> Dispatch | None:
        """How the calls of an agent are spread; None for one that has no instances and does them
        itself."""
        if spec.name not in self.balancer.instances:
            trouble = self._unusable.get(spec.name)
            return Nowhere(spec.name, trouble) if trouble and spec.source == _FLEET else None
        balance = self._settings.balance
        fleet = self._settings.fleets.get(spec.name, FleetSettings())
        durations = Durations()
        dispatch = FleetDispatch(
            self.balancer.fleet(spec.name),
            self.balancer.line(spec.name),
            clock=self._clock,
            request_of=_request_of(fleet),
            shortest_s=balance.shortest_timeout_s,
            durations=durations,
            hedging=Hedging(durations, balance.hedge_share) if fleet.hedge else None,
            hide=Redactor(self.tokens).text,
        )
        self._dispatches.add(dispatch)
        return dispatch

    def _build(self, name: str, fleet: FleetSettings) -> None:
        """Registers the instances of one agent."""
        numbered = list(enumerate(fleet.instances, 1))
        # Not all of many processes that make a call or two are to begin at the same instance.
        self._rng.shuffle(numbered)
        for number, wanted in numbered:
            id_ = wanted.named(number)
            known = self.balancer.instances.get(name, ())
            if any(id_ == other.id for other in known):
                raise ConfigError(f"fleets.{name} has two instances with the id {id_}")
            rates = Rates(
                self._clock,
                requests=wanted.requests_per_minute or None,
                tokens=wanted.tokens_per_minute or None,
            )
            try:
                target = self._target(wanted, rates)
            except ConfigError as exc:  # it costs this instance, and nobody else
                self.troubles.append((f"instance {id_} of fleets.{name}", exc))
                self._unusable.setdefault(name, exc)
                continue
            instance = AgentInstance(
                id_,
                name,
                max_capacity=wanted.capacity,
                weight=wanted.weight,
                features=_features(wanted),
                target=target,
            )
            ease = self._guard(instance, fleet, rates)
            self.balancer.register(instance)
            self._stated.append((instance, target, ease))
        if name in self.balancer.instances:
            self.balancer.set_strategy(name, _strategy(fleet))

    def _guard(self, instance: AgentInstance, fleet: FleetSettings, rates: Rates) -> SlowStart:
        """Gives it all guards; the one returned is to be told when it is back."""
        outliers = self._outliers.setdefault(instance.agent_type, Outliers(self._clock))
        ease = SlowStart(instance, self._clock, self._settings.balance.slow_start_s)
        instance.guards = (
            *self._circuit(instance),
            outliers.watch(instance),
            ease,
            *_adaptive(fleet, instance),
            rates,
        )
        return ease

    def _circuit(self, instance: AgentInstance) -> tuple[Guard, ...]:
        balance = self._settings.balance
        if not balance.circuit_failures:
            return ()
        policy = CircuitPolicy(
            balance.circuit_failures, balance.circuit_wait_s, balance.circuit_longest_wait_s
        )
        name = f"instance {instance.id} of {instance.agent_type}"
        return (Circuit(name, self._clock, policy, rng=self._rng),)

    def _target(self, wanted: InstanceSettings, rates: Rates) -> Target:
        """What does the work; each kind loads what it needs only if it is wanted."""
        if wanted.kind == "local":
            from paceline.instances.function import FunctionTarget  # noqa: PLC0415

            return FunctionTarget(self._local, clock=self._clock)
        if wanted.kind == "worker":
            from paceline.instances.worker import Worker  # noqa: PLC0415

            return Worker(
                _given(wanted, "function"),
                clock=self._clock,
                rng=self._rng,
                environ=self._environ,
                env={name: self._environ[name] for name in wanted.env if name in self._environ},
                capacity=wanted.capacity,
                memory_mb=wanted.memory_mb,
            )
        url, token = _given(wanted, "url"), self._token(wanted)
        if wanted.kind == "http":
            from paceline.instances.http import HttpAgent  # noqa: PLC0415

            return HttpAgent(url, clock=self._clock, token=token, rates=rates)
        from paceline.instances.openai import OpenAITarget  # noqa: PLC0415

        model = _given(wanted, "model")
        return OpenAITarget(url, model, clock=self._clock, token=token, rates=rates)

    def _token(self, wanted: InstanceSettings) -> Secret | None:
        if not wanted.token_env:
            return None
        if not wanted.token_env.isidentifier():  # not shown: it may be the token itself
            raise ConfigError(
                "its token_env is not the name of an environment variable",
                next_step="Put the token into a variable, and the name of that here.",
            )
        token = self._environ.get(wanted.token_env)
        if not token:
            raise ConfigError(
                f"the environment variable {wanted.token_env} is not set",
                next_step="Set it to the token, or leave token_env out.",
            )
        return Secret(token)

    async def _look_after(self, liveness: Liveness, instance: AgentInstance) -> None:
        """Probes an instance while it is registered, and closes its targets when nothing uses them
        any more. Nobody tells of either: it looks every second."""
        due_ns = self._clock.monotonic_ns() + self._rng.uniform(0, liveness.pause_s()) * _NS
        while True:
            left_s = (due_ns - self._clock.monotonic_ns()) / _NS
            await asyncio.sleep(min(max(0.0, left_s), _LOOK_S))
            registered = instance.watcher is not None
            if instance.in_flight <= instance.held_elsewhere:
                self._release(instance, -1 if registered else None)
                if not registered:
                    return
            if self._clock.monotonic_ns() < due_ns:
                continue
            if registered:
                target = cast("Target", instance.target)  # which may be another one by now
                try:
                    async with asyncio.timeout(_PROBE_S):
                        await target.probe()
                except (PacelineError, TimeoutError):
                    liveness.checked(there=False)
                else:
                    liveness.checked(there=True)
            due_ns = self._clock.monotonic_ns() + liveness.pause_s() * _NS

    def _release(self, instance: AgentInstance, end: int | None) -> None:
        """Has the targets of an instance closed, up to that index."""
        opened = self._opened.get(instance, [])
        unused = opened[:end]
        del opened[:end]
        if not opened:
            self._opened.pop(instance, None)
        used = [one.target for ones in self.balancer.instances.values() for one in ones]
        for target in unused:
            if not any(target is one for one in used):  # it may have been registered again
                task = asyncio.create_task(self._shut(instance, target))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def _shut(self, instance: AgentInstance, target: Target) -> None:
        try:
            await target.__aexit__(None, None, None)
        except Exception as exc:  # noqa: BLE001 (nobody waits for it: it is told)
            what = f"instance {instance.id} of {instance.agent_type}"
            self._notice(what, raised("closing it", exc))


def _not_there(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"{why}, and there is no agent {name}",
        next_step=f"Add a module {name}, or register the agent before it is called.",
    )


def _spec(name: str, fleet: FleetSettings) -> AgentSpec:
    kind = EffectKind(fleet.effect)
    what = msgspec.json.encode([(i.kind, i.url, i.model, i.function) for i in fleet.instances])
    return AgentSpec(
        name=name,
        run=_only_at_instances,
        description=fleet.description,
        version=hashlib.sha256(what).hexdigest()[:12],  # other models, other results
        is_async=True,
        accepts=None,
        effect=Effect(kind),
        cacheable=Effect(kind).repeatable,
        ttl_s=fleet.cache_ttl_s,
        timeout_s=fleet.timeout_s,
        kind=Kind.MODEL if _models(fleet) else Kind.AGENT,
        source=_FLEET,
    )


async def _only_at_instances(query: str, **_: object) -> object:  # noqa: ARG001 (agents have it)
    raise AgentError(
        "it is run by its instances only, and none of them can be used",
        next_step="`paceline doctor` says what is wrong with each.",
    )


def _strategy(fleet: FleetSettings) -> str:
    if fleet.strategy != "auto":
        return fleet.strategy
    if _models(fleet):
        return LoadBalancingStrategy.LEARNED_WORK
    return LoadBalancingStrategy.LEAST_LOADED


def _models(fleet: FleetSettings) -> bool:
    return any(i.kind == "openai" for i in fleet.instances)


def _request_of(fleet: FleetSettings) -> Callable[[Call], Request]:
    if _models(fleet):
        from paceline.instances.prompts import request_of  # noqa: PLC0415

        return request_of
    return _by_caller


def _by_caller(call: Call) -> Request:
    """Who comes again is best served where it was."""
    return Request(affinity=call.caller.session or call.caller.user or "")


def _features(wanted: InstanceSettings) -> Features:
    return Features(
        context_window=wanted.context_window,
        modalities=frozenset(wanted.modalities),
        labels=wanted.labels,
        zone=wanted.zone,
        version=wanted.version,
        input_usd=wanted.input_usd,
        output_usd=wanted.output_usd,
    )


def _adaptive(fleet: FleetSettings, instance: AgentInstance) -> tuple[Guard, ...]:
    most = instance.max_capacity
    if fleet.concurrency == "fixed" or not most:
        return ()
    limit = Gradient if fleet.concurrency == "gradient" else Aimd
    return (Adaptive(limit(most, largest=most)),)


def _given(wanted: InstanceSettings, key: str) -> str:
    value: str = getattr(wanted, key)
    if not value:
        raise ConfigError(f"it is of the kind {wanted.kind} and has no {key}")
    return value


def _nothing(*_: object) -> None: ...
