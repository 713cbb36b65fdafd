"""`paceline instances`: what runs in other processes is shown there, and does what is wanted."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline import Runtime
from paceline.call import Call
from paceline.cli.instances import InstancesView
from paceline.cli.views import Shape
from paceline.clock import SystemClock
from paceline.config import load
from paceline.fleets import Fleets
from paceline.roster import Roster, State, Status
from tests.e2e.command_line import Cli

FLEETS = """
[[fleets.translator.instances]]
kind = "local"
capacity = 3
[[fleets.translator.instances]]
kind = "local"
id = "spare"
[[fleets.writer.instances]]
kind = "local"
"""
SERVING = """
import asyncio, sys
from pathlib import Path
from paceline.balance.balancer import LoadBalancer
from paceline.balance.instance import AgentInstance
from paceline.clock import SystemClock
from paceline.roster import Roster, following

async def main():
    clock, balancer = SystemClock(), LoadBalancer()
    for name in ("http-1", "http-2"):
        balancer.register(AgentInstance(name, "translator", max_capacity=2))
    roster = Roster(Path(sys.argv[1]) / "instances.sqlite", clock)
    async with following(roster, balancer, clock, notice=print, every_s=0.02):
        said = None
        while True:
            open_ones = " ".join(i.id for i in balancer.fleet("translator").candidates())
            if open_ones != said:
                said = open_ones
                print("open:", said, flush=True)
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


