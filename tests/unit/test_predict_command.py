"""`paceline predict`, on sessions and a state directory of its own."""

import asyncio
import codecs
import errno
import gzip
import io
import json
import os
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paceline.call import EffectKind
from paceline.cli import predict_eval, predict_show
from paceline.cli.place import Place
from paceline.cli.predict_eval import show_evaluation
from paceline.cli.predict_sessions import own_sessions, read_sessions
from paceline.cli.predict_show import forget, show
from paceline.errors import InvalidInputError, StorageError, UsageError
from paceline.history.sessions import SessionReader
from paceline.predict.arguments import ArgumentModel
from paceline.predict.evaluation import Evaluation, Launching
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from paceline.predict.ledger import Ledger
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.kept import KeptPredictions, peek
from paceline.speculation.messages import Messages, NextMessage, heard_of
from paceline.testing.virtual_time import VirtualClock
from tests.kept_sessions import keep
from tests.unit.predict.sessions import free_text, orders, predictor, step
from tests.unit.test_narrow_terminal import Tty

Capture = pytest.CaptureFixture[str]
READS = ("get_*", "track_*")
KNOWN = {
    "get_order": EffectKind.READ,
    "track_parcel": EffectKind.READ,
    "refund_money": EffectKind.WRITE,
}
TRACKER = 'EFFECT = "read"\nCACHE_TTL = 60\nasync def run(query): return query\n'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where nothing was recorded yet."""
    (tmp_path / "agents").mkdir()
    return Place({}, tmp_path, home=tmp_path / "state")


def as_run(trajectory: Trajectory) -> dict[str, Any]:
    """In the form of recorded runs."""

    def event(each: Event) -> dict[str, Any]:
        if isinstance(each, Said):
            return {"k": "user" if each.by_user else "asst", "text": each.text}
        calls = [{"name": c.name, "args": c.arguments, "result": c.result} for c in each.calls]
        return {"k": "step", "calls": calls}

    found = {"id": trajectory.id, "task": trajectory.task, "user": trajectory.scope}
    return {**found, "events": [event(each) for each in trajectory.events]}


def as_log(trajectory: Trajectory) -> dict[str, Any]:
    """In the form of OpenAI's chat completions."""
    messages: list[dict[str, Any]] = []
    for number, each in enumerate(trajectory.events):
        if isinstance(each, Said):
            role = "user" if each.by_user else "assistant"
            messages.append({"role": role, "content": each.text})
            continue
        ids = [f"{number}.{place}" for place in range(len(each.calls))]
        asked = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call_id, call in zip(ids, each.calls, strict=True)
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": asked})
        messages += [
            {"role": "tool", "tool_call_id": call_id, "content": json.dumps(call.result)}
            for call_id, call in zip(ids, each.calls, strict=True)
        ]
    return {"id": trajectory.id, "task": trajectory.task, "messages": messages}


