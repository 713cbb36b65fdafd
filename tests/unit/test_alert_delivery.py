"""Bringing alerts to a sink, and the watch that does: in the background, bounded, to the end."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import final

import msgspec
import pytest

from paceline.errors import Category, ConfigError, PacelineError, RuntimeClosedError
from paceline.metrics.alerts.alert import Alert, Silence, Status
from paceline.metrics.alerts.connected import sinks_of, watch_of
from paceline.metrics.alerts.defaults import DEFAULT_RULES
from paceline.metrics.alerts.delivery import Delivery
from paceline.metrics.alerts.machine import Evaluation, Phase
from paceline.metrics.alerts.rules import Condition, Per, Rule
from paceline.metrics.alerts.sinks import CallbackSink, LogSink, Sink
from paceline.metrics.alerts.watch import AlertWatch, Pace
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Snapshot
from paceline.settings import AlertSettings
from paceline.testing.virtual_time import VirtualClock, run
from tests.alert_figures import EPOCH_NS, loaded

FULL = Rule(name="Full", conditions=(Condition(metric="load", above=0.8),), per=Per.INSTANCE)
DOWN = PacelineError("down", category=Category.UNAVAILABLE)


def alert(number: int = 0, status: Status = Status.FIRING) -> Alert:
    """One of many."""
    return Alert(
        rule="Full",
        severity="warning",
        status=status,
        labels={"alertname": "Full", "number": str(number)},
        annotations={"summary": "full"},
        value=0.9,
        starts_ns=EPOCH_NS,
    )


@final
class Ear:
    """A sink that notes what it hears and when, and does what it is told to."""

    name = "ear"

    def __init__(self, *does: Exception | float | None) -> None:
        """One thing for each sending: an error, seconds to take, or nothing."""
        self.does = list(does)
        self.heard: list[tuple[float, list[Alert]]] = []
        self.tries: list[float] = []
        self.closed = 0

    async def send(self, alerts: Sequence[Alert]) -> None:
        loop = asyncio.get_running_loop()
        self.tries.append(loop.time())
        does = self.does.pop(0) if self.does else None
        if isinstance(does, Exception):
            raise does
        await asyncio.sleep(does or 0)
        self.heard.append((loop.time(), list(alerts)))

    async def close(self) -> None:
        self.closed += 1

    @property
    def statuses(self) -> list[Status]:
        """Of all it heard."""
        return [one.status for _, alerts in self.heard for one in alerts]


@final
class Dice(random.Random):
    """Always the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def delivered(
    sink: Sink, *batches: Sequence[Alert], within_s: float = 1e5, **options: float
) -> Delivery:
    """A delivery after all of this was offered at once and is sent or given up."""
    lost: list[PacelineError] = []

    async def main() -> Delivery:
        one = Delivery(sink, rng=Dice(0), on_loss=lost.append, **options)  # type: ignore[arg-type]
        for batch in batches:
            one.offer(batch)
        task = asyncio.create_task(one.run())
        async with asyncio.timeout(within_s):
            await one.idle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return one

    one = run(main())
    assert bool(lost) == bool(one.dropped and one.retries + len(lost))
    return one


# -- one sink ------------------------------------------------------------------------------------


def check_retries(make: Callable[[Sink], Delivery]) -> None:
    """What fails is tried again after pauses that grow to a minute, until it is given up."""
    ear = Ear(*[DOWN] * 20)

    async def main() -> Delivery:
        one = make(ear)
        task = asyncio.create_task(one.run())
        one.offer([alert()])
        async with asyncio.timeout(1e4):
            await one.idle()
        task.cancel()
        return one

    one = run(main())
    pauses = [round(b - a) for a, b in zip(ear.tries, ear.tries[1:], strict=False)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60]
    assert (one.sent, one.dropped, one.retries, one.waiting) == (0, 1, 7, 0)


def test_retries() -> None:
    """A sink that fails is tried again with pauses of up to 1, 2, 4, ... 60 s, eight times in all,
    then the alerts are given up and counted. (S0-73)"""
    check_retries(lambda sink: Delivery(sink, rng=Dice(0), on_loss=lambda _: None))


def test_pauses_are_drawn() -> None:
    """Pauses are drawn from zero to their bound, so that many processes do not try at once.
    (S0-73)"""
    ear = Ear(*[DOWN] * 20)

    async def main() -> None:
        one = Delivery(ear, rng=random.Random(7), on_loss=lambda _: None)
        one.offer([alert()])
        task = asyncio.create_task(one.run())
        await one.idle()
        task.cancel()

    run(main())
    pauses = [b - a for a, b in zip(ear.tries, ear.tries[1:], strict=False)]
    assert all(0 <= p <= 2**n for n, p in enumerate(pauses))
    assert len({round(p / 2**n, 6) for n, p in enumerate(pauses)}) == len(pauses)


