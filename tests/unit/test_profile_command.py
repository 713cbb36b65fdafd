"""`paceline profile`, on a history of its own."""

import asyncio
import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from paceline.call import Source
from paceline.cli.place import Place
from paceline.cli.profile import LAST, Wanted, profile_names, profile_run
from paceline.cli.replay import span_of_record
from paceline.errors import Category, PacelineError, StorageError, UsageError
from paceline.history.sqlite import SqliteHistory, SqliteReader
from paceline.metrics.profile.profile import profile
from paceline.metrics.profile.totals import Rank
from paceline.redaction import Redactor
from paceline.runtime import Runtime
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock, run
from tests.spans import a_run

Said = pytest.CaptureFixture[str]


def fail(exc: StorageError) -> None:
    raise exc


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where nothing was recorded yet."""
    monkeypatch.setenv("COLUMNS", "80")
    return Place({}, tmp_path, home=tmp_path / "state")


@pytest.fixture
def recorded(place: Place) -> Place:
    """Where two runs are recorded: one that a person can check by eye, and a later one."""
    clock = VirtualClock()
    history = SqliteHistory(place.home.history, clock=clock, redactor=Redactor(), on_loss=fail)
    for span in sorted(a_run(), key=lambda span: span.end_ns):
        clock.advance((span.end_ns - clock.wall_ns()) / 1e9)
        call = msgspec.structs.replace(
            a_call(f"run-{span.id}", span.name),
            trace_id="run-1",
            parent_id=span.parent_id and f"run-{span.parent_id}",
        )
        outcome = msgspec.structs.replace(
            an_outcome(call),
            source=span.source,
            queue_ns=span.queue_ns,
            execute_ns=span.execute_ns,
            total_ns=span.took_ns,
            link=f"run-{span.links[0]}" if span.links else "",
        )
        history.observe(call, outcome)
    clock.advance(60)
    call = msgspec.structs.replace(a_call("later", "plan"), trace_id="", parent_id=None)
    history.observe(call, msgspec.structs.replace(an_outcome(call), total_ns=2_000_000_000))
    history.close()
    return place


def shown(place: Place, run: str, said: Said, **wanted: object) -> str:
    assert profile_run(place, run, Wanted(**wanted)) == 0  # type: ignore[arg-type]
    return said.readouterr().out


def test_a_run_is_shown(recorded: Place, capsys: Said) -> None:
    """A run is shown as a waterfall with its sources and links, and a table of its names below,
    in plain text of 80 columns. (S0-01)"""
    text = shown(recorded, "run-1", capsys)
    head, body = text.split("\n\n", 1)
    assert head == "answer  1.24s  run run-1  (8 executed, 1 joined, 1 hot)"
    assert "joined →run-5" in body
    assert "●      fetch" in body
    assert "hot" in body
    table = body[body.index("names by") :].splitlines()
    assert table[0] == "names by time on the critical path"
    assert " ".join(table[1].split()) == "NAME CALLS TOTAL SELF P95 QUEUE PATH SHARE WITHOUT"
    assert " ".join(table[2].split()) == "fetch 1 410ms 410ms 410ms 0ns 410ms 33% 830ms"
    assert "\x1b" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("asked", ["run-1", "run-4", "run-7-"])
def test_a_run_is_found_by_any_of_its_calls(recorded: Place, asked: str, capsys: Said) -> None:
    """The id of a run, of any call in it, or the beginning of one shows the whole run."""
    assert shown(recorded, asked, capsys).startswith("answer  1.24s  run run-1")


def test_the_last_run_has_a_word(recorded: Place, capsys: Said) -> None:
    """`last` is the run of the call that ended last."""
    assert shown(recorded, LAST, capsys).startswith("plan  2.00s  run later")


def test_names_are_ranked_as_asked(recorded: Place, capsys: Said) -> None:
    """The table has as many names as asked for, in the order asked for."""
    text = shown(recorded, "run-1", capsys, by=Rank.SELF, names=2)
    table = text[text.index("names by self time") :].splitlines()
    assert [row.split()[0] for row in table[2:-1]] == ["rates", "weather"]


def test_the_other_forms_are_printed(recorded: Place, capsys: Said) -> None:
    """`--folded` prints stacks, `--json` one object, and nothing else. (S0-01)"""
    stacks = shown(recorded, "run-1", capsys, folded=True).splitlines()
    assert "answer;search;fetch 410000" in stacks
    told = json.loads(shown(recorded, "run-1", capsys, as_json=True))
    assert (told["version"], told["run"], len(told["calls"])) == (1, "run-1", 10)
    assert {name["name"]: name["at_best_ns"] for name in told["names"]}["plan"] == 950_000_000


def test_a_trace_is_written(recorded: Place, tmp_path: Path, capsys: Said) -> None:
    """`--chrome` writes a file, says so beside the result, and prints nothing else. (S0-01)"""
    file = tmp_path / "trace.json"
    assert profile_run(recorded, "run-1", Wanted(chrome=file)) == 0
    out, err = capsys.readouterr()
    assert (out, str(file) in err) == ("", True)
    events = json.loads(file.read_bytes())["traceEvents"]
    assert len([e for e in events if e["ph"] == "X" and e["cat"] != "queue"]) == 10
    with pytest.raises(PacelineError) as caught:
        profile_run(recorded, "run-1", Wanted(chrome=tmp_path / "no" / "trace.json"))
    assert caught.value.next_step


def test_an_unknown_run_lists_the_latest(recorded: Place, capsys: Said) -> None:
    """A run that is not there is an error, after the latest runs were listed beside it."""
    with pytest.raises(UsageError) as caught:
        profile_run(recorded, "nothing", Wanted())
    assert caught.value.category is Category.NOT_FOUND
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "the latest runs:",
        "  later  plan  2.00s",
        "  run-1  answer  1.24s",
    ]


def test_what_is_not_clear_is_not_listed(recorded: Place, capsys: Said) -> None:
    """A beginning that fits several runs is an error that says so."""
    with pytest.raises(UsageError, match="more than one"):
        profile_run(recorded, "", Wanted())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("run", [LAST, "x"])
def test_without_a_history_there_is_no_run(place: Place, run: str, capsys: Said) -> None:
    """Where nothing was recorded, no run is found, and nothing is made."""
    with pytest.raises(UsageError, match="no calls are" if run == LAST else "no recorded run"):
        profile_run(place, run, Wanted())
    assert capsys.readouterr() == ("", "")
    assert not place.home.path.exists()


def test_names_of_all_runs(recorded: Place, capsys: Said) -> None:
    """Over all runs, each name has its calls, total and self time and p95. (S0-01)"""
    assert profile_names(recorded, Wanted(names=20)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 runs, names by self time"
    rows = {line.split()[0]: line.split()[1:] for line in lines[3:]}
    assert rows["plan"] == ["2", "2.29s", "2.29s", "2.00s", "3.00us"]
    assert rows["answer"][:3] == ["1", "1.24s", "39.0ms"]
    assert profile_names(recorded, Wanted(as_json=True, by=Rank.P95, names=1)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], [name["name"] for name in told["names"]]) == (2, ["rates"])


def test_names_of_no_runs(place: Place, capsys: Said) -> None:
    """Where nothing was recorded, the way to record something is shown."""
    assert profile_names(place, Wanted()) == 0
    assert "paceline run" in capsys.readouterr().out


def test_a_plain_output_gets_plain_marks(recorded: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the output cannot show blocks, bars are drawn in ASCII."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    assert profile_run(recorded, "run-1", Wanted()) == 0
    out.seek(0)
    text = out.read()
    assert "joined ->run-5" in text
    assert "#####" in text
    assert "\\u2588" not in text


def test_sources_are_those_of_the_record(recorded: Place, capsys: Said) -> None:
    """A call keeps its source, its link and its waiting through the history."""
    told = json.loads(shown(recorded, "run-1", capsys, as_json=True))
    calls = {call["id"]: call for call in told["calls"]}
    assert (calls["run-6"]["source"], calls["run-6"]["links"]) == (Source.JOINED, ["run-5"])
    assert calls["run-3"]["queue_ns"] == 150_000_000


def test_a_run_of_a_runtime(place: Place) -> None:
    """What agents call in parallel is below them, and what took longest is on the critical path."""

    async def work() -> None:
        runtime = Runtime(home=place.home.path, agents=[], clock=VirtualClock())

        @runtime.agent("step")
        async def step(query: str) -> str:
            await asyncio.sleep(float(query))
            return query

        @runtime.agent("plan")
        async def plan(query: str) -> str:
            await asyncio.gather(runtime.run("step", "1"), runtime.run("step", "3"))
            await asyncio.sleep(0.5)
            return query

        async with runtime:
            await runtime.run("plan", "x", user="ada")

    run(work())
    reader = SqliteReader(place.home.history)
    found = profile(span_of_record(record) for record in reader.trace(reader.query()[0].id))
    assert not [node for node in found.tree.nodes if node.flaws]
    path = [
        (found.tree.nodes[piece.place].span.name, round(piece.took_ns / 1e9, 3))
        for piece in found.path
    ]
    assert path == [("step", 3.0), ("plan", 0.5)]
    assert found.root is not None
    assert found.root.self_ns == 500_000_000
