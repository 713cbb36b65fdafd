"""Alerts sent by HTTP to a real server: Alertmanager's form, Discord's, Slack's; no secret shown."""

import asyncio
import logging
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, final

import aiohttp
import msgspec
import pytest
from aiohttp import web

from paceline.errors import Category, ConfigError, PacelineError
from paceline.metrics.alerts import forms
from paceline.metrics.alerts.alert import Alert, Status
from paceline.metrics.alerts.delivery import Delivery
from paceline.metrics.alerts.machine import Evaluation
from paceline.metrics.alerts.rules import Condition, Per, Rule
from paceline.metrics.alerts.watch import AlertWatch, Pace
from paceline.metrics.alerts.webhook import WebhookSink
from paceline.redaction import Secret
from paceline.retry_after import LONGEST_S
from paceline.testing.virtual_time import VirtualClock
from tests.alert_figures import EPOCH_NS, loaded

TOKEN: Final = "tok-4f9a8b7c6d5e4f3a"
PATH: Final = f"/api/webhooks/123456789/{TOKEN}"


class Still:
    """A clock that stands at 2023-11-14 22:13:20 UTC."""

    def monotonic_ns(self) -> int:
        return 0

    def wall_ns(self) -> int:
        return EPOCH_NS


CLOCK: Final = Still()
LATER: Final = "Tue, 14 Nov 2023 22:14:20 GMT"


def alert(rule: str = "LatencyHigh", agent: str = "web", status: Status = Status.FIRING) -> Alert:
    """An alert about an agent."""
    return Alert(
        rule=rule,
        severity="warning",
        status=status,
        labels={"alertname": rule, "severity": "warning", "agent": agent},
        annotations={"summary": "Calls are slow.", "description": "p95_ms is 1,200 ms"},
        value=1_200.0,
        starts_ns=EPOCH_NS + 123_456_789,
        ends_ns=EPOCH_NS + 60 * 10**9 if status is Status.RESOLVED else None,
    )


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """One alert of Alertmanager's webhook."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    startsAt: str  # noqa: N815 (the names of the form)
    endsAt: str  # noqa: N815
    generatorURL: str  # noqa: N815
    fingerprint: str


class Webhook(msgspec.Struct, forbid_unknown_fields=True):
    """Alertmanager's webhook, version 4, as a receiver declares it: all fields, no others."""

    version: str
    groupKey: str  # noqa: N815
    truncatedAlerts: int  # noqa: N815
    status: str
    receiver: str
    groupLabels: dict[str, str]  # noqa: N815
    commonLabels: dict[str, str]  # noqa: N815
    commonAnnotations: dict[str, str]  # noqa: N815
    externalURL: str  # noqa: N815
    alerts: list[Label]


@final
class Receiver:
    """A server that notes what it gets and answers what it is told to."""

    def __init__(self, *answers: web.Response | float) -> None:
        """Answers in turn, or seconds to say nothing; then 204."""
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.port = 0
        self.released = asyncio.Event()
        self.got = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.got.set()
        answer = self.answers.pop(0) if self.answers else web.Response(status=204)
        if isinstance(answer, float):
            await self.released.wait()
            return web.Response(status=204)
        return answer

    @property
    def url(self) -> Secret:
        return Secret(f"http://127.0.0.1:{self.port}{PATH}")

    def decoded(self) -> list[Any]:
        """The bodies as data."""
        return [msgspec.json.decode(body) for body in self.bodies]


@asynccontextmanager
async def receiving(*answers: web.Response | float) -> AsyncIterator[Receiver]:
    """A receiver on a free port of the loopback."""
    receiver = Receiver(*answers)
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        receiver.released.set()
        await runner.cleanup()


async def refused(sink: WebhookSink) -> PacelineError:
    """The error of a sending that fails."""
    try:
        with pytest.raises(PacelineError) as caught:
            await sink.send([alert()])
    finally:
        await sink.close()
    return caught.value