def lines_of(rows: Sequence[object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def recorded(place: Place, sessions: Sequence[Trajectory], name: str = "runs.jsonl") -> str:
    path = place.cwd / name
    path.write_bytes(lines_of([as_run(each) for each in sessions]))
    return str(path)


def evaluated(place: Place, capsys: Capture, **wanted: Any) -> str:
    assert show_evaluation(place, predict_eval.Wanted(**wanted)) == 0
    return capsys.readouterr().out


def data(place: Place, capsys: Capture, **wanted: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(evaluated(place, capsys, as_json=True, **wanted))
    return found


def flat(text: str) -> str:
    return " ".join(text.split())


def shown(place: Place, capsys: Capture, **wanted: Any) -> str:
    assert show(place, predict_show.Wanted(**wanted)) == 0
    return capsys.readouterr().out


def learnt(place: Place, *circles: str, effects: dict[str, EffectKind] | None = None) -> None:
    """Has the habits of these circles kept."""
    model = predictor(arguments=ArgumentModel)
    for circle in circles:
        for trajectory in orders(30, scope=circle):
            live(model, trajectory)
    kept(place).save(model.save(), None, KNOWN if effects is None else effects)


def live(model: PerformancePredictor, trajectory: Trajectory) -> None:
    session = model.session(trajectory.scope)
    for event in trajectory.events:
        model.propose(session)
        model.observe(session, event)


def kept(place: Place, at_s: float = 0) -> KeptPredictions:
    clock = VirtualClock()
    clock.advance(at_s)
    return KeptPredictions(place.home.predictions, clock, on_trouble=lambda _: None)


def own(place: Place, *trajectories: Trajectory, user: str | None = "ada") -> None:
    sessions = {each.id: each.events for each in trajectories}
    asyncio.run(keep(place.home.sessions, VirtualClock(), sessions, user=user))


def test_the_first_words_say_whether_it_is_worth_it(place: Place, capsys: Capture) -> None:
    """One sentence says first whether to turn it on; figures, times that were taken and the table of
    reliability follow. (S2-40, S2-51)"""
    file = recorded(place, orders(80))
    text = evaluated(place, capsys, file=file, read_only=READS, tool_s=["1.0"])
    first, _, rest = text.partition("\n\n")
    assert first.startswith("Worth turning on: launching ahead would have hidden ")
    assert "calls in vain for each real one that reads." in flat(first)
    assert rest.startswith("80 sessions with 160 calls of 3 tools, each predicted from earlier")
    assert "3.5 s of the model before each answer and 1 s of each tool." in flat(rest)
    for what in ("next tool among the first 1", "exact call among the first 10", "CAME TRUE"):
        assert what in rest


def test_programs_get_all_figures(place: Place, capsys: Capture) -> None:
    """With `--json` there is one object, with the sentence, the figures and the table. (S2-51)"""
    found = data(place, capsys, file=recorded(place, orders(80)), read_only=READS)
    assert (found["version"], found["sessions"], found["calls"]) == (1, 80, 160)
    assert found["next_tool"]["1"] > 0.9
    assert found["exact_call"]["1"] <= found["exact_call"]["3"] <= found["exact_call"]["10"]
    assert found["read_only"] == ["get_order", "track_parcel"]
    assert 0 < found["kept_hits"] < 1
    assert found["hidden"] == pytest.approx(found["saved_s"] / found["wait_s"])
    assert sum(row["proposals"] for row in found["reliability"]) > 100
    assert found["verdict"].startswith("Worth turning on")


def test_calls_in_vain_are_for_a_call_that_reads(place: Place, capsys: Capture) -> None:
    """What is launched in vain is told for each real call that reads, and limited by as many as the
    budget allows for one. (S2-40)"""
    sessions = orders(80)
    file = recorded(place, sessions)
    reads = data(place, capsys, file=file, read_only=READS)["read_only_calls"]
    given: list[Launching] = []

    def evaluated_so(*_: object, launching: Launching, **__: object) -> Evaluation:
        given.append(launching)
        return Evaluation(
            sessions=80, calls=160, read_only_calls=reads, extra_calls=0.1, kept_extra_calls=0.05
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_eval, "evaluate", evaluated_so)
        found = data(place, capsys, file=file, read_only=["get_*"])
        text = evaluated(place, capsys, file=file, read_only=["get_*"])
    assert found["extra_calls"] == pytest.approx(0.1 * 160 / reads)
    assert found["kept_extra_calls"] == pytest.approx(0.05 * 160 / reads)
    of_all = data(place, capsys, file=file, read_only=["get_*"])["tools"]["get_order"] / 160
    assert given[0].extra_calls == pytest.approx(0.3 * of_all)
    (row,) = (one for one in text.splitlines() if "in vain for a call that reads" in one)
    assert row.endswith("calls that change nothing")


def test_times_can_be_given(place: Place, capsys: Capture) -> None:
    """`--model-s`, `--tool-s 2` and `--tool-s NAME=0.5` are what the simulation waits. (S2-40)"""
    file = recorded(place, orders(80))
    found = data(place, capsys, file=file, read_only=READS, tool_s=["2", "get_order=0.5"])
    assert found["wait_s"] == pytest.approx(80 * 2.5)
    assert found["tool_s"] == {"": 2.0, "get_order": 0.5}
    assert data(place, capsys, file=file, read_only=READS, model_s=0.0)["saved_s"] == 0


def test_nothing_is_launched_of_which_it_is_not_known_that_it_only_reads(
    place: Place, capsys: Capture
) -> None:
    """Where no effect is known that is said, and its figures are left out. (S2-40)"""
    file = recorded(place, orders(80))
    text = evaluated(place, capsys, file=file)
    assert text.startswith("Whether it is worth turning on cannot be said: of none of the 3 tools")
    assert "name them with --read-only." in flat(text)
    found = data(place, capsys, file=file)
    assert (found["hits"], found["extra_calls"], found["hidden"]) == (None, None, None)
    assert found["unknown"] == ["get_order", "refund_money", "track_parcel"]
    assert found["next_tool"]["1"] > 0.9


def test_effects_are_those_of_our_tools(place: Place, capsys: Capture) -> None:
    """Without --read-only effects are those of the agents there are and of tools that programs had;
    what is unknown is named. (S2-40)"""
    (place.cwd / "agents" / "track_parcel.py").write_text(TRACKER)
    learnt(place, "", effects={"get_order": EffectKind.READ})
    file = recorded(place, orders(80))
    dirs = [place.cwd / "agents"]
    assert show_evaluation(place, predict_eval.Wanted(file=file, agents=dirs)) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Worth turning on")
    assert "not known whether they change anything: refund_money;" in said.err
    found = data(place, capsys, file=file, agents=dirs)
    assert found["read_only"] == ["get_order", "track_parcel"]


def test_habits_of_each_user_alone_are_told_of(place: Place, capsys: Capture) -> None:
    """Where users have nothing in common it is said what each gains by his own
    habits, as they are learnt by default, besides what others' give to who is new. (S2-40)"""
    ada = orders(80)
    bob = [Trajectory(f"b{each.id}", _of_bob(each.events)) for each in ada]
    both = [
        Trajectory(each.id, each.events, scope=user)
        for pair in zip(ada, bob, strict=True)
        for user, each in zip(("ada", "bob"), pair, strict=True)
    ]
    file = recorded(place, both)
    text = flat(evaluated(place, capsys, file=file, read_only=["*"]))
    assert text.startswith("Worth turning on: launching ahead would have hidden ")
    assert "that reads, by each user's own habits, and 0% by those of others alone." in text
    found = data(place, capsys, file=file, read_only=["*"])
    assert found["hidden"] == 0
    assert found["hidden_by_own"] > 0.2
    strangers = [Trajectory(each.id, each.events, scope=f"u{each.id}") for each in ada]
    file = recorded(place, strangers)
    text = flat(evaluated(place, capsys, file=file, read_only=READS))
    assert "that reads, by habits of other users, and 0% by each user's own." in text


def _of_bob(events: Sequence[Event]) -> tuple[Event, ...]:
    """The same with tools of other names."""
    return tuple(
        Step(tuple(Called(f"bob_{x.name}", x.arguments, x.result) for x in each.calls))
        if isinstance(each, Step)
        else each
        for each in events
    )


def test_free_text_is_not_worth_it(place: Place, capsys: Capture) -> None:
    """Where nothing can be foreseen the sentence says not to turn it on. (S2-40)"""
    text = evaluated(place, capsys, file=recorded(place, free_text(80)), read_only=["*"])
    assert text.startswith("Not worth turning on: launching ahead would have hidden 0%")


def test_what_there_is_too_little_of_is_a_dash(place: Place, capsys: Capture) -> None:
    """Of a few calls no rate is told, and whether it is worth it neither. (S2-51)"""
    file = recorded(place, orders(5))
    text = evaluated(place, capsys, file=file, read_only=READS)
    assert "cannot be said yet: 10 calls are" in text
    (row,) = (one for one in text.splitlines() if one.startswith("next tool among the first 1"))
    assert row.split()[6] == "-"
    assert data(place, capsys, file=file, read_only=READS)["next_tool"] == {"1": None, "3": None}


def test_one_session_is_none_to_go_by(place: Place, capsys: Capture) -> None:
    """Of a single session it is said that there are no others, and not that all are alike. (S2-51)"""
    text = evaluated(place, capsys, file=recorded(place, orders(1)), read_only=READS)
    assert "there is one session only, and none to predict it from" in flat(text)


def test_sessions_that_share_all_say_nothing(place: Place, capsys: Capture) -> None:
    """Where all sessions are of one task none is predicted from another, and that is said. (S2-51)"""
    alike = [Trajectory(each.id, each.events, task="one") for each in orders(80)]
    text = evaluated(place, capsys, file=recorded(place, alike), read_only=READS)
    assert "all sessions are of one task or one customer" in flat(text)


@pytest.mark.parametrize(
    ("events", "words"), [((), "no tool was called"), (None, "no sessions are in")]
)
def test_nothing_is_no_error(
    place: Place, capsys: Capture, events: tuple[Event, ...] | None, words: str
) -> None:
    """Without sessions, or calls in them, a sentence says so. (S2-51)"""
    sessions = [] if events is None else [Trajectory("1", events)]
    file = recorded(place, sessions)
    assert words in flat(evaluated(place, capsys, file=file))


def test_forms_are_told_by_their_content(place: Place) -> None:
    """Runs and message logs, gzipped or not, are read whatever the file is called; `limit` takes the
    first. (S2-51)"""
    made = orders(6)
    runs, logs = lines_of([as_run(x) for x in made]), lines_of([as_log(x) for x in made])
    for content in (runs, b"\n" + runs, logs, gzip.compress(runs), gzip.compress(logs)):
        path = place.cwd / "any.name"
        path.write_bytes(content)
        assert [each.events for each in read_sessions(str(path))] == [x.events for x in made]
        assert len(read_sessions(str(path), 4)) == 4


def test_standard_input_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard input, which is left open. (S2-51)"""
    stream = io.TextIOWrapper(io.BytesIO(gzip.compress(lines_of([as_run(orders(1)[0])]))))
    monkeypatch.setattr(sys, "stdin", stream)
    assert len(read_sessions("-")) == 1
    assert not stream.closed
    assert not stream.buffer.closed


def test_reading_says_how_far_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file, packed or not, and of sessions that are kept it is told how much is read; of a pipe
    nothing, as nobody knows. (S2-51)"""
    made = orders(2_000)
    plain = Path(recorded(place, made))
    packed = place.cwd / "runs.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=0))
    for path in (plain, packed):
        told: list[float] = []
        read_sessions(str(path), far=told.append)
        assert len(told) == 2_000
        assert told == sorted(told)
        assert told[0] < 0.5 < told[-1] <= 1.0
    own(place, *orders(4))
    told = []
    own_sessions(place, far=told.append)
    assert told == [0.0, 0.25, 0.5, 0.75]
    told = []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(plain.read_bytes())))
    read_sessions("-", far=told.append)
    assert not told


def test_what_programs_write_is_read(place: Place) -> None:
    """A mark of UTF-8 before the first line, lines that end as on Windows, and names that are numbers or
    null are no errors. (S2-51)"""
    (made,) = orders(1)
    row = {**as_run(made), "id": 7, "task": 8, "user": 0}
    log = {**as_log(made), "id": 0, "task": 8}
    path = place.cwd / "runs"
    for each in (row, log):
        path.write_bytes(codecs.BOM_UTF8 + json.dumps(each).encode() + b"\r\n\r\n")
        (found,) = read_sessions(str(path))
        assert (found.id, found.task) == (str(each["id"]), "8")
        assert found.events == made.events
    path.write_text(json.dumps({**log, "id": None, "task": None, "user": None}))
    (found,) = read_sessions(str(path))
    assert (found.id, found.task, found.scope) == ("1", "", "")
    path.write_bytes(codecs.BOM_UTF8)
    assert read_sessions(str(path)) == []


def test_a_first_line_that_is_too_deep_is_named(place: Place) -> None:
    """What is nested too deep to be read is refused by its line, the first one too. (S2-51)"""
    path = place.cwd / "runs"
    path.write_text(f'{{"id": "1", "events": [], "x": {"[" * 100_000}{"]" * 100_000}}}')
    with pytest.raises(InvalidInputError, match="line 1 cannot be read"):
        read_sessions(str(path))


@pytest.mark.parametrize(
    ("content", "step"),
    [
        (json.dumps([{"id": "1", "events": []}]), "jq -c '.[]' FILE"),
        (json.dumps({"id": "1", "events": []}, indent=2), "jq -c '.' FILE"),
        ("id,events", '{"messages": [...]}'),
    ],
)
def test_json_that_is_no_lines_can_be_made_so(place: Place, content: str, step: str) -> None:
    """Sessions in one list, or spread over lines, are refused with the command that puts each on a
    line. (S2-51)"""
    (place.cwd / "runs.json").write_text(content)
    with pytest.raises(InvalidInputError) as caught:
        read_sessions(str(place.cwd / "runs.json"))
    assert step in caught.value.next_step


RUN = b'{"id": "1", "events": []}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (RUN + b"\n" + b'{"id": 7}\n', "line 3 is no recorded session"),
        (RUN + b'{"id": "1", "events": [{"k": "tool"}]}\n', "line 2 is no recorded session"),
        (RUN + b'{"id": "\xff", "events": []}\n', "line 2 "),
        (RUN + b'{"id": "1", "events": []' + b"[" * 100_000, "line 2 "),
        (b'{"id": 1}\n', "neither events nor messages"),
        (b"[]\n", "first line is no recorded session"),
        (b"id,events\n", "first line is no recorded session"),
        (b'{"messages": [{"content": "x"}]}\n', "line 1 is no recorded session"),
        (gzip.compress(RUN * 99, mtime=0)[:-20], "cannot be read: Compressed file ended"),
        (b"\x1f\x8bno gzip at all", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(place: Place, content: bytes, words: str) -> None:
    """A file that is damaged or of another form is an error that names it and the line. (S2-51)"""
    path = place.cwd / "runs"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        read_sessions(str(path))
    assert words in caught.value.message
    assert caught.value.message.startswith(str(path))


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_is_no_file_is_named(place: Place, name: str) -> None:
    """A file that is not there, or none at all, is an error of usage. (S2-51)"""
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_sessions(str(place.cwd / name))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"read_only": ["get_order", "gte_*"]}, "gte_"),
        ({"tool_s": ["get_odrer=1"]}, "get_odrer"),
        ({"tool_s": ["soon"]}, "no time"),
        ({"tool_s": ["get_order=-1"]}, "no time"),
        ({"tool_s": ["nan"]}, "no time"),
        ({"tool_s": ["1e9"]}, "no time"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    place: Place, wanted: dict[str, Any], words: str
) -> None:
    """A pattern of no tool, or a time that is none, is refused: the figures would be of something
    else. (S2-51)"""
    file = recorded(place, orders(3))
    with pytest.raises(InvalidInputError, match=words):
        show_evaluation(place, predict_eval.Wanted(file=file, **wanted))


