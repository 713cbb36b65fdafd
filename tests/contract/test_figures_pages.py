"""Pages of figures as JSON, over real HTTP."""

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import aiohttp
import pytest

from paceline.call import Kind, Source
from paceline.errors import Category, StorageError
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.export import endpoint as module
from paceline.metrics.export.endpoint import Endpoint
from paceline.metrics.export.pages import Content, Pages
from paceline.metrics.export.prometheus import Page
from paceline.metrics.figures import Ending, Snapshot
from paceline.metrics.performance import track_performance
from paceline.metrics.report import data
from paceline.metrics.span import Span
from tests.exported import WEIRD, busy, weird

MS = 1_000_000
SLOW = "/slow-operations"


class Hand:
    """A clock that a test moves by hand, whatever loop runs."""

    def __init__(self) -> None:
        self.at_ns = 0

    def monotonic_ns(self) -> int:
        return self.at_ns

    def wall_ns(self) -> int:
        return 1_700_000_000_000 * MS + self.at_ns

    def advance_ms(self, ms: int) -> None:
        self.at_ns += ms * MS


def pages_of(
    collector: MetricsCollector,
    *,
    read: Callable[[], Snapshot] | None = None,
    pause: Callable[[float], object] = lambda _: None,
) -> Pages:
    """Pages of a collector, on an instance that is half full."""
    return Pages(
        read or collector.snapshot,
        spans=collector.trace.spans,
        loads=lambda: {"local:1": 0.5},
        clock=collector.clock,
        version="1.2",
        pause=pause,
    )


def served(pages: Pages) -> Endpoint:
    return Endpoint(
        lambda _: Page(b"figures 1\n", "text/plain"),
        pages=pages,
        listen="127.0.0.1:0",
        hosts=["metrics.internal"],
    )


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that takes pages as they are."""
    plain = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(headers=plain, auto_decompress=False) as session:
        yield session


def base(endpoint: Endpoint) -> str:
    return endpoint.url.removesuffix("/metrics")


async def read(http: aiohttp.ClientSession, endpoint: Endpoint, path: str) -> dict[str, Any]:
    """What a page says."""
    async with http.get(base(endpoint) + path) as got:
        assert (got.status, got.headers["Content-Type"]) == (200, "application/json")
        assert got.headers["Cache-Control"] == "no-store"
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        content: dict[str, Any] = json.loads((await got.read()).decode())
        return content


async def test_health(http: aiohttp.ClientSession) -> None:
    """/health says that somebody answers, since when, which version it is and how full. (E-10)"""
    clock = Hand()
    async with served(pages_of(MetricsCollector(clock=clock))) as endpoint:
        clock.advance_ms(90_000)
        said = await read(http, endpoint, "/health")
    assert said.pop("at_s") == 1_700_000_090
    assert said == {"status": "ok", "version": "1.2", "uptime_s": 90, "loads": {"local:1": 0.5}}


async def test_health_waits_for_nobody(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While other pages are made, and no more of them may wait, /health answers. (E-10)"""
    monkeypatch.setattr(module, "_WAITING", 1)
    go, begun, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()
    collector = MetricsCollector()

    def held() -> Snapshot:
        loop.call_soon_threadsafe(begun.set)
        go.wait(30)
        return collector.snapshot()

    async with served(pages_of(collector, read=held)) as endpoint:
        first = asyncio.ensure_future(http.get(base(endpoint) + "/performance"))
        await begun.wait()
        async with http.get(base(endpoint) + "/performance/a") as second:
            assert second.status == 503
        assert (await read(http, endpoint, "/health"))["status"] == "ok"
        go.set()
        assert (await first).status == 200


async def test_performance_is_the_data_of_the_report(http: aiohttp.ClientSession) -> None:
    """/performance has what `paceline stats --json` has, and /performance/AGENT what that has of
    one agent, with its moment. (E-10)"""
    collector = busy(Hand())
    expected = json.loads(json.dumps(data(collector.snapshot())))
    async with served(pages_of(collector)) as endpoint:
        assert await read(http, endpoint, "/performance") == expected
        one = await read(http, endpoint, "/performance/web")
    assert (one.pop("agent"), one.pop("at_s")) == ("web", expected["at_s"])
    assert one.pop("uptime_s") == expected["uptime_s"]
    assert one == expected["agents"]["web"]


async def test_an_agent_is_all_series_of_its_name(http: aiohttp.ClientSession) -> None:
    """What has several series, by labels, is one agent. (E-10)"""
    collector = MetricsCollector()
    for team in "ab":
        collector.record_execution("web", 1.0, True, labels={"team": team})
    async with served(pages_of(collector)) as endpoint:
        assert (await read(http, endpoint, "/performance/web"))["calls"] == 2