def sayings(error: BaseException) -> str:
    """All that an error could ever show, its causes and their attributes included."""
    parts: list[str] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        parts += [str(one), repr(one), repr(vars(one)), repr(one.args)]
        parts += traceback.format_exception(one)
        waiting += [one.__cause__, one.__context__]
    return "\n".join(parts)


async def test_alertmanagers_form() -> None:
    """A receiver of Alertmanager's webhook, version 4, reads what we send: all its fields and no
    others, one group for each rule, moments as RFC 3339, no end while it fires. (S0-73)"""
    given = [
        alert(agent="a"),
        alert("SuccessRateLow"),
        alert(agent="b", status=Status.RESOLVED),
    ]
    async with receiving() as receiver:
        sink = WebhookSink(
            "webhook", receiver.url, forms.alertmanager, clock=CLOCK, token=Secret("bearing")
        )
        await sink.send(given)
        await sink.close()
    first, second = [msgspec.json.decode(body, type=Webhook) for body in receiver.bodies]
    assert (first.version, first.truncatedAlerts) == ("4", 0)
    assert first.groupKey == '{}:{alertname="LatencyHigh"}'
    assert first.groupLabels == {"alertname": "LatencyHigh"}
    assert first.commonLabels == {"alertname": "LatencyHigh", "severity": "warning"}
    assert first.commonAnnotations == given[0].annotations
    assert (first.status, second.status) == ("firing", "firing")
    assert [(one.status, one.labels["agent"], one.endsAt) for one in first.alerts] == [
        ("firing", "a", "0001-01-01T00:00:00Z"),
        ("resolved", "b", "2023-11-14T22:14:20.000Z"),
    ]
    assert first.alerts[0].startsAt == "2023-11-14T22:13:20.123Z"
    assert [one.fingerprint for one in first.alerts] == [given[0].fingerprint, given[2].fingerprint]
    request = receiver.requests[0]
    assert request.content_type == "application/json"
    assert request.headers["Authorization"] == "Bearer bearing"


async def test_a_group_that_is_over() -> None:
    """A group is resolved once all of it is. (S0-73)"""
    async with receiving() as receiver:
        sink = WebhookSink("webhook", receiver.url, forms.alertmanager, clock=CLOCK)
        await sink.send([alert(status=Status.RESOLVED)])
        await sink.close()
    assert receiver.decoded()[0]["status"] == "resolved"
    assert "Authorization" not in receiver.requests[0].headers


@pytest.mark.parametrize("form", [forms.discord, forms.slack], ids=["discord", "slack"])
async def test_chats(form: forms.Form) -> None:
    """Discord and Slack get each alert with its rule, agent and figures, and mention nobody,
    whatever an agent is called. (S0-73)"""
    bad = "<!channel> @everyone <@1> & co"
    async with receiving(web.Response(text="ok")) as receiver:
        sink = WebhookSink("chat", receiver.url, form, clock=CLOCK)
        await sink.send([alert(agent=bad), alert(status=Status.RESOLVED)])
        await sink.close()
    (body,) = receiver.decoded()
    if form is forms.slack:
        texts = [block["text"]["text"] for block in body["blocks"]]
        assert [block["type"] for block in body["blocks"]] == ["section", "section"]
        assert "<" not in "".join([*texts, body["text"]])
        assert "&lt;!channel&gt; @everyone &lt;@1&gt; &amp; co" in texts[0]
        assert body["text"].startswith("FIRING: LatencyHigh")
    else:
        assert body["allowed_mentions"] == {"parse": []}
        assert "content" not in body
        texts = [f"{one['title']} {one['description']} {one['fields']}" for one in body["embeds"]]
        assert body["embeds"][0]["color"] != body["embeds"][1]["color"]
        assert body["embeds"][1]["timestamp"] == "2023-11-14T22:14:20.000Z"
    assert "FIRING: LatencyHigh" in texts[0]
    assert "p95_ms is 1,200 ms" in texts[0]
    assert "RESOLVED: LatencyHigh" in texts[1]