def test_our_own_sessions_are_evaluated(place: Place, capsys: Capture) -> None:
    """Without a file the kept sessions are predicted from one another, of one user too. (S2-51)"""
    own(place, *orders(60))
    found = data(place, capsys, read_only=READS)
    assert (found["sessions"], found["calls"], found["customers"]) == (60, 120, 1)
    assert found["next_tool"]["1"] > 0.9
    assert found["verdict"].startswith("Worth turning on")
    assert data(place, capsys, read_only=READS, limit=7)["sessions"] == 7


def test_our_own_sessions_are_read_in_their_order(place: Place) -> None:
    """Kept sessions are read from the oldest on, so that none is predicted from a later one; of too
    many the latest are. (S2-51)"""
    clock = VirtualClock()
    for each in orders(4):
        asyncio.run(keep(place.home.sessions, clock, {each.id: each.events}, user="ada"))
        clock.advance(1)
    assert [each.id for each in own_sessions(place)[0]] == ["0", "1", "2", "3"]
    assert [each.id for each in own_sessions(place, 2)[0]] == ["2", "3"]


def test_customers_are_held_apart(place: Place, capsys: Capture) -> None:
    """With several users nobody's sessions are predicted from their own. (S2-51)"""
    secret = [Trajectory(f"a{n}", (Said("go"), step("get", 1, key="ada's"))) for n in range(30)]
    other = [Trajectory(f"b{n}", (Said("go"), step("get", 1, key="bob's"))) for n in range(30)]
    own(place, *secret)
    own(place, *other, user="bob")
    found = data(place, capsys, read_only=["get"])
    assert (found["customers"], found["sessions_apart"]) == (2, 2)
    assert found["exact_call"]["10"] == 0.0


