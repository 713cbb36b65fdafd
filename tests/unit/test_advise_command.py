"""`paceline advise`, on a history of its own."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from paceline.advise.advice import LEAST
from paceline.advise.declared import Declared
from paceline.call import EffectKind, Kind
from paceline.cli import advise as command
from paceline.cli import advise_known as sources
from paceline.cli.advise import Wanted, show_advice
from paceline.cli.advise_known import known_agents
from paceline.cli.app import build
from paceline.cli.completed import completed
from paceline.cli.place import Place
from paceline.errors import Category
from paceline.history.record import Record
from paceline.predict.arguments import ArgumentModel
from paceline.predict.events import Called, Step, Trajectory
from paceline.predict.events import Said as Heard
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.kept import KeptPredictions
from paceline.testing.virtual_time import VirtualClock
from tests.kept_sessions import keep
from tests.recorded import row, write

S = 1_000_000_000
Said = pytest.CaptureFixture[str]

WEATHER = """EFFECT = "read"
CACHE_TTL = 60
async def run(query): return query
"""
LONG = "a_name_" + "x" * 90


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where nothing was recorded yet, with one agent."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "weather.py").write_text(WEATHER)
    return Place({}, tmp_path, home=tmp_path / "state")


def calls(name: str, count: int, *, every_s: int = 200, **fields: Any) -> list[Record]:
    """Executions that returned the same each time, the last of them now."""
    asked = {"name": name, "input_hash": "in", "output_hash": "out", "output_bytes": 9}
    return [
        row(f"{name}{n}", VirtualClock.EPOCH_NS - n * every_s * S, **(asked | fields))
        for n in range(count)
    ]


def recorded(place: Place, *records: list[Record]) -> None:
    place.home.path.mkdir(exist_ok=True)
    write(place.home.history, [one for each in records for one in each])


def shown(place: Place, said: Said, **wanted: Any) -> str:
    dirs = [place.cwd / "agents"]
    assert show_advice(place, Wanted(agents=dirs, **wanted), clock=VirtualClock()) == 0
    return said.readouterr().out


def test_advice_is_shown(place: Place, capsys: Said) -> None:
    """Each piece of advice names its agent, the setting and its value, why, and what it saves; a
    declared effect comes first where there is none. (S1-60)"""
    recorded(place, calls("weather", 100, cost_usd=0.01), calls("unknown", 30))
    text = shown(place, capsys)
    assert text == (
        "2 suggestions from 130 calls of 2 agents in the last 7 d\n"
        "\n"
        "1. weather: keep its results for 3600 s, not 60 s\n"
        "   set    CACHE_TTL = 3600 in the agent\n"
        "   why    94 of 100 executions came after the result had expired and within 3600\n"
        "          s, and 94 of them returned the same\n"
        "   saves  about 470 ms and $0.94 in that time\n"
        "   sure   medium\n"
        "\n"
        "2. unknown: cache its results for 3600 s\n"
        '   set    EFFECT = "read" in the agent\n'
        "   set    CACHE_TTL = 3600 in the agent\n"
        "   but    It declares no effect, and until then is never cached: write EFFECT =\n"
        "          \"read\" only if it changes nothing ('pure' if it depends on its input\n"
        "          alone), or CACHEABLE = True.\n"
        "   why    28 of 30 executions were asked again within that time, and 28 of them\n"
        "          returned the same\n"
        "   saves  about 140 ms in that time\n"
        "   sure   low\n"
    )


def test_advice_fits_a_terminal(place: Place, capsys: Said) -> None:
    """No line is longer than 80 columns, whatever agents are called. (S1-60)"""
    recorded(place, calls(LONG, 100), calls("weather", 100))
    text = shown(place, capsys)
    assert LONG[:60] in text
    assert all(len(line) <= 80 for line in text.splitlines())
    nothing = shown(place, capsys, agent="y" * 100)
    assert all(len(line) <= 80 for line in nothing.splitlines())


def test_programs_get_json(place: Place, capsys: Said) -> None:
    """With `--format json` there is one object with the figures behind each piece. (S1-60)"""
    recorded(place, calls("weather", 100, cost_usd=0.01))
    told = json.loads(shown(place, capsys, form="json"))
    (advice,) = told["advice"]
    assert (told["version"], told["calls"], told["agents"], told["nothing"]) == (1, 100, 1, None)
    assert advice["changes"] == [{"where": "agent", "name": "CACHE_TTL", "value": 3600.0}]
    assert advice["evidence"] == {"executions": 100, "expired": 94, "same": 94, "ttl_s": 60.0}
    assert (advice["rule"], advice["agent"], advice["confidence"]) == (
        "ttl_short",
        "weather",
        "medium",
    )
    assert advice["saved_s"] == pytest.approx(0.47)


@pytest.mark.parametrize(
    ("count", "wanted", "reason"),
    [
        (0, {}, "no calls are recorded in the last 7 d."),
        (9, {}, "9 calls of 1 agent in the last 7 d, fewer than the 20 of one agent"),
        (100, {"agent": "other"}, "no calls of other are recorded in the last 7 d."),
        (100, {"last_s": 60.0}, "1 call of 1 agent in the last 60 s, fewer than the 20 of one"),
    ],
)
def test_why_there_is_nothing(
    place: Place, count: int, wanted: dict[str, Any], reason: str, capsys: Said
) -> None:
    """Where there is nothing to advise, the reason is said, in both forms. (S1-60)"""
    recorded(place, calls("weather", count))
    text = " ".join(shown(place, capsys, **wanted).split())
    assert text.startswith(f"Nothing to advise: {reason}")
    told = json.loads(shown(place, capsys, form="json", **wanted))
    assert told["advice"] == []
    assert text == f"Nothing to advise: {told['nothing']}."


def test_enough_calls_may_show_nothing(place: Place, capsys: Said) -> None:
    """Where there were enough calls and no rule found anything, that is the reason. (S1-60)"""
    recorded(place, calls("weather", 100, category=Category.INVALID, output_hash=None))
    assert "no rule found enough in 100 calls" in shown(place, capsys)


def test_without_a_history_that_is_said(tmp_path: Path, capsys: Said) -> None:
    """Where calls are not recorded, that is the reason. (S1-60)"""
    place = Place({"PACELINE_HISTORY_ENABLED": "false"}, tmp_path, home=tmp_path / "state")
    assert show_advice(place, Wanted(), clock=VirtualClock()) == 0
    assert "history.enabled is off" in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


def test_of_many_calls_the_latest_are_looked_at(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    """When there are more calls than are looked at, that is said beside the result. (S1-60)"""
    monkeypatch.setattr(command, "_MOST", 50)
    recorded(place, calls("weather", 100))
    dirs = [place.cwd / "agents"]
    assert show_advice(place, Wanted(agents=dirs), clock=VirtualClock()) == 0
    said = capsys.readouterr()
    assert "from 50 calls" in said.out
    assert said.err == "note: of the calls in that time, the latest 50 are looked at\n"


def test_a_broken_agent_is_named(place: Place, capsys: Said) -> None:
    """An agent that cannot be loaded is named beside the result, which there is all the same.
    (S1-60)"""
    (place.cwd / "agents" / "broken.py").write_text("def")
    recorded(place, calls("weather", 100))
    dirs = [place.cwd / "agents"]
    assert show_advice(place, Wanted(agents=dirs), clock=VirtualClock()) == 0
    said = capsys.readouterr()
    assert "1 suggestion from" in said.out
    assert "note: broken cannot be loaded" in said.err


def test_declarations_are_read(place: Place) -> None:
    """What rules need to know of an agent is read from what it declares. (S1-60)"""
    folder = place.cwd / "agents"
    (folder / "limits.py").write_text(
        "TIMEOUT = 5\nMAX_CONCURRENCY = 2\ndef run(query): return query\n"
    )
    (folder / "plans.py").write_text(
        "from paceline import Plan\ndef plan(query): return Plan()\nasync def run(query): ...\n"
    )
    (folder / "rules.py").write_text(
        'EFFECT = "pure"\nTTL_RULES = {"df": 60}\nasync def run(query): ...\n'
    )
    settings = place.settings()
    agents = completed(known_agents(place, settings, [folder])).agents
    assert agents["weather"] == Declared(effect=EffectKind.READ, cacheable=True, ttl_s=60.0)
    assert agents["limits"] == Declared(timeout_s=5.0, max_concurrency=2, in_threads=True)
    assert agents["plans"].per_call
    assert agents["rules"].per_call


@pytest.mark.parametrize("form", [["--format", "json"], ["--json"]])
def test_the_command_takes_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    """`paceline advise` takes an agent, how far to look back, and the form, as other commands do
    too. (S1-60)"""
    monkeypatch.chdir(tmp_path)
    where = ["--home", str(tmp_path / "state"), "advise", "--agent", "weather", "--last", "2h"]
    said = typer.testing.CliRunner().invoke(build(drawn=False), [*where, *form])
    assert said.exit_code == 0
    told = json.loads(said.stdout)
    assert told["last_s"] == 7_200.0
    assert told["nothing"] == "no calls of weather are recorded in the last 2 h"


def habits(place: Place, effects: dict[str, EffectKind], *, again: int = 0) -> None:
    """Has it learnt that two tools are called for one thing, one of them so many times more, and a
    third for what the first gave."""
    model = PerformancePredictor(clock=VirtualClock(), arguments=ArgumentModel)
    for number in range(1_000, 1_020):
        both = (
            Called("weather", {"city": number}, "rain"),
            Called("get_hotels", {"city": number}, {"id": number * 7}),
            *(Called("weather", {"city": -more}, "sun") for more in range(again)),
        )
        then = Called("get_rooms", {"hotel": number * 7}, "two")
        model.learn(Trajectory(str(number), (Heard(f"go {number}"), Step(both), Step((then,)))))
    kept = KeptPredictions(place.home.predictions, VirtualClock(), on_trouble=lambda _: None)
    assert kept.save(model.save(), None, effects)


def test_tools_that_never_need_one_another_are_named(place: Place, capsys: Said) -> None:
    """What was learnt to run side by side is named, if it changes nothing, by what agents declare and
    programs knew. (S2-10, S2-51)"""
    recorded(place, calls("weather", 100))
    read = dict.fromkeys(("get_hotels", "get_rooms"), EffectKind.READ)
    habits(place, read)
    text = shown(place, capsys)
    assert text.startswith("1 suggestion from 100 calls")
    assert "Never needed one another in any session" in text
    assert "\n- get_hotels, weather\n" in text
    assert "get_hotels, get_rooms" not in text
    told = json.loads(shown(place, capsys, form="json"))
    assert ["get_hotels", "weather"] in told["side_by_side"]
    habits(place, {**read, "get_hotels": EffectKind.WRITE})
    assert json.loads(shown(place, capsys, form="json"))["side_by_side"] == [
        ["get_rooms", "weather"]
    ]
    assert "Never needed" not in shown(place, capsys, agent="weather")


def kept(place: Place, *, sessions: int, took_s: float = 2.0) -> None:
    """Keeps sessions that asked for two things in two answers."""
    events = (
        Heard("go"),
        Step((Called("weather", {"city": "x"}, "rain"),)),
        Step((Called("get_hotels", {"city": "x"}, "one"),)),
    )
    path, clock = place.home.sessions, VirtualClock()
    named = {f"s{number}": events for number in range(sessions)}
    asyncio.run(keep(path, clock, named, took_ns=round(took_s * S)))


def test_what_groups_would_save_is_told(place: Place, capsys: Said) -> None:
    """Tools of a group that kept sessions asked for one after the other are advice with the seconds
    that took; groups that no session shows so stay a list. (V-38, S2-10)"""
    habits(place, dict.fromkeys(("get_hotels", "get_rooms"), EffectKind.READ))
    kept(place, sessions=LEAST)
    text = shown(place, capsys)
    assert text.startswith("1 suggestion from 0 calls of 0 agents and 20 kept sessions in")
    assert "have the model ask for get_hotels and weather in one answer" in text
    assert "saves  about 40 s" in text
    assert "\n- get_hotels, weather\n" not in text
    told = json.loads(shown(place, capsys, form="json"))
    assert told["advice"][0]["tools"] == ["get_hotels", "weather"]
    assert (told["sessions"], told["tools"]) == (LEAST, 0)
    assert ["get_rooms", "weather"] in told["side_by_side"]
    assert ["get_hotels", "weather"] not in told["side_by_side"]
    habits(place, dict.fromkeys(("get_hotels", "get_rooms"), EffectKind.READ), again=1)
    assert ["weather", "weather"] in json.loads(shown(place, capsys, form="json"))["side_by_side"]
    ago = VirtualClock()
    ago.wall_ns = lambda: VirtualClock.EPOCH_NS + 8 * 86_400 * S  # type: ignore[method-assign]
    assert show_advice(place, Wanted(agents=[place.cwd / "agents"]), clock=ago) == 0
    text = capsys.readouterr().out
    assert text.startswith("Nothing to advise")
    assert "\n- get_hotels, weather\n" in text


def test_groups_need_enough_sessions(place: Place, capsys: Said) -> None:
    """With too few kept sessions, and without any, groups are only listed. (V-38)"""
    habits(place, dict.fromkeys(("get_hotels", "get_rooms"), EffectKind.READ))
    before = json.loads(shown(place, capsys, form="json"))
    kept(place, sessions=LEAST - 1)
    after = json.loads(shown(place, capsys, form="json"))
    assert before["advice"] == after["advice"] == []
    assert before["side_by_side"] == after["side_by_side"] != []


@pytest.mark.parametrize("broken", ["file", "session"])
def test_sessions_that_cannot_be_read_are_told_of(place: Place, broken: str, capsys: Said) -> None:
    """Advice on calls is given where sessions cannot be read, and those are told of. (V-38)"""
    recorded(place, calls("weather", 100))
    before = shown(place, capsys)
    if broken == "file":
        place.home.sessions.write_bytes(b"x" * 5_000)
    else:
        kept(place, sessions=3)
        with closing(sqlite3.connect(place.home.sessions)) as db, db:
            db.execute("UPDATE entries SET entry = x'00' WHERE session = 1")
    assert show_advice(place, Wanted(agents=[place.cwd / "agents"]), clock=VirtualClock()) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[2:] == before.splitlines()[2:]
    assert "kept sessions cannot be read" in said.err


def test_of_many_sessions_the_latest_are_looked_at(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    """When there are more kept sessions than are looked at, that is said. (V-38)"""
    monkeypatch.setattr(sources, "_MOST_SESSIONS", 2)
    kept(place, sessions=3)
    assert show_advice(place, Wanted(agents=[place.cwd / "agents"]), clock=VirtualClock()) == 0
    assert "the latest 2 are looked at" in capsys.readouterr().err


MCP = """[mcp.files]
command = ["files"]
[mcp.files_old]
command = ["files"]
[mcp."my \\"files\\""]
command = ["files"]
ttl_s = 60
"""


def test_tools_are_advised_where_they_are_declared(place: Place, capsys: Said) -> None:
    """What is advised of a tool is an option of it, or a setting of the server that it is of; no
    server is started for it. (V-38)"""
    config = place.cwd / "paceline.toml"
    config.write_text(MCP)
    place = Place({}, place.cwd, config=config, home=place.home.path)
    of_tool: dict[str, Any] = {"kind": Kind.TOOL}
    recorded(
        place,
        calls("get_hotels", 30, **of_tool),
        calls("files_read", 30, **of_tool),
        calls("files_old_read", 30, **of_tool),
        calls("my__files__read", 30, **of_tool),
        calls("weather", 30),
    )
    served = ("files_read", "files_old_read", "my__files__read")
    habits(place, dict.fromkeys(("get_hotels", *served), EffectKind.READ))
    text = shown(place, capsys)
    assert text.startswith("5 suggestions from 150 calls of 1 agent and 4 tools in the last 7 d")
    assert "   set    ttl_s = 3600 in the tool\n" in text
    assert "effect =" not in text
    assert "   set    ttl_s = 3600 in [mcp.files] of the settings\n" in text
    assert "   set    ttl_s = 3600 in [mcp.files_old] of the settings\n" in text
    assert '   set    ttl_s = 3600 in [mcp."my \\"files\\""] of the settings\n' in text
    assert all(len(line) <= 80 for line in text.splitlines())
    told = json.loads(shown(place, capsys, agent="files_read", form="json"))
    (advice,) = told["advice"]
    assert (advice["kind"], advice["agent"]) == ("tool", "files_read")
    assert advice["changes"] == [{"where": "settings", "name": "mcp.files.ttl_s", "value": 3600.0}]
    assert (told["calls"], told["agents"], told["tools"]) == (30, 0, 1)


def test_advice_needs_nothing_that_was_learnt(place: Place, capsys: Said) -> None:
    """Without what was learnt, and with a file that cannot be read, advice is given as before. (S1-60)"""
    recorded(place, calls("weather", 100))
    before = shown(place, capsys)
    place.home.predictions.write_bytes(b"x")
    assert show_advice(place, Wanted(agents=[place.cwd / "agents"]), clock=VirtualClock()) == 0
    said = capsys.readouterr()
    assert said.out == before
    assert "what was learnt cannot be read" in said.err