@pytest.mark.parametrize(
    ("status", "category", "again"),
    [
        (400, Category.INVALID, False),
        (401, Category.AUTHENTICATION, False),
        (403, Category.AUTHENTICATION, False),
        (404, Category.NOT_FOUND, False),
        (408, Category.UNAVAILABLE, True),
        (410, Category.NOT_FOUND, False),
        (429, Category.RATE_LIMIT, True),
        (500, Category.UNAVAILABLE, True),
        (503, Category.UNAVAILABLE, True),
    ],
)
async def test_refusals(status: int, category: Category, again: bool) -> None:
    """What is refused says why, in the words of the other side, and is tried again only where
    that can help. (S0-73)"""
    async with receiving(web.Response(status=status, text="no_service\x1b[2J")) as receiver:
        error = await refused(WebhookSink("slack", receiver.url, forms.slack, clock=CLOCK))
    assert (error.category, error.category.transient) == (category, again)
    assert f"slack (127.0.0.1:{receiver.port}) answered {status}: no_service" in str(error)
    assert "\x1b" not in str(error)
    assert "paceline alerts test --sink slack" in error.next_step


@pytest.mark.parametrize(
    ("answer", "asked_s"),
    [
        (lambda: web.Response(status=429, headers={"Retry-After": "7"}), 7.0),
        (lambda: web.json_response({"retry_after": 0.65, "global": False}, status=429), 0.65),
        (lambda: web.Response(status=503, headers={"Retry-After": LATER}), 60.0),
        (lambda: web.Response(status=503, headers={"Retry-After": "soon"}), None),
        (lambda: web.json_response({"retry_after": 1e9}, status=429), LONGEST_S),
        (lambda: web.json_response({"retry_after": -1}, status=429), None),
        (lambda: web.Response(status=429, text='{"a":' + "[" * 4_000), None),
        (lambda: web.Response(status=429, text="[1]"), None),
        (lambda: web.json_response({"retry_after": "nan"}, status=429), None),
        (lambda: web.Response(status=429, headers={"Retry-After": "-1"}), 0.0),
    ],
)
async def test_how_long_to_wait(answer: Callable[[], web.Response], asked_s: float | None) -> None:
    """How long the other side asks us to wait is read from the header, a date too, or from
    Discord's answer. (S0-73, E94)"""
    async with receiving(answer()) as receiver:
        error = await refused(WebhookSink("discord", receiver.url, forms.discord, clock=CLOCK))
    assert error.retry_after_s == asked_s


async def test_no_redirect() -> None:
    """A redirect is refused, not followed: it could carry alerts and token elsewhere. (S0-73)"""
    away = web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})
    async with receiving(away) as receiver:
        error = await refused(WebhookSink("webhook", receiver.url, forms.alertmanager, clock=CLOCK))
    assert error.category is Category.INVALID
    assert len(receiver.requests) == 1


async def _refusing(sink: Callable[[Secret], WebhookSink]) -> PacelineError:
    body = f"bad token {TOKEN} at {PATH} bearing-secret"
    async with receiving(web.Response(status=500, text=body)) as receiver:
        return await refused(sink(receiver.url))


async def _hanging(sink: Callable[[Secret], WebhookSink]) -> PacelineError:
    async with receiving(1.0) as receiver:
        return await refused(sink(receiver.url))


async def _closed(sink: Callable[[Secret], WebhookSink]) -> PacelineError:
    async with receiving() as receiver:
        url = receiver.url
    return await refused(sink(url))


async def _breaking(sink: Callable[[Secret], WebhookSink]) -> PacelineError:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await refused(sink(Secret(f"http://127.0.0.1:{port}{PATH}")))
    finally:
        server.close()
        await server.wait_closed()