class Serving:
    """A process that has instances, and says which of them are open."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-c", SERVING, str(home)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture
def home(place: Path) -> Path:
    return place / ".paceline"


@pytest.fixture
def serving(home: Path) -> Iterator[Serving]:
    it = Serving(home)
    assert it.says() == "open: http-1 http-2"
    yield it
    it.end()


@pytest.fixture
def roster(home: Path) -> Iterator[Roster]:
    """What this process publishes."""
    it = Roster(home / "instances.sqlite", SystemClock())
    yield it
    it.close()


def until_shown(cli: Cli, *words: str) -> str:
    deadline = time.monotonic() + 60
    while not all(word in (out := cli("instances").out) for word in words):
        assert time.monotonic() < deadline, out
    return out


def status(instance: str, **more: object) -> Status:
    fields = {"agent": "translator", "state": State.UP, "in_flight": 1, "capacity": 8, "limit": 4}
    return Status(instance=instance, **{**fields, **more})  # type: ignore[arg-type]


def test_a_running_process_does_what_the_command_says(cli: Cli, serving: Serving) -> None:
    """Draining, ejecting and restoring act on a process that runs, and are shown as soon as it does
    so; what was wanted holds in the next process too, and is kept while none runs.
    (S0-59, S0-66)"""
    until_shown(cli, f"translator  http-1    up     0/2   -    -       {serving.process.pid}")
    said = cli("instances", "drain", "translator", "http-1")
    assert said.code == 0
    assert "1 running process will do so" in said.out
    assert serving.says() == "open: http-2"
    until_shown(cli, "http-1    drained")
    cli("instances", "eject", "translator", "http-2", "--for", "10m")
    assert serving.says() == "open:"
    until_shown(cli, "http-2    ejected 10 min")
    cli("instances", "restore", "translator", "http-1")
    assert serving.says() == "open: http-1"
    serving.end()
    shown = cli("instances").out
    assert "http-2    not running, ejected 10 min" in shown
    assert "http-1" not in shown
    again = Serving(cli_home(serving))
    assert again.says() == "open: http-1"
    again.end()
    said = cli("instances", "restore", "translator", "http-2")
    assert "No process runs it now" in said.out
    assert cli("instances").out == "no instances; state some in [fleets] of the settings\n"


def cli_home(serving: Serving) -> Path:
    assert isinstance(serving.process.args, list)
    return Path(str(serving.process.args[-1]))


def test_instances_of_the_settings_are_shown_as_not_running(cli: Cli, place: Path) -> None:
    """Without a process, the instances in the settings are shown under the names that a runtime will
    give them. (S0-66)"""
    (place / "paceline.toml").write_text(FLEETS)
    settings = load(file=place / "paceline.toml", environ={})

    async def local(call: Call) -> object:
        return call

    fleets = Fleets(settings, clock=SystemClock(), rng=random.Random(1), environ={}, local=local)
    named = [(agent, i.id) for agent, ones in fleets.balancer.instances.items() for i in ones]
    rows = [line.split()[:4] for line in cli("instances").out.splitlines()[1:]]
    assert rows == [[agent, name, "not", "running"] for agent, name in sorted(named)]
    assert "-/3" in cli("instances", "translator").out
    assert "writer" not in cli("instances", "translator").out


def test_a_wish_for_what_does_not_run_yet_is_kept(cli: Cli, place: Path) -> None:
    """An instance of the settings can be drained before anything runs, and is shown so; to restore
    it twice changes nothing and is no failure. (S0-59)"""
    (place / "paceline.toml").write_text(FLEETS)
    assert "holds for those that start" in cli("instances", "drain", "translator", "spare").out
    assert "spare     not running, drained" in cli("instances").out
    assert cli("instances", "restore", "translator", "spare").code == 0
    said = cli("instances", "restore", "translator", "spare")
    assert (said.code, "nothing was changed" in said.out) == (0, True)
    assert "drained" not in cli("instances").out


def test_what_is_not_there_is_told_with_what_is(cli: Cli, place: Path) -> None:
    """An agent or instance that nobody knows is wrong usage, tells near names, and writes nothing."""
    (place / "paceline.toml").write_text(FLEETS)
    for words, near in (
        (("translater",), "Did you mean translator?"),
        (("drain", "translater", "spare"), "Did you mean translator?"),
        (("drain", "translator", "spear"), "Did you mean spare?"),
        (("eject", "translator", "x"), "There are: local-1, spare."),
        (("restore", "poet", "x"), "There are: translator, writer."),
    ):
        said = cli("instances", *words)
        assert (said.code, said.out, near in said.err) == (2, "", True), said
    assert not (place / ".paceline" / "instances.sqlite").exists()


@pytest.mark.parametrize("time", ["0", "0s", "-5m", "soon", "1.5h", ""])
def test_a_time_that_is_none_is_refused(cli: Cli, place: Path, time: str) -> None:
    """An ejection needs a time that is one, or none at all."""
    (place / "paceline.toml").write_text(FLEETS)
    assert cli("instances", "eject", "translator", "spare", f"--for={time}").code == 2
    assert "ejected" not in cli("instances").out


def test_the_table_fits_a_terminal_of_old(cli: Cli, roster: Roster) -> None:
    """Load, times, failures and process stand in a table of at most 80 columns, instances in the
    order of their numbers, and a state says how long it lasts. (S0-66, S0-82)"""
    soon_ns = SystemClock().wall_ns() + 3_900_000_000
    roster.publish(
        [
            status("http-10", p95_ms=1234.5, error_rate=0.023),
            status("http-2", state=State.CIRCUIT_OPEN, opens_ns=soon_ns, error_rate=1.0),
        ]
    )
    lines = cli("instances").out.splitlines()
    assert [line.split()[1] for line in lines] == ["INSTANCE", "http-2", "http-10"]
    assert "circuit open 4 s" in lines[1]
    assert lines[2].split()[3:6] == ["1/4", "1.23s", "2%"]
    assert max(map(len, lines)) <= 80


def test_machines_get_all_there_is_to_know(cli: Cli, place: Path, roster: Roster) -> None:
    """As JSON there is an object a line for each instance, with the figures as numbers and what is
    wanted of it; `--json` is short for it. (S0-66)"""
    (place / "paceline.toml").write_text(FLEETS)
    roster.publish([status("spare", p95_ms=1.5)])
    cli("instances", "drain", "translator", "spare")
    said = cli("instances", "translator", "--format", "json")
    first, second = said.out.splitlines()
    assert said.out == cli("instances", "--json", "translator").out
    for text in ('"state":"not running"', '"capacity":3', '"in_flight":null', '"wish":null'):
        assert text in first
    for text in ('"state":"up"', '"limit":4', '"p95_ms":1.5', '"kind":"drained"'):
        assert text in second
    assert cli("instances", "--watch", "--json").code == 2


def test_a_wish_that_is_not_done_yet_is_shown(cli: Cli, roster: Roster) -> None:
    """Until a process has done what is wanted of its instance, both are shown."""
    roster.publish([status("http-1")])
    cli("instances", "drain", "translator", "http-1")
    assert "  up, drained  " in cli("instances").out


def test_an_agent_of_the_name_of_a_command_can_be_shown(cli: Cli, roster: Roster) -> None:
    """`show` takes any name, those of the other commands too."""
    roster.publish([status("http-1", agent="drain")])
    assert "drain  http-1" in cli("instances", "show", "drain").out


def test_a_watch_in_a_pipe_is_one_frame(cli: Cli, roster: Roster) -> None:
    """Without a terminal, watching prints what there is once, or fails with the reason."""
    roster.publish([status("http-1")])
    said = cli("instances", "translator", "--watch")
    assert (said.code, len(said.out.splitlines())) == (0, 2)
    assert cli("instances", "poet", "--watch").code == 2
    roster.close()
    roster.path.write_bytes(b"this is no database" * 100)
    assert "moved aside" in cli("instances", "--watch").err


def test_a_watch_shows_what_there_is_room_for(roster: Roster) -> None:
    """A frame is never larger than the screen; what is not well stands out, trouble is told, and
    once it is over all is shown again."""
    view = InstancesView(roster, {}, None, SystemClock())
    view.refresh()
    assert [line.text for line in view.lines(Shape(width=30))] == ["no instances; state some in […"]
    roster.publish([status(f"http-{n}", agent="n" * 70) for n in range(9)])
    roster.publish([status("http-1"), *[status(f"i-{n}", state=State.EJECTED) for n in range(9)]])
    view.refresh()
    frame = view.lines(Shape(width=40, height=6, keys=True))
    assert [line.style for line in frame] == ["dim", "head", "", "bad", "bad", "dim"]
    assert frame[-1].text == "and 7 more"
    assert max(len(line.text) for line in frame) <= 40
    roster.close()
    kept = roster.path.read_bytes()
    roster.path.write_bytes(b"this is no database" * 100)
    view.refresh()
    assert "damaged" in " ".join(line.text for line in view.lines(Shape()))
    roster.path.write_bytes(kept)
    view.refresh()
    assert len(view.lines(Shape())) == 11


def test_a_watch_of_an_agent_goes_on_without_it(roster: Roster) -> None:
    """When the last instance of the agent that is watched has gone, the frame says that there is
    none, and keys do nothing."""
    roster.publish([status("http-1")])
    view = InstancesView(roster, {}, "translator", SystemClock())
    assert view.refresh() is False
    assert len(view.lines(Shape())) == 2
    roster.publish([])
    view.refresh()
    assert not view.key("x")
    assert view.problem is None
    assert view.lines(Shape())[0].text.startswith("no instances")


NOTICED = """
[fleets.echo]
fallback = ["agent gone", "agent far"]
[fleets.other]
fallback = ["agent lost"]
[[fleets.other.instances]]
kind = "local"
[[fleets.far.instances]]
url = "http://127.0.0.1:1/"
token_env = "NOT_SET"
[[fleets.near.instances]]
url = "http://127.0.0.1:1/"
token_env = "NOT_SET"
[fleets.idle]
hedge = true
"""


def test_a_run_says_what_is_about_it(cli: Cli, place: Path) -> None:
    """A run tells of what is wrong with the fleet of its agent and those it falls back to, and of no
    others; the list of agents tells of all. (S0-66, S0-83)"""
    (place / "paceline.toml").write_text(NOTICED)
    said = cli("run", "echo", "x").err
    assert "there is no agent gone" in said
    assert "instance http-1 of fleets.far" in said
    assert "lost" not in said
    assert "other" not in said
    assert "near" not in said
    assert cli("run", "failing", "x").err.count("note:") == 0
    assert "lost" not in cli("run", "missing", "x").err
    assert "lost" in cli("agents").err
    said = cli("run", "idle", "x").err
    assert "there is no agent 'idle'" in said
    assert "note: fleets.idle has no instances. Add [[fleets.idle.instances]]" in said


def test_what_is_not_among_the_instances_is_told(cli: Cli, place: Path) -> None:
    """The list of instances tells of those that cannot be used and of fleets that have none; who
    asks for such a fleet is told how it gets some. (S0-66, S0-83)"""
    (place / "paceline.toml").write_text(NOTICED)
    said = cli("instances").err
    assert "instance http-1 of fleets.far: the environment variable NOT_SET is not set" in said
    assert "instance http-1 of fleets.near" in said
    assert "no instances: echo, idle" in said
    assert cli("instances", "far").err.count("note:") == 1
    assert cli("instances", "--json").err == ""
    said = cli("instances", "idle").err
    assert "there is no instance of 'idle'" in said
    assert "[[fleets.idle.instances]]" in said


def test_commands_that_are_none_are_named(cli: Cli, place: Path) -> None:
    """Who asks for the list of instances by the word gets it, and a command that is mistyped is
    named with the one that is meant. (S0-66, S0-83)"""
    (place / "paceline.toml").write_text(FLEETS)
    assert cli("instances", "list") == cli("instances")
    assert cli("instances", "list", "writer").out == cli("instances", "writer").out
    said = cli("instances", "drian", "translator", "spare")
    assert said.code == 2
    assert "there is no command 'drian'" in said.err
    assert "Did you mean drain?" in said.err
    said = cli("instances", "stop", "translator", "spare")
    assert "There are: drain, eject, restore, show." in said.err


def test_an_answer_that_is_a_fallback_is_told_of(cli: Cli, place: Path) -> None:
    """Where a fallback answered, a run says beside the answer in place of what. (S0-81, S0-83)"""
    (place / "paceline.toml").write_text('[fleets.failing]\nfallback = ["text sorry"]')
    said = cli("run", "failing", "x")
    assert (said.code, said.out) == (0, "sorry\n")
    assert "note: a fallback answered, as failing failed" in said.err
    assert "no such thing" in said.err
    said = cli("run", "failing", "x", "--json")
    assert said.data["value"] == "sorry"
    assert "no such thing" in said.data["instead_of"]["message"]
    assert cli("run", "echo", "x", "--json").data["instead_of"] is None


def test_who_finds_nothing_open_is_told_where_to_look(cli: Cli, place: Path) -> None:
    """A run that finds all instances drained says which commands show that and take it back.
    (S0-66, S0-83)"""
    (place / "paceline.toml").write_text('[[fleets.echo.instances]]\nkind = "local"\nid = "one"')
    cli("instances", "drain", "echo", "one")
    said = cli("run", "echo", "x")
    assert said.code == 1
    assert "`paceline instances`" in said.err


def test_what_is_found_at_the_end_of_a_run_is_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong while a run is closed, such as writing its record, is told too. (S0-30)"""
    close = Runtime.__aexit__

    async def closed(self: Runtime, *error: Any) -> None:
        await close(self, *error)
        self.notices.append("calls are not recorded: too late")

    monkeypatch.setattr(Runtime, "__aexit__", closed)
    assert "calls are not recorded: too late" in cli("run", "echo", "x").err
    assert "calls are not recorded: too late" in cli("run", "missing", "x").err
