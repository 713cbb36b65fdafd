"""The recipes: their programs, then their commands, as they are written, and what comes of them."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.e2e.command_line import Cli, Said

RECIPES: Final = Path(__file__).parents[2] / "docs" / "recipes.md"
CODE: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)
COMMAND: Final = re.compile(r"^    paceline (.+?)(?:  +#.*)?$", re.MULTILINE)
USES: Final = [
    "Monitor in production",
    "Optimise slow operations",
    "Cache expensive tasks",
    "Balance load across instances",
    "Track and analyse metrics",
    "Scale",
    "Identify bottlenecks",
    "Improve throughput",
]


class Followed(NamedTuple):
    """What the programs of a recipe printed, and its commands by how they are written."""

    printed: str
    commands: dict[str, Said]


Follow = Callable[[str], Followed]


def recipes() -> dict[str, str]:
    """The recipes by their titles."""
    parts = re.split(r"^## (.+)\n", RECIPES.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture
def follow(place: Path, cli: Cli) -> Follow:
    """Does what a recipe says; each of its programs and commands has to succeed."""

    def call(title: str) -> Followed:
        recipe = recipes()[title]
        printed = ""
        for code in CODE.findall(recipe):
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", code],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
            printed += done.stdout
        commands = {line: cli(*shlex.split(line)) for line in COMMAND.findall(recipe)}
        assert {line: said.code for line, said in commands.items()} == dict.fromkeys(commands, 0)
        return Followed(printed, commands)

    return call


def test_there_is_a_recipe_for_each_use() -> None:
    """What people want of Paceline has a recipe with a program each, in the order in which they ask
    for it. (S0-85)"""
    assert list(recipes()) == USES
    assert all(CODE.search(recipe) for recipe in recipes().values())


def test_production_is_monitored(follow: Follow, cli: Cli) -> None:
    """Of a service that fails a tenth of its calls, without anything switched on: the rule that is broken
    names it, the screen and the figures show the error, and Prometheus gets its count. (S0-85)"""
    commands = follow("Monitor in production").commands
    (alert,) = [line for line in commands["alerts"].out.splitlines() if " post " in line]
    assert alert.startswith("SuccessRateLow")
    assert "90 % of 40 calls" in alert
    assert "the server hung up" in commands["top --once"].out
    (trouble,) = cli("stats", "--json").data["totals"]["troubles"]
    assert (trouble["category"], trouble["count"]) == ("network", 4)
    assert "4x network" in commands["stats --verbose"].out
    counted = 'paceline_errors_total{agent="post",category="network",kind="agent"} 4.0'
    assert counted in commands["metrics"].out


def test_slow_operations_are_found_and_compared(follow: Follow, cli: Cli) -> None:
    """The profile names what held a run up; once its calls run together only the slower one does, and the
    comparison of the two runs says what changed. (S0-85)"""
    printed, commands = follow("Optimise slow operations")
    before, after = printed.split()

    def path(run: str) -> set[str]:
        profile = cli("profile", run, "--json").data
        names = {call["id"]: call["name"] for call in profile["calls"]}
        return {names[part["call"]] for part in profile["path"]}

    assert path(before) == {"one_by_one", "prices", "stock"}
    assert path(after) == {"together", "prices"}
    assert after in commands["profile"].out
    totals = [line.split()[:2] for line in commands["profile --top"].out.splitlines()]
    assert ["prices", "2"] in totals
    compared = cli("profile", after, "--against", before, "--json").data["names"]
    known = {name["name"]: (name["before"], name["after"]) for name in compared}
    assert known["one_by_one"][1] is known["together"][0] is None
    assert all(known["stock"])


def test_expensive_tasks_are_cached(follow: Follow, cli: Cli) -> None:
    """Of 200 calls of a function five are executed, and of ten of an agent one, which the command line
    tells of afterwards. (S0-85)"""
    printed, commands = follow("Cache expensive tasks")
    assert printed.splitlines() == ["5 computed of 200", "9 of 10 kept, $0.09 saved"]
    assert "hit rate 90.0%" in commands["cache stats"].out
    seen = cli("cache", "stats", "--json").data
    assert (seen["calls"], seen["executed"], seen["kept"]["entries"]) == (10, 1, 1)


def test_load_is_spread_over_instances(follow: Follow, cli: Cli) -> None:
    """Three equal instances get a third of the calls each, one that is drained gets none, and no call
    fails for it. (S0-85)"""
    printed, commands = follow("Balance load across instances")
    assert printed == "{'ask-0': 20, 'ask-1': 20, 'ask-2': 20}\n"
    assert "Calls: 80" in commands["stats"].out
    assert cli("stats", "--json").data["totals"]["successes"] == 80


def test_metrics_are_tracked_and_analysed(follow: Follow) -> None:
    """Tracked functions have quantiles, the interval of their success rate, and their errors counted
    by kind. (S0-85)"""
    quantile, trouble = follow("Track and analyse metrics").printed.splitlines()
    found = re.fullmatch(r"p95 (\d+) ns; 70% to 97% succeed", quantile)
    assert found is not None
    assert int(found[1]) > 0
    assert trouble == "2 nothing to look up"


def test_it_scales_by_processes_and_by_instances(follow: Follow) -> None:
    """Two workers are two processes, and instances that are added while calls wait take five of them
    each at once. (S0-85)"""
    printed, commands = follow("Scale")
    assert printed.splitlines() == ["2 processes", "15 at once"]
    assert re.findall(r"pid +(worker-\d)", commands["instances"].out) == ["worker-1", "worker-2"]


def test_the_bottleneck_is_named(follow: Follow, cli: Cli) -> None:
    """Where calls wait for a limit and not for the work, the advice is to raise that limit, with how many
    waited. (S0-85)"""
    commands = follow("Identify bottlenecks").commands
    assert re.search(r"max_concurrency = \d+ in \[run\]", commands["advise"].out)
    (advice,) = cli("advise", "--json").data["advice"]
    (change,) = advice["changes"]
    assert (advice["rule"], change["name"]) == ("concurrency", "run.max_concurrency")
    assert change["value"] > 1
    assert advice["evidence"]["waited"] == 29
    assert re.search(r"^search +30 ", commands["profile --top"].out, re.MULTILINE)


def test_throughput_is_improved(follow: Follow) -> None:
    """Reads of one answer run together, equal calls of one moment are executed once, and what was made
    ahead is there when it is asked for. (S0-85)"""
    printed, commands = follow("Improve throughput")
    assert printed.splitlines() == [
        "4 tools, up to 4 at once",
        "1 executed, 49 joined",
        "hot",
    ]
    ran = dict(re.findall(r"^(weather|news) +(\d+) ", commands["profile --top"].out, re.MULTILINE))
    assert int(ran["weather"]) == 4