async def _no_url(sink: Callable[[Secret], WebhookSink]) -> PacelineError:
    with pytest.raises(ConfigError) as caught:
        sink(Secret(f"http://[{TOKEN}"))
    return caught.value


Trouble = Callable[[Callable[[Secret], WebhookSink]], Awaitable[PacelineError]]


async def check_secrecy(trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the error nor anything behind it nor the log shows address or token."""

    def sink(url: Secret) -> WebhookSink:
        token = Secret("bearing-secret")
        return WebhookSink("discord", url, forms.discord, clock=CLOCK, token=token, timeout_s=0.2)

    with caplog.at_level(logging.DEBUG):
        error = await trouble(sink)
        logging.getLogger("paceline").warning("%s", error, exc_info=error)
    shown = sayings(error) + caplog.text
    for secret in (TOKEN, "123456789", "bearing-secret"):
        assert secret not in shown


TROUBLES: Final = (_refusing, _hanging, _closed, _breaking, _no_url)


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_no_secret_is_shown(trouble: Trouble, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, neither the error nor anything behind it, nor the log, shows the
    address beyond its host, or the token. (S0-73)"""
    await check_secrecy(trouble, caplog)


@pytest.mark.parametrize("bug", ["address in the message", "answer as it is", "cause kept"])
async def test_seeded_leaks_are_caught(
    bug: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of secrecy fails where a message, an answer or a cause holds the secret. (S0-73)"""
    as_it_is = WebhookSink._failed

    def failed(self: WebhookSink, what: str, *rest: Any) -> PacelineError:
        if bug == "answer as it is":
            return as_it_is(self, f"{what} {TOKEN}", *rest)
        error = as_it_is(self, what, *rest)
        if bug == "cause kept":
            error.__context__ = aiohttp.InvalidURL(self._url.reveal())
            return error
        return PacelineError(f"{error} {self._url.reveal()}")

    monkeypatch.setattr(WebhookSink, "_failed", failed)
    with pytest.raises(AssertionError):
        await check_secrecy(_refusing, caplog)


async def test_brought_again() -> None:
    """Alerts that a server refuses for a while arrive when it takes them, once each. (S0-73)"""

    class Now(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return 0.0

    busy = [web.Response(status=503) for _ in range(3)]
    async with receiving(*busy) as receiver:
        sink = WebhookSink("webhook", receiver.url, forms.alertmanager, clock=CLOCK)
        one = Delivery(sink, rng=Now())
        task = asyncio.create_task(one.run())
        one.offer([alert()])
        async with asyncio.timeout(20):
            await one.idle()
        task.cancel()
        await sink.close()
    assert (one.sent, one.retries, len(receiver.bodies)) == (1, 3, 4)


async def test_from_figures_to_the_receiver() -> None:
    """A watch tells a real receiver that an alert fires and, closed, that it is resolved, under
    one fingerprint. (S0-73, K-02)"""
    full = Rule(name="Full", conditions=(Condition(metric="load", above=0.8),), per=Per.INSTANCE)
    loads = [0.9]

    async def inline(work: Callable[[], Evaluation]) -> Evaluation:
        return work()

    async with receiving() as receiver:
        sink = WebhookSink("webhook", receiver.url, forms.alertmanager, clock=CLOCK)
        watch = AlertWatch(
            [full],
            lambda: loaded(loads[-1]),
            [sink],
            clock=VirtualClock(),
            pace=Pace(interval_s=0.01, drain_s=20),
            rng=random.Random(1),
        )
        watch.elsewhere = inline
        async with watch:
            await asyncio.wait_for(receiver.got.wait(), 20)
            loads.append(0.1)
    fired, over = [msgspec.json.decode(body, type=Webhook) for body in receiver.bodies]
    assert (fired.status, over.status) == ("firing", "resolved")
    assert fired.alerts[0].fingerprint == over.alerts[0].fingerprint
    assert fired.alerts[0].labels["instance"] == "one"