async def test_pages_are_packed_for_those_who_can_read_it(http: aiohttp.ClientSession) -> None:
    """Pages are compressed for those who ask for it. (E-10)"""
    async with (
        served(pages_of(busy())) as endpoint,
        http.get(base(endpoint) + "/performance", headers={"Accept-Encoding": "gzip"}) as got,
    ):
        assert got.headers["Content-Encoding"] == "gzip"
        assert "web" in json.loads(gzip.decompress(await got.read()))["agents"]


async def test_names_of_any_kind(http: aiohttp.ClientSession) -> None:
    """Whatever agents are named, the pages are JSON in UTF-8, and each that can be written in a
    URL is found under its name. (E-10)"""
    async with served(pages_of(weird())) as endpoint:
        agents = (await read(http, endpoint, "/performance"))["agents"]
        assert len(agents) >= len({name[:200] for name in WEIRD})
        for name in ("a/b", "tab\t", "\N{PARTY POPPER}", '{agent="x"} 1', " "):
            collector = MetricsCollector()
            collector.record_execution(name, 1.0, True)
            async with served(pages_of(collector)) as other:
                url = f"/performance/{_quoted(name)}"
                assert (await read(http, other, url))["agent"] == name


def _quoted(name: str) -> str:
    return "".join(f"%{byte:02X}" for byte in name.encode())


async def test_an_agent_that_was_never_called(http: aiohttp.ClientSession) -> None:
    """An unknown agent is a 404 that names it and says where all are. (E-10)"""
    async with (
        served(pages_of(busy())) as endpoint,
        http.get(base(endpoint) + "/performance/nobody") as got,
    ):
        assert (got.status, await got.text()) == (
            404,
            "no call of 'nobody' is recorded. /performance has all there are.\n",
        )


def slow_calls() -> MetricsCollector:
    """Sixty tools, the n-th of which took n times 100 ms; the last failed."""
    clock = Hand()
    collector = MetricsCollector(clock=clock)
    for number in range(1, 60):
        with track_performance(f"t{number}", collector, kind=Kind.TOOL):
            clock.advance_ms(100 * number)

    @track_performance("t60", collector, kind=Kind.TOOL)
    def too_slow() -> None:
        clock.advance_ms(6_000)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        too_slow()
    return collector


@pytest.mark.parametrize(
    ("query", "threshold_ms", "expected"),
    [
        ("", 1_000, range(60, 10, -1)),
        ("?threshold_ms=5900.0", 5_900, range(60, 58, -1)),
        ("?threshold_ms=5900.5", 5_900.5, [60]),
        ("?threshold_ms=0", 0, range(60, 10, -1)),
        ("?threshold_ms=999999999999", 999_999_999_999, []),
    ],
)
async def test_slow_operations(
    http: aiohttp.ClientSession, query: str, threshold_ms: float, expected: Iterable[int]
) -> None:
    """/slow-operations has the calls that took at least the threshold, a second if nothing is said,
    the slowest first, and 50 at most. (E-10)"""
    async with served(pages_of(slow_calls())) as endpoint:
        said = await read(http, endpoint, SLOW + query)
    assert said["threshold_ms"] == threshold_ms
    assert [one["name"] for one in said["operations"]] == [f"t{number}" for number in expected]


async def test_what_is_said_of_an_operation(http: aiohttp.ClientSession) -> None:
    """Of each slow operation there is what it was, how long it took, and how it ended. (E-10)"""
    collector = slow_calls()
    span = collector.trace.spans()[-1]
    async with served(pages_of(collector)) as endpoint:
        (said,) = (await read(http, endpoint, f"{SLOW}?threshold_ms=6000"))["operations"]
    assert said == {
        "id": span.id,
        "trace_id": span.id,
        "name": "t60",
        "kind": "tool",
        "took_ms": 6_000,
        "ended_s": span.end_ns / 1e9,
        "source": "executed",
        "ending": "timeout",
        "category": "timeout",
    }


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{SLOW}?threshold_ms=", "threshold_ms is '', not a number of milliseconds."),
        (f"{SLOW}?threshold_ms=fast", "threshold_ms is 'fast', not a number of milliseconds."),
        (f"{SLOW}?threshold_ms=-1", "not a number"),
        (f"{SLOW}?threshold_ms=nan", "not a number"),
        (f"{SLOW}?threshold_ms=inf", "not a number"),
        (f"{SLOW}?threshold_ms=1_000", "not a number"),
        (f"{SLOW}?threshold_ms=1e3", "not a number"),
        (f"{SLOW}?threshold_ms=%D9%A1", "not a number"),
        (f"{SLOW}?threshold_ms=1%0A", "not a number"),
        (f"{SLOW}?threshold_ms={'9' * 400}", "not a number"),
        (f"{SLOW}?threshold_ms=1&threshold_ms=2", "takes threshold_ms once"),
        (f"{SLOW}?threshold=1", "takes threshold_ms once, and no other"),
        ("/performance?agent=web", "takes no parameters"),
        ("/performance/web?window=1h", "takes no parameters"),
    ],
)
async def test_wrong_parameters(http: aiohttp.ClientSession, path: str, said: str) -> None:
    """A parameter that cannot be is a 400 with a sentence of what is wrong and what to write, of
    bounded length. (E-10)"""
    async with served(pages_of(busy())) as endpoint, http.get(base(endpoint) + path) as got:
        text = await got.text()
        assert got.status == 400
        assert said in text
        assert len(text) < 200
        assert text.count("\n") == 1