def test_a_damaged_session_is_left_out(
    place: Place, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept session that cannot be read is told of, and the others are evaluated. (S2-51)"""
    own(place, *orders(3))
    load = SessionReader.load
    monkeypatch.setattr(
        SessionReader, "load", lambda reader, key: [b"x"] if key == "1" else load(reader, key)
    )
    assert show_evaluation(place, predict_eval.Wanted(as_json=True)) == 0
    said = capsys.readouterr()
    assert "left out: session 1:" in said.err
    assert json.loads(said.out)["sessions"] == 2


def test_looking_writes_nothing(place: Place, capsys: Capture) -> None:
    """Without any state there is nothing to see, and none is made. (S2-51)"""
    assert "no sessions are recorded here" in evaluated(place, capsys)
    assert shown(place, capsys) == "nothing was learnt here yet\n"
    assert shown(place, capsys, user="ada") == "nothing was learnt of ada\n"
    assert forget(place, user="ada", everything=False) == 0
    assert forget(place, user=None, everything=True) == 0
    assert not place.home.path.exists()


def test_what_was_learnt_is_shown(place: Place, capsys: Capture) -> None:
    """`show` tells the file, its size, and of each circle its calls, patterns and tools. (S2-16)"""
    learnt(place, "user ada", "user acme/bob", "")
    text = shown(place, capsys)
    assert text.startswith(f"{place.home.predictions} (")
    rows = [row.split() for row in text.splitlines()[3:]]
    assert [row[0] for row in rows] == ["everybody", "user", "user"]
    assert rows[2][:3] == ["user", "ada", "60"]
    assert "get_order, " in text
    found = json.loads(shown(place, capsys, user="bob", as_json=True))
    assert [one["circle"] for one in found["circles"]] == ["user acme/bob"]
    assert found["bytes"] == place.home.predictions.stat().st_size


def test_what_calls_ahead_were_worth_is_shown(place: Place, capsys: Capture) -> None:
    """`show` tells of each tool how often it was launched, used and foreseen, what that saved and cost
    in vain, and why it is on or off; one that is off would not be launched. On a narrow terminal all
    of it fits. (S2-40)"""
    clock = VirtualClock()
    ledger = Ledger(clock, rng=random.Random(1))
    for number in range(4):
        ledger.real("get_order", foreseen=number > 0)
        ledger.launched(f"g{number}", "get_order", clock.monotonic_ns(), 2.0, circle="user ada")
        ledger.used(f"g{number}", 1.5)
    for number in range(40):
        now_ns = clock.monotonic_ns()
        ledger.launched(f"t{number}", "track_parcel", now_ns, 2.0, 0.01, circle="user ada")
        ledger.gone(f"t{number}")
    model = predictor(arguments=ArgumentModel)
    for trajectory in orders(30, scope="user ada"):
        live(model, trajectory)
    kept(place).save(model.save(), ledger.save(), KNOWN)
    text = shown(place, capsys)
    rows = {row.split()[0]: row for row in text.splitlines() if row}
    assert rows["get_order"].split()[1:4] == ["on", "4", "100%"]
    assert "6.0 s" in rows["get_order"]
    assert rows["track_parcel"].split()[1:4] == ["off", "40", "0%"]
    assert "lost more than it saved" in rows["track_parcel:"]
    assert "; $0.40 paid in vain" in flat(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "60")
        patch.setattr(sys, "stdout", out := Tty())
        assert show(place, predict_show.Wanted()) == 0
    (_, *lines) = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()  # after the file
    assert max(len(each.rstrip()) for each in lines) <= 60
    assert {"on", "off", "6.0 s", "100%"} <= {
        cell for each in lines for cell in re.split(r"  +", each)
    }
    found = json.loads(shown(place, capsys, as_json=True))
    assert found["tools"]["get_order"]["saved_s"] == 6.0
    own(place, asked("s1a2b3"))
    (best, *_) = json.loads(shown(place, capsys, session="s1a", as_json=True))["next"]
    assert best["name"] == "track_parcel"
    assert best["launched"].startswith("no: it lost more than it saved")


def asked(number: str = "s1") -> Trajectory:
    """A session in which an order was looked up."""
    order = {"order_id": 4711, "state": "sent"}
    begun = (Said("Where is my parcel order 4711?"), step("get_order", order, order_id=4711))
    return Trajectory(number, begun)


def test_the_next_calls_of_a_session_are_explained(place: Place, capsys: Capture) -> None:
    """Of a kept session the next calls are told, with probability, whether each would be launched, and
    where it is from in words. (S2-10, S2-50)"""
    learnt(place, "user ada")
    own(place, asked("s1a2b3"))
    text = shown(place, capsys, session="s1a")
    assert text.startswith("s1a2b3, by 2 events and what user ada did\n")
    (row,) = (one for one in text.splitlines() if one.startswith("track_parcel"))
    assert row.split()[1] == '{"order_id":4711}'
    assert "\n1. track_parcel follows get_order" in text
    found = json.loads(shown(place, capsys, session="s1a", as_json=True))
    (best, *_) = found["next"]
    assert (best["name"], best["arguments"]) == ("track_parcel", {"order_id": 4711})
    assert 0 < best["probability"] <= 1
    assert found["of"] == "user ada"


def test_after_the_last_word_of_the_model_it_is_what_a_turn_begins_with(
    place: Place, capsys: Capture
) -> None:
    """Of a session that waits for its user the next calls are those that a turn begins with, and it
    is said that they come when the user writes again. (S2-50)"""
    learnt(place, "user ada")
    over = Trajectory("s1", (*asked().events, Said("It is on its way.", by_user=False)))
    own(place, over, Trajectory("s2", asked().events))
    assert "The first calls when the model answers:" in shown(place, capsys, session="s2")
    assert "The first calls when the user writes again:" in shown(place, capsys, session="s1")
    found = json.loads(shown(place, capsys, session="s1", as_json=True))
    assert found["moment"] == "idle"
    model = predict_show.predictor_of(peek(place.home.predictions))
    session = model.session("user ada")
    for event in over.events:
        session.hear(event)
    expected = model.propose(session, 10, moment=Moment.IDLE)
    assert [one["probability"] for one in found["next"]] == [one.probability for one in expected]
    assert [one["name"] for one in found["next"]] == [one.name for one in expected]
    assert found["next"][0]["name"] == "get_order"
    session.courses = session.courses.idle()
    assert found["next"][0]["why"] == model.explain(session, expected[0])


def reasons(place: Place, capsys: Capture, **wanted: Any) -> dict[str, str]:
    found = json.loads(shown(place, capsys, session="s1", as_json=True, **wanted))["next"]
    return {one["name"]: one["launched"] for one in reversed(found)}


def test_it_is_said_why_a_call_is_not_launched(place: Place, capsys: Capture) -> None:
    """Why a call would not be launched is said: its effect, results that are not kept, a trial in
    shadow, or that it is not likely enough. (S2-40)"""
    own(place, asked())
    learnt(place, "user ada", effects={})
    assert reasons(place, capsys)["track_parcel"] == "no: its effect is not known here"
    for kind in (EffectKind.WRITE, EffectKind.UNKNOWN):
        learnt(place, "user ada", effects={"track_parcel": kind})
        assert reasons(place, capsys)["track_parcel"] == f"no: it is of effect {kind.value}"
    learnt(place, "user ada")
    assert reasons(place, capsys)["track_parcel"] == "if its results are kept"
    (place.cwd / "agents" / "track_parcel.py").write_text(TRACKER)
    found = reasons(place, capsys, agents=[place.cwd / "agents"])
    assert found["track_parcel"] == "yes"
    (place.cwd / "agents" / "track_parcel.py").unlink()
    quiet = predictor(arguments=ArgumentModel)
    for trajectory in orders(30, scope="user ada"):
        quiet.learn(trajectory)
    kept(place).save(quiet.save(), None, KNOWN)
    assert reasons(place, capsys)["track_parcel"] == "no: still tried in shadow"
    code = 'EFFECT = "read"\nCACHEABLE = False\nasync def run(query): return query\n'
    (place.cwd / "agents" / "track_parcel.py").write_text(code)
    found = reasons(place, capsys, agents=[place.cwd / "agents"])
    assert found["track_parcel"] == "no: its results are not kept"


def test_what_is_unlikely_is_not_worth_it(place: Place, capsys: Capture) -> None:
    """A call below break-even would not be launched. (S2-40)"""
    own(place, asked())
    learnt(place, "user ada", effects=dict.fromkeys(KNOWN, EffectKind.READ))
    found = json.loads(shown(place, capsys, session="s1", as_json=True))["next"]
    low = [one["launched"] for one in found if one["probability"] < 0.15]
    assert low
    assert all(reason.startswith("no: ") for reason in low)
    assert any("below 15%" in reason for reason in low)


def test_what_comes_with_no_likelihood_is_not_named(place: Place, capsys: Capture) -> None:
    """A call that would be said to come with 0% is told to programs alone. (S2-51)"""
    own(place, asked())
    learnt(place, "user ada")
    text = shown(place, capsys, session="s1")
    assert "%" in text
    assert " 0% " not in text
    found = json.loads(shown(place, capsys, session="s1", as_json=True))["next"]
    assert min(one["probability"] for one in found) < 0.005


def test_a_session_of_a_stranger_is_not_predicted(place: Place, capsys: Capture) -> None:
    """Of a user of whom nothing was learnt no calls are told, whatever others did. (S2-51)"""
    learnt(place, "user ada")
    own(place, asked(), user="bob")
    assert "nothing was learnt of whom" in shown(place, capsys, session="s1")
    assert json.loads(shown(place, capsys, session="s1", as_json=True))["next"] == []


def test_a_session_must_be_one(place: Place, capsys: Capture) -> None:
    """Letters that begin no id, or several, are refused; a whole id is that one. (S2-50)"""
    own(place, asked("s1"), asked("s12"))
    assert "nothing was learnt" in shown(place, capsys, session="s1")
    for begin, words in (("s", "2 sessions begin with s"), ("t", "no session t")):
        with pytest.raises(InvalidInputError, match=words):
            show(place, predict_show.Wanted(session=begin))
    with pytest.raises(InvalidInputError, match="no session s1 of bob"):
        show(place, predict_show.Wanted(session="s1", user="bob"))


def test_a_user_is_forgotten(place: Place, capsys: Capture) -> None:
    """`forget --user` deletes what was learnt of that user in any tenant, and no more; nothing of theirs
    is left in the file. (S2-51)"""
    learnt(place, "user ada", "user acme/ada", "user bob")
    assert b"user ada" in place.home.predictions.read_bytes()
    assert forget(place, user="ada", everything=False) == 0
    assert capsys.readouterr().out == "what was learnt of ada is forgotten\n"
    assert b"ada" not in place.home.predictions.read_bytes()
    assert "user bob" in shown(place, capsys)
    assert peek(place.home.predictions) is not None
    assert forget(place, user="ada", everything=False) == 0
    assert capsys.readouterr().out == "nothing was learnt of ada\n"


def wrote(place: Place, *circles: str) -> None:
    """Has habits of messages kept, beside what is there."""
    messages = Messages(VirtualClock())
    for circle in circles:
        for _ in range(4):
            session = NextMessage(messages, circle)
            session.said(f"the words of {circle}")
            session.over()
    known = peek(place.home.predictions)
    assert known is not None
    kept(place).save(known.predictor, None, known.effects, messages.save())


def test_habits_of_messages_are_shown_as_figures(place: Place, capsys: Capture) -> None:
    """Where habits of messages are kept, `show` says how many messages were learnt of whom, and none of
    the messages; where there are none it says nothing of it. (S2-51, P-02)"""
    learnt(place, "user ada", "user bob")
    assert "MESSAGES" not in shown(place, capsys)
    wrote(place, "user ada", "user eve")
    text = shown(place, capsys)
    assert "words of" not in text
    rows = [line.split() for line in text.splitlines()[2:]]
    assert rows[0][:4] == ["OF", "CALLS", "PATTERNS", "MESSAGES"]
    told = {row[1]: row[4] for row in rows if row[:1] == ["user"]}
    assert told == {"ada": "4", "bob": "0", "eve": "4"}
    found = json.loads(shown(place, capsys, as_json=True))["circles"]
    assert {one["circle"]: one["messages"] for one in found} == {
        "user ada": 4,
        "user bob": 0,
        "user eve": 4,
    }


def test_habits_of_messages_are_forgotten_too(place: Place, capsys: Capture) -> None:
    """`forget --user` leaves nothing of what that user wrote, and of others all. (S2-51)"""
    learnt(place, "user ada", "user bob")
    wrote(place, "user ada", "user bob", "user eve")
    for user in ("ada", "eve"):
        assert forget(place, user=user, everything=False) == 0
        assert capsys.readouterr().out == f"what was learnt of {user} is forgotten\n"
        assert user.encode() not in place.home.predictions.read_bytes()
    known = peek(place.home.predictions)
    assert known is not None
    assert heard_of(known.messages) == {"user bob": 4}


def test_what_calls_ahead_were_worth_to_a_user_is_forgotten(place: Place, capsys: Capture) -> None:
    """`forget --user` deletes that user's accounts too, also where no habit is known any more, and
    leaves those of others and the totals. (S2-51)"""
    clock = VirtualClock()
    ledger = Ledger(clock, rng=random.Random(1))
    for circle in ("user ada", "user acme/ada", "user bob"):
        ledger.launched(circle, "get_order", clock.monotonic_ns(), 2.0, circle=circle)
    kept(place).save(predictor(arguments=ArgumentModel).save(), ledger.save(), KNOWN)
    assert forget(place, user="ada", everything=False) == 0
    assert capsys.readouterr().out == "what was learnt of ada is forgotten\n"
    left = place.home.predictions.read_bytes()
    assert b"ada" not in left
    assert b"user bob" in left
    ledger.load(peek_ledger(place))
    assert ledger.figures()["get_order"].launched == 3


def peek_ledger(place: Place) -> object:
    learnt = peek(place.home.predictions)
    assert learnt is not None
    return learnt.ledger


def test_what_is_shared_is_said_to_stay(place: Place, capsys: Capture) -> None:
    """Forgetting a user tells of what is shared, which cannot be taken apart. (S2-51)"""
    learnt(place, "user ada", "")
    forget(place, user="ada", everything=False)
    assert "what everybody share is not taken apart by user" in capsys.readouterr().err


@pytest.mark.parametrize("public", [[], ["get_order"]])
def test_what_public_tools_taught_is_said_to_stay(
    place: Place, capsys: Capture, public: list[str]
) -> None:
    """Forgetting a user tells what of it may be left in what all learn from; where no tool is the same
    for everybody it tells nothing. (S2-51)"""
    model = predictor(arguments=ArgumentModel, public=public)
    for circle in ("user ada", "user bob"):
        for trajectory in orders(5, scope=circle):
            live(model, trajectory)
    kept(place).save(model.save(), None, KNOWN)
    for _ in range(2):
        forget(place, user="ada", everything=False)
        said = capsys.readouterr().err
        assert ("the same for everybody (get_order) stays" in said) == bool(public)


def test_all_is_forgotten(place: Place, capsys: Capture) -> None:
    """`forget --all` deletes all, and a process that still knows it may not write it back. (S2-51)"""
    learnt(place, "user ada")
    running = kept(place)
    assert forget(place, user=None, everything=True) == 0
    assert capsys.readouterr().out == "all that was learnt is forgotten\n"
    assert peek(place.home.predictions) is None
    assert not running.save({"old": 1})


def test_a_full_disk_is_no_reason_to_remember(
    place: Place, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk `forget --all` deletes all and says that running programs cannot be told, and
    `forget --user` says that --all would do. (S2-51)"""
    learnt(place, "user ada")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="nothing was forgotten") as caught:
        forget(place, user="ada", everything=False)
    assert "paceline predict forget --all" in caught.value.next_step
    assert peek(place.home.predictions) is not None
    for _ in range(2):  # the second time there is nothing any more
        assert forget(place, user=None, everything=True) == 0
        out, err = capsys.readouterr()
        assert out == "all that was learnt is forgotten\n"
        assert "running programs cannot be told" in err
        assert not place.home.predictions.exists()