@pytest.mark.parametrize(
    "bug",
    [
        lambda sink: Delivery(sink, rng=Dice(0), attempts=1, on_loss=lambda _: None),
        lambda sink: Delivery(sink, rng=_Zero(0), on_loss=lambda _: None),
        lambda sink: _hurried(Delivery(sink, rng=Dice(0), on_loss=lambda _: None)),
    ],
    ids=["tries once", "tries without a pause", "pauses do not grow"],
)
def test_seeded_bugs_in_retries_are_caught(bug: Callable[[Sink], Delivery]) -> None:
    """The check of retries fails on each of these bugs. (S0-73)"""
    with pytest.raises(AssertionError):
        check_retries(bug)


class _Zero(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return a


def _hurried(one: Delivery) -> Delivery:
    """With pauses of a second, always."""
    as_it_is = one._pause_s

    def pause_s(failure: PacelineError, attempt: int) -> float | None:
        return None if as_it_is(failure, attempt) is None else 1.0

    one._pause_s = pause_s  # type: ignore[method-assign]
    return one


def test_it_waits_as_long_as_asked() -> None:
    """The pause is never shorter than the other side asks for; asked for more than a quarter of an
    hour, we give up. (S0-73)"""
    limited = PacelineError("slow down", category=Category.RATE_LIMIT, retry_after_s=42.5)
    ear = Ear(limited)
    assert delivered(ear, [alert()]).sent == 1
    assert ear.tries[1] - ear.tries[0] == pytest.approx(42.5)
    for_long = PacelineError("come tomorrow", category=Category.RATE_LIMIT, retry_after_s=86_400)
    assert delivered(Ear(for_long), [alert()]).dropped == 1


def test_what_will_not_pass_is_not_tried_again() -> None:
    """A refusal that will not pass by itself is given up at once. (S0-73)"""
    ear = Ear(PacelineError("no such channel", category=Category.NOT_FOUND))
    one = delivered(ear, [alert()])
    assert (one.dropped, len(ear.tries)) == (1, 1)


@pytest.mark.parametrize("does", [ValueError("x"), 1e6, asyncio.CancelledError()])
def test_any_failure_is_tried_again(does: Exception | float) -> None:
    """Whatever a sink raises, and if it hangs or is cancelled within, the alerts are sent again.
    (S0-73)"""
    ear = Ear(does)
    one = Ear(does)
    assert delivered(ear, [alert()]).sent == 1

    async def plain() -> None:
        async def told(alerts: Sequence[Alert]) -> None:
            await one.send(alerts)

        delivery = Delivery(CallbackSink(told), rng=Dice(0))
        delivery.offer([alert()])
        task = asyncio.create_task(delivery.run())
        await delivery.idle()
        task.cancel()

    run(plain())
    assert len(one.heard) == 1


def test_only_the_latest_state_is_told() -> None:
    """Of an alert that changes before it could be told, and between two attempts, only what it is
    then is told. (S0-73)"""
    ear = Ear()
    delivered(ear, [alert()], [alert(status=Status.RESOLVED)])
    assert ear.statuses == [Status.RESOLVED]

    again = Ear(DOWN)

    async def main() -> None:
        one = Delivery(again, rng=Dice(0))
        task = asyncio.create_task(one.run())
        one.offer([alert(1), alert(2)])
        await asyncio.sleep(0.5)
        one.offer([alert(1, Status.RESOLVED), alert(3)])
        await one.idle()
        task.cancel()

    run(main())
    (_, second), (_, third) = again.heard
    assert [(a.labels["number"], a.status) for a in (*second, *third)] == [
        ("1", Status.RESOLVED),
        ("2", Status.FIRING),
        ("3", Status.FIRING),
    ]


def test_the_queue_is_bounded() -> None:
    """Of more alerts than the queue takes, the oldest are dropped and counted. (S0-73)"""
    ear = Ear()
    one = delivered(ear, [alert(n) for n in range(250)], max_waiting=150)
    assert (one.sent, one.dropped) == (150, 100)
    assert next(a.labels["number"] for _, alerts in ear.heard for a in alerts) == "100"


def test_messages_without_secrets() -> None:
    """What a sink raises is not repeated in the log: it could hold a secret. (S0-73)"""
    lost: list[PacelineError] = []
    ear = Ear(*[ValueError("https://x/secret")] * 9)

    async def main() -> None:
        one = Delivery(ear, rng=Dice(0), on_loss=lost.append)
        one.offer([alert()])
        task = asyncio.create_task(one.run())
        await one.idle()
        task.cancel()

    run(main())
    assert str(lost[0]).endswith("the last: the alert sink ear raised ValueError")
    assert lost[0].__cause__ is None


def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The log gets one line for each alert, whatever names hold: critical as an error, warnings as
    such, all else as information. (S0-73)"""
    odd = msgspec.structs.replace(alert(), labels={"alertname": "Full", "agent": "a\nb"})
    critical = msgspec.structs.replace(odd, severity="critical")
    with caplog.at_level(logging.INFO, "paceline"):
        run(LogSink().send([critical, odd, alert(status=Status.RESOLVED)]))
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.ERROR, logging.WARNING, logging.INFO]
    assert caplog.messages[0].startswith("alert firing: {agent=a b, alertname=Full} full")
    assert not any("\n" in message for message in caplog.messages)


def test_a_plain_callback() -> None:
    """A plain function may be told as well as a coroutine function. (S0-73)"""
    heard: list[Sequence[Alert]] = []
    delivered(CallbackSink(heard.append), [alert()])
    assert len(heard) == 1


# -- the watch -----------------------------------------------------------------------------------


@final
class Loads:
    """Figures that a test moves."""

    def __init__(self, load: float) -> None:
        self.load = load
        self.clock = VirtualClock()
        self.fails = False
        self.reads = 0

    def read(self) -> Snapshot:
        self.reads += 1
        if self.fails:
            raise ValueError("no figures")
        return loaded(self.load, self.clock.monotonic_ns() / 1e9)


async def inline(work: Callable[[], Evaluation]) -> Evaluation:
    """Time stands still for threads here."""
    return work()


def watching(
    loads: Loads, *sinks: Sink, rules: Sequence[Rule] = (FULL,), **pace: float
) -> AlertWatch:
    """A watch in virtual time."""
    watch = AlertWatch(
        rules, loads.read, sinks, clock=loads.clock, pace=Pace(**pace), rng=random.Random(1)
    )
    watch.elsewhere = inline
    return watch


def test_it_looks_every_so_often() -> None:
    """A watch looks every `interval_s`, and tells all sinks of what begins and what
    ends. (S0-73)"""
    loads, ear, other = Loads(0.9), Ear(), Ear()

    async def main() -> None:
        async with watching(loads, ear, other, interval_s=15) as watch:
            await asyncio.sleep(31)
            assert loads.reads == 2
            assert [one.phase for one in watch.standings] == [Phase.FIRING]
            loads.load = 0.1
            await asyncio.sleep(15)
            assert not watch.standings

    run(main())
    for one in (ear, other):
        assert one.statuses == [Status.FIRING, Status.RESOLVED]
        assert [round(at) for at, _ in one.heard] == [15, 45]
        assert one.closed == 1


def test_a_sink_that_hangs_holds_nobody_up() -> None:
    """A sink that hangs holds up neither looks nor other sinks. (S0-73)"""
    loads, hanging, ear = Loads(0.9), Ear(*[1e9] * 99), Ear()

    async def main() -> None:
        async with watching(loads, hanging, ear, interval_s=10, drain_s=1):
            await asyncio.sleep(100.5)
            assert loads.reads == 10

    run(main())
    assert ear.heard[0][0] == pytest.approx(10)
    assert not hanging.heard


def test_a_look_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Looks that raise are counted and logged, in a row once, and the next is made all the same.
    (S0-73)"""
    loads = Loads(0.9)

    async def main() -> AlertWatch:
        async with watching(loads, interval_s=10) as watch:
            loads.fails = True
            await asyncio.sleep(25)
            assert watch.failures == 2
            loads.fails = False
            await asyncio.sleep(10)
            assert watch.standings
            return watch

    assert run(main()).failures == 2
    assert caplog.messages.count("alerts were not evaluated") == 1


def test_closing_tells_what_is_over() -> None:
    """Closing looks a last time and sends what is still to be told; what goes on is not called
    resolved. (S0-73)"""
    for load, expected in ((0.1, [Status.FIRING, Status.RESOLVED]), (0.9, [Status.FIRING])):
        loads, ear = Loads(0.9), Ear(None, 2.0)

        async def main(loads: Loads = loads, ear: Ear = ear, load: float = load) -> float:
            async with watching(loads, ear, interval_s=100, drain_s=5):
                await asyncio.sleep(101)
                loads.load = load
            return asyncio.get_running_loop().time()

        assert run(main()) < 104
        assert ear.statuses == expected


def test_closing_is_bounded() -> None:
    """Closing waits no longer than `drain_s` for a sink that hangs, and leaves no task behind.
    (S0-73)"""
    loads, ear = Loads(0.9), Ear(*[1e9] * 9)

    async def main() -> float:
        async with watching(loads, ear, interval_s=100, drain_s=5):
            await asyncio.sleep(101)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(106, abs=0.1)
    assert ear.closed == 1


def test_closing_in_the_middle_of_an_error() -> None:
    """An error inside the watch's block is not hidden by closing, and the sinks are closed.
    (S0-73)"""
    ear = Ear()

    async def main() -> None:
        async with watching(Loads(0.9), ear):
            raise KeyError("ours")

    with pytest.raises(KeyError):
        run(main())
    assert ear.closed == 1


def test_figures_are_read_on_another_thread() -> None:
    """Figures are read and judged off the event loop, where calls run. (S0-73)"""
    import threading

    where: list[int] = []

    def read() -> Snapshot:
        where.append(threading.get_ident())
        return loaded(0.9)

    async def main() -> None:
        async with AlertWatch([FULL], read, clock=VirtualClock(), rng=Dice(0)) as watch:
            assert await watch.look()

    asyncio.run(main())
    assert where
    assert threading.get_ident() not in where


def test_opened_once() -> None:
    """A watch is opened once only, and two rules of one name are refused. (S0-73)"""

    async def main() -> None:
        watch = watching(Loads(0.1))
        async with watch:
            pass
        with pytest.raises(RuntimeClosedError):
            await watch.__aenter__()

    run(main())
    with pytest.raises(ConfigError, match="two alert rules"):
        watching(Loads(0.1), rules=[FULL, FULL])


def test_silences_may_change() -> None:
    """Silences take effect at the next look. (S0-73)"""
    loads, ear = Loads(0.1), Ear()

    async def main() -> None:
        async with watching(loads, ear, interval_s=10) as watch:
            watch.silences = (Silence(until_ns=EPOCH_NS + 25 * 10**9),)
            loads.load = 0.9
            await asyncio.sleep(60)

    run(main())
    assert [round(at) for at, _ in ear.heard] == [30]


def test_the_default_rules_on_a_live_collector() -> None:
    """Over the figures of real calls the default rules tell of an agent that is slow and then
    fails, when they have held for their time, and that both are over; a healthy agent beside it
    raises nothing. (K-02, S0-25, S0-73)"""
    clock, ear = VirtualClock(), Ear()
    collector = MetricsCollector(clock=clock)

    async def minutes(count: int, seconds: float, *, success: bool = True) -> None:
        for _ in range(count * 15):
            await asyncio.sleep(4)
            collector.record_execution("well", 0.05, success=True)
            collector.record_execution("ill", seconds, success=success)

    async def main() -> None:
        watch = AlertWatch(DEFAULT_RULES, collector.snapshot, [ear], clock=clock, rng=Dice(0))
        watch.elsewhere = inline
        async with watch:
            await minutes(10, 0.4)
            assert not ear.heard
            await minutes(10, 1.5)
            await minutes(10, 0.4, success=False)
            await minutes(10, 0.4)

    run(main())
    told = [
        (one.rule, one.labels["agent"], one.status) for _, alerts in ear.heard for one in alerts
    ]
    assert told == [
        ("LatencyHigh", "ill", Status.FIRING),
        ("SuccessRateLow", "ill", Status.FIRING),
        ("LatencyHigh", "ill", Status.RESOLVED),
        ("SuccessRateLow", "ill", Status.RESOLVED),
    ]
    first = ear.heard[0][0] / 60
    assert 12 <= first <= 13  # two minutes of for_s after the first minute or less


def test_of_settings() -> None:
    """The settings make a watch of their rules, silences and sinks; without an address nothing is
    sent anywhere. (S0-73)"""
    assert [one.name for one in sinks_of(AlertSettings(), VirtualClock())] == ["log"]
    full = AlertSettings(
        log=False,
        webhook_url="http://127.0.0.1:9/hook",
        discord_url="https://discord.com/api/webhooks/1/abcdefgh",
        slack_url="https://hooks.slack.com/services/T/B/abcdefgh",
    )
    assert [one.name for one in sinks_of(full, VirtualClock())] == ["webhook", "discord", "slack"]
    watch = watch_of(AlertSettings(), Loads(0.1).read, clock=VirtualClock(), rng=Dice(0))
    assert [rule.name for rule in watch.rules] == [rule.name for rule in DEFAULT_RULES]
    assert watch.dropped == 0
