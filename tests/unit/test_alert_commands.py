"""`paceline alerts`: where rules stand by the history, sending a test, writing rules out."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, final

import msgspec
import pytest

from paceline.cli import alerts as commands
from paceline.cli.output import FAILED, OK
from paceline.cli.place import Place
from paceline.errors import AgentError, ConfigError, UsageError
from paceline.history.sqlite import SqliteHistory
from paceline.metrics.alerts.measures import MEASURES
from paceline.redaction import Redactor
from paceline.settings import AlertSettings, RuleSettings, SilenceSettings
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock

TOKEN = "tok-4f9a8b7c6d5e4f3a"
MS = 1_000_000


@final
class Past:
    """A history that is made call by call."""

    def __init__(self, directory: Path) -> None:
        self.clock = VirtualClock()
        self.place = Place({"PACELINE_HOME": str(directory)}, directory)
        self.history = SqliteHistory(
            self.place.home.history,
            clock=self.clock,
            redactor=Redactor(),
            on_loss=lambda exc: pytest.fail(str(exc)),
        )

    def calls(self, name: str, count: int, *, ms: int = 10, fails: bool = False) -> None:
        error = AgentError("broken") if fails else None
        for number in range(count):
            call = a_call(f"{name}{number}", name)
            outcome = msgspec.structs.replace(
                an_outcome(call, "v", error=error), execute_ns=ms * MS, total_ns=ms * MS
            )
            self.history.observe(call, outcome)

    def minutes(self, count: int, name: str, **what: Any) -> None:
        """So many minutes with 30 calls each."""
        for _ in range(count):
            self.clock.advance(60)
            self.calls(name, 30, **what)

    def states(self, capsys: pytest.CaptureFixture[str], **settings: Any) -> dict[str, Any]:
        """What the command says of each rule."""
        self.history.flush()
        done = commands.alerts(
            self.place, AlertSettings(**settings), as_json=True, clock=self.clock
        )
        assert done == OK
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {row["rule"]: row for row in rows}


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    past = Past(tmp_path)
    yield past
    past.history.close()


def test_states_by_the_history(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    """The rules are listed with the states they would be in now had somebody watched: firing after
    their `for_s`, pending before; what is unknown is called so. (S0-73, K-02)"""
    past.minutes(10, "web")
    assert past.states(capsys)["SuccessRateLow"]["state"] == "inactive"
    past.minutes(1, "web", fails=True)
    found = past.states(capsys)
    assert found["SuccessRateLow"]["state"] == "pending"
    past.minutes(3, "web", fails=True)
    found = past.states(capsys)
    assert found["SuccessRateLow"]["state"] == "firing"
    assert found["SuccessRateLow"]["labels"] == {"agent": "web"}
    assert "success_rate over 5m is" in found["SuccessRateLow"]["figures"]
    assert found["SuccessRateLow"]["since"].startswith("2023-11-14T22:")
    assert found["LatencyHigh"]["state"] == "inactive"
    assert found["CacheHitRateLow"]["state"] == "no figures"
    assert found["InstanceLoadHigh"]["state"] == "no figures"
    past.minutes(10, "web")
    assert past.states(capsys)["SuccessRateLow"]["state"] == "inactive"


def test_silences_are_shown(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    """An alert that a silence covers is listed, and marked. (S0-73)"""
    from datetime import UTC, datetime

    past.minutes(5, "web", ms=5_000)
    silence = SilenceSettings(until=datetime(2030, 1, 1, tzinfo=UTC), rule="Latency*")
    assert past.states(capsys)["LatencyHigh"]["silenced"] is False
    assert past.states(capsys, silences=(silence,))["LatencyHigh"]["silenced"] is True
    commands.alerts(past.place, AlertSettings(silences=(silence,)), as_json=False, clock=past.clock)
    assert "firing (silenced)  web" in capsys.readouterr().out


def test_an_empty_history(past: Past, capsys: pytest.CaptureFixture[str]) -> None:
    """Without calls every rule is listed, and nothing is claimed of any. (S0-73)"""
    commands.alerts(past.place, AlertSettings(), as_json=False, clock=past.clock)
    shown = capsys.readouterr().out
    assert shown.count("no figures") == 4
    assert shown.splitlines()[0].split() == [
        "RULE", "SEVERITY", "STATE", "ABOUT", "SINCE", "FIGURES"
    ]  # fmt: skip


def test_a_wrong_rule(past: Past) -> None:
    """A metric that does not exist is refused with the list of those that do. (S0-73)"""
    wrong = AlertSettings(rules=(RuleSettings(name="Mine", metric="p95", above=1),))
    for command in (
        partial(commands.alerts, past.place, wrong, as_json=False),
        partial(commands.export, wrong),
    ):
        with pytest.raises(ConfigError) as caught:
            command()
        assert "Mine: there is no metric 'p95'" in str(caught.value)
        assert "p95_ms" in caught.value.next_step


def test_metrics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """What rules can watch is listed with its unit and meaning. (S0-73)"""
    assert commands.metrics(as_json=False) == OK
    shown = capsys.readouterr().out
    assert all(name in shown for name in MEASURES)
    commands.metrics(as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(MEASURES)


def test_export(capsys: pytest.CaptureFixture[str]) -> None:
    """The rules are written as a rule file of Prometheus. (S0-73)"""
    assert commands.export(AlertSettings()) == OK
    shown = capsys.readouterr().out
    assert '- alert: "LatencyHigh"' in shown
    assert not shown.endswith("\n\n")


@contextmanager
def receiving(status: int) -> Iterator[tuple[str, list[Any]]]:
    """The address of a server that answers with this status, and what it gets."""
    bodies: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook/{TOKEN}", bodies
        finally:
            server.shutdown()
            thread.join()


def test_testing_sinks(capfd: pytest.CaptureFixture[str]) -> None:
    """A test alert and its end go through each sink; what came back is said, without secrets, and
    the exit code tells if all took it. (S0-73)"""
    with receiving(200) as (good, bodies), receiving(403) as (bad, _):
        settings = AlertSettings(webhook_url=good, slack_url=bad)
        assert commands.try_sinks(settings, sink=None, as_json=False) == FAILED
        said = capfd.readouterr()
        assert commands.try_sinks(settings, sink="webhook", as_json=True) == OK
        answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert "webhook: took the alert and its end" in said.out
    assert "log: took the alert and its end" in said.out
    assert "the alert sink slack (127.0.0.1:" in said.out
    assert "answered 403" in said.out
    assert "alert firing: {alertname=PacelineTest, severity=info} This is a test" in said.err
    assert TOKEN not in said.out + said.err
    assert [body["status"] for body in bodies[:2]] == ["firing", "resolved"]
    assert [(answer["sink"], answer["ok"]) for answer in answers] == [("webhook", True)]


def test_testing_without_sinks(capfd: pytest.CaptureFixture[str]) -> None:
    """Where only the log is told, this is said, and how to tell others; a sink that does not exist
    is refused with the list of those that do. (S0-73)"""
    assert commands.try_sinks(AlertSettings(), sink=None, as_json=False) == OK
    assert "alerts.discord_url" in capfd.readouterr().err
    with pytest.raises(UsageError) as caught:
        commands.try_sinks(AlertSettings(), sink="pager", as_json=False)
    assert caught.value.next_step == "There are: log."