@pytest.mark.parametrize(("user", "everything"), [(None, False), ("ada", True)])
def test_forgetting_wants_to_know_what(place: Place, user: str | None, everything: bool) -> None:
    """Without --user or --all, and with both, nothing is forgotten. (S2-51)"""
    learnt(place, "user ada")
    with pytest.raises(UsageError, match="say what"):
        forget(place, user=user, everything=everything)
    assert peek(place.home.predictions) is not None


def test_a_damaged_file_is_an_error_to_look_at(place: Place, capsys: Capture) -> None:
    """`show` of a damaged file says so and leaves it; `eval` goes on without its effects. (S2-51)"""
    learnt(place, "user ada")
    place.home.predictions.write_bytes(b"x")
    with pytest.raises(StorageError):
        show(place, predict_show.Wanted())
    assert show_evaluation(place, predict_eval.Wanted(file=recorded(place, orders(3)))) == 0
    assert "cannot be read" in capsys.readouterr().err
    assert place.home.predictions.read_bytes() == b"x"


def test_nobody_is_told_to_be_forgotten_who_may_not_be(place: Place, capsys: Capture) -> None:
    """Where it cannot be read what was learnt, forgetting a user is an error that changes nothing and
    names what helps; what was moved aside before is told of. (S2-51)"""
    learnt(place, "user ada")
    good = place.home.predictions.read_bytes()
    broken = bytearray(good)
    broken[-1] ^= 1
    for content in (b"x", b"", bytes(broken)):
        place.home.predictions.write_bytes(content)
        with pytest.raises(StorageError, match="nothing was forgotten of ada") as caught:
            forget(place, user="ada", everything=False)
        assert "paceline predict forget --all" in caught.value.next_step
        assert place.home.predictions.read_bytes() == content
    place.home.predictions.unlink()
    place.home.predictions.mkdir()
    with pytest.raises(StorageError) as caught:
        forget(place, user="ada", everything=False)
    assert caught.value.next_step.startswith(f"Remove {place.home.predictions}; ")
    place.home.predictions.rmdir()
    place.home.predictions.write_bytes(good)
    for said in ("what was learnt of ada is forgotten\n", "nothing was learnt of ada\n"):
        aside = kept(place).aside
        aside.write_bytes(bytes(broken))
        assert forget(place, user="ada", everything=False) == 0
        out, err = capsys.readouterr()
        assert out == said
        assert aside.exists() is out.startswith("nothing")
        assert ("damaged, which was moved aside, may tell of ada too" in err) is aside.exists()