@pytest.mark.parametrize("path", ["/health", "/performance", "/performance/web", SLOW])
async def test_the_same_guards_as_for_metrics(http: aiohttp.ClientSession, path: str) -> None:
    """Pages are told to nobody who names us wrongly, no method but GET is answered, and nothing
    lets another site read them. (E-10)"""
    async with served(pages_of(busy())) as endpoint:
        url = base(endpoint) + path
        async with http.get(url, headers={"Host": "evil.example"}) as got:
            assert (got.status, b"web" in await got.read()) == (421, False)
        async with http.get(url, headers={"Host": "metrics.internal"}) as got:
            assert got.status == 200
            assert "Access-Control-Allow-Origin" not in got.headers
        async with http.head(url) as got:
            assert (got.status, await got.read()) == (200, b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            async with http.request(method, url) as got:
                assert (got.status, got.headers["Allow"]) == (405, "GET,HEAD")
                assert path.removesuffix("web") in await got.text()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/performance/"),
        ("GET", "/healthy"),
        ("POST", "/cache/clear/llm"),
        ("POST", "/cache/clear/agent/web"),
    ],
)
async def test_there_is_nothing_else(http: aiohttp.ClientSession, method: str, path: str) -> None:
    """There is no other page; above all nothing that changes anything, since nobody is asked who
    they are. (E-10)"""
    async with (
        served(pages_of(busy())) as endpoint,
        http.request(method, base(endpoint) + path) as got,
    ):
        assert got.status == 404
        assert SLOW in await got.text()


async def test_without_pages_there_are_none(http: aiohttp.ClientSession) -> None:
    """An endpoint that was given no pages serves the metrics alone, and names nothing else."""
    async with Endpoint(lambda _: Page(b"", "text/plain"), listen="127.0.0.1:0") as endpoint:
        for path in ("/health", "/performance", SLOW):
            async with http.get(base(endpoint) + path) as got:
                assert (got.status, await got.text()) == (404, "metrics are at /metrics\n")


async def test_figures_that_cannot_be_read(http: aiohttp.ClientSession) -> None:
    """Figures that cannot be taken are an answer of status 500; /health goes on. (E-10)"""

    def fail() -> Snapshot:
        raise StorageError("the history is gone")

    async with served(pages_of(MetricsCollector(), read=fail)) as endpoint:
        async with http.get(base(endpoint) + "/performance") as got:
            assert (got.status, "the history is gone" in await got.text()) == (500, True)
        assert (await read(http, endpoint, "/health"))["status"] == "ok"


def test_others_run_between_two_agents() -> None:
    """Making the page of many agents lets other threads run after each of them. (E-10)"""
    pauses: list[float] = []
    collector = MetricsCollector()
    for number in range(20):
        collector.record_execution(f"a{number}", 1.0, True)
    pages_of(collector, pause=pauses.append).performance()
    assert len(pauses) == 20
    assert min(pauses) > 0


def test_calls_of_a_runtime_are_operations_too() -> None:
    """Operations come from wherever spans are kept; equals come the latest first. (E-10)"""

    def span(number: int, **more: Any) -> Span:
        return Span(f"{number}", "run", "a", number, number + 2_000 * MS, **more)

    loads: Mapping[str, float] = {}
    found = [span(1, source=Source.HOT), span(2, category=Category.NETWORK, ending=Ending.ERROR)]
    pages = Pages(
        MetricsCollector().snapshot,
        spans=lambda: found,
        loads=lambda: loads,
        clock=Hand(),
        version="1",
    )
    said: Content = pages.slow(2_000)
    shown = [(one["id"], one["source"], one["category"]) for one in _operations(said)]
    assert shown == [("2", "executed", "network"), ("1", "hot", None)]


def _operations(content: Content) -> list[dict[str, Any]]:
    operations: list[dict[str, Any]] = json.loads(content.body)["operations"]
    return operations
