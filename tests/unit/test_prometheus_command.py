"""`paceline metrics`: the figures of a history, printed once or served."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from paceline.cli import metrics as module
from paceline.cli.metrics import Recorded, metrics
from paceline.cli.place import Place
from paceline.errors import StorageError
from paceline.history.sqlite import SqliteHistory, SqliteReader
from paceline.redaction import Redactor
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock

SERVE = """
import os
from pathlib import Path
from paceline.cli.metrics import serve
from paceline.cli.place import Place
place = Place({}, Path(os.environ["HERE"]), home=Path(os.environ["HERE"]))
raise SystemExit(serve(place, listen="127.0.0.1:0"))
"""


class Past:
    """A history that grows call by call."""

    def __init__(self, path: Path) -> None:
        self.clock = VirtualClock()
        self.reader = SqliteReader(path)
        self.history = SqliteHistory(
            path, clock=self.clock, redactor=Redactor(), on_loss=_fail, keep_inputs=False
        )
        self._number = 0

    def calls(self, many: int) -> None:
        """So many calls more."""
        for _ in range(many):
            self._number += 1
            call = a_call(f"call {self._number}")
            self.history.observe(call, an_outcome(call, "v"))
        assert self.history.flush()


def _fail(loss: StorageError) -> None:
    raise AssertionError(loss)


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    past = Past(Place({}, tmp_path, home=tmp_path).home.history)
    yield past
    past.history.close()


def counted(recorded: Recorded) -> int:
    return recorded.snapshot().totals.ever.calls


@pytest.mark.parametrize("open_metrics", [False, True])
def test_metrics_are_printed(
    past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str], open_metrics: bool
) -> None:
    """`paceline metrics` prints the figures of all recorded calls in a format that the parsers
    read. (E-10, S0-25)"""
    past.calls(3)
    place = Place({}, tmp_path, home=tmp_path)
    assert metrics(place, open_metrics=open_metrics) == 0
    out = capsys.readouterr().out
    found = {one.name: one for one in (parse_open if open_metrics else parse_text)(out)}
    calls = [s.value for s in found["paceline_calls"].samples if s.name.endswith("_total")]
    assert sum(calls) == 3
    exemplars = [s.exemplar for s in found["paceline_call_duration_seconds"].samples if s.exemplar]
    assert bool(exemplars) == open_metrics
    assert "sel_" not in out
    metrics(place, sel_names=True)
    assert "sel_operations_total" in capsys.readouterr().out


def test_no_history_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing was recorded the page has no calls, and can be read. (S0-25)"""
    assert metrics(Place({}, tmp_path, home=tmp_path / "none")) == 0
    names = {one.name for one in parse_text(capsys.readouterr().out)}
    assert "paceline_build_info" in names
    assert "paceline_calls" not in names


def test_figures_are_fresh(past: Past) -> None:
    """Calls that others record are in the figures a second later at most, each once. (S0-25)"""
    check_fresh(past, Recorded(past.reader, past.clock))


def check_fresh(past: Past, recorded: Recorded) -> None:
    """That it counts every call once, however far apart it is asked."""
    past.calls(3)
    assert counted(recorded) == 3
    past.calls(2)
    assert counted(recorded) == 3  # asked again within the second
    past.clock.advance(1)
    assert counted(recorded) == 5
    for number in range(6, 16):
        past.clock.advance(25)
        past.calls(1)
        past.clock.advance(1)
        assert counted(recorded) == number


def test_records_that_are_missed_are_found(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that leave out what was recorded between two looks would be found."""
    monkeypatch.setattr(module, "_LATE_NS", -(10**9))
    with pytest.raises(AssertionError):
        check_fresh(past, Recorded(past.reader, past.clock))


def test_records_that_count_twice_are_found(past: Past) -> None:
    """Figures that forget which calls they have counted would be found."""
    recorded = Recorded(past.reader, past.clock)
    take = recorded._take

    def forgetful() -> None:
        recorded._counted.clear()
        take()

    recorded._take = forgetful  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        check_fresh(past, recorded)


def test_removed_records_stay_counted(past: Past) -> None:
    """No counter goes back when old records are removed, and the beginning stays. (S0-25)"""
    recorded = Recorded(past.reader, past.clock)
    past.calls(50)
    began = recorded.snapshot().started_ns
    past.clock.advance(3_600)
    past.calls(5)
    assert past.history.prune(max_records=10) == 45
    assert counted(recorded) == 55
    assert recorded.snapshot().started_ns == began
    assert counted(Recorded(past.reader, past.clock)) == 10  # who begins now knows no more


class Shifted:
    """A clock whose wall is set back by `back_ns`."""

    def __init__(self, inner: VirtualClock) -> None:
        self.inner = inner
        self.back_ns = 0

    def monotonic_ns(self) -> int:
        return self.inner.monotonic_ns()

    def wall_ns(self) -> int:
        return self.inner.wall_ns() - self.back_ns


def test_a_clock_that_is_set_back(past: Past) -> None:
    """When the wall clock is set back, no call is counted twice. (S0-25)"""
    clock = Shifted(past.clock)
    recorded = Recorded(past.reader, clock)
    past.calls(3)
    past.clock.advance(100)
    past.calls(2)
    assert counted(recorded) == 5
    clock.back_ns = 10**12
    past.clock.advance(2)
    assert counted(recorded) == 5
    past.clock.advance(100)
    assert counted(recorded) == 5


async def test_served_by_a_process(past: Past, tmp_path: Path) -> None:
    """`paceline metrics --serve` says where it serves, answers with what is recorded then, also as
    JSON, and ends with 0 when it is told to. (E-10)"""
    past.calls(2)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE,
        env={**os.environ, "HERE": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = (await process.stderr.readline()).decode()
        assert said.startswith("metrics at http://127.0.0.1:")
        url = said.split()[2].rstrip(";")
        async with aiohttp.ClientSession() as http:
            async with http.get(url) as got:
                found = {one.name: one for one in parse_text(await got.text())}
            async with http.get(url.replace("/metrics", "/performance")) as got:
                told = await got.json()
            async with http.get(url.replace("/metrics", "/slow-operations?threshold_ms=0")) as got:
                slow = await got.json()
            async with http.get(url.replace("/metrics", "/health")) as got:
                health = await got.json()
        assert sum(one.value for one in found["paceline_calls"].samples) == 2
        assert (told["totals"]["calls"], len(slow["operations"])) == (2, 2)
        assert (health["status"], health["loads"]) == ("ok", {})
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
