"""`paceline cache`, as a user meets it."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paceline import Runtime, Source, SyncRuntime
from paceline.cli import cache
from paceline.cli.cache import short_time
from paceline.config import load
from paceline.results import StoredResult
from tests.e2e.command_line import Cli, process

WRITER = "EFFECT = 'write'\ndef run(query):\n    open('written', 'a').write(query)\n"
COUNTER = """
CACHEABLE = True
SCOPE = "global"
CACHE_TTL = 600
def run(query):
    with open("counted", "a") as file:
        file.write(query + "\\n")
    return query
"""
READER = """
from paceline import Effect, Plan
def plan(query): return Plan(Effect.read("docs"), ttl_s=60)
def run(query): return query
"""


def kept(cli: Cli, *more: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in cli("cache", "ls", "--json", *more).out.splitlines()]


def sources(cli: Cli, agent: str, *inputs: str) -> list[str]:
    return [cli("run", agent, text, "--json").data["source"] for text in inputs]


def test_what_the_cache_does_is_shown_without_a_process(cli: Cli) -> None:
    """`cache stats` tells what is kept of each agent, and from the history hit rate, sources, the
    mean time with and without the cache, and what was saved. (S0-76, S1-31)"""
    for text in ("a", "a", "b", "a"):
        cli("run", "echo", text)
    cli("run", "failing", "x")
    data = cli("cache", "stats", "--json").data
    assert data["kept"]["entries"] == 2
    assert data["kept"]["bytes"] > 0
    assert [(x["name"], x["entries"]) for x in data["kept"]["agents"]] == [("echo", 2)]
    assert (data["calls"], data["executed"], data["hit_rate"]) == (4, 2, 0.5)
    assert [(x["source"], x["calls"], x["share"]) for x in data["sources"]] == [
        ("executed", 2, 0.5),
        ("warm", 2, 0.5),
    ]
    assert data["saved_s"] > 0
    assert data["mean_without_s"] > data["mean_s"] > 0
    text = cli("cache", "stats", "--window", "1h").out
    assert "kept: 2 results" in text
    assert "calls: 4, executed 2; hit rate 50.0%" in text
    assert "no calls in the last" in cli("cache", "stats", "--window", "0s").out
    assert cli("cache", "stats", "--window", "soon").code == 2


def test_without_a_history_the_figures_say_why(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where calls are not recorded `cache stats` says so, and shows what is kept."""
    monkeypatch.setenv("PACELINE_HISTORY_ENABLED", "false")
    cli("run", "echo", "a")
    said = cli("cache", "stats").out
    assert "kept: 1 result" in said
    assert "history.enabled is off" in said
    assert cli("cache", "warm", "--from-history", "3").code == 2


def test_looking_writes_nothing(cli: Cli, place: Path) -> None:
    """With no state directory there is nothing to see, and none is made."""
    assert cli("cache", "ls").out == "nothing is kept here\n"
    assert cli("cache", "stats").out.startswith("kept: 0 results")
    assert cli("cache", "get", "00").code == 1
    assert cli("cache", "clear") == (0, "nothing is kept here\n", "")
    assert not (place / ".paceline").exists()


def test_results_are_listed_and_shown(cli: Cli) -> None:
    """`ls` lists results with key, scope and lifetime, of one agent, in an order, so many; `get`
    shows one by the beginning of its key; secrets in inputs are masked."""
    cli("run", "echo", "password=hunter22", "--user", "ada")
    cli("run", "echo", "a long text " * 20, "--user", "ada")
    large, secret = kept(cli, "--order", "size")
    assert (large["size_bytes"] > secret["size_bytes"], secret["scope"]) == (True, "user/ada")
    assert "hunter22" not in cli("cache", "ls").out
    assert len(kept(cli, "--limit", "1")) == 1
    assert kept(cli, "--agent", "nobody") == []
    assert "nothing of nobody" in cli("cache", "ls", "--agent", "nobody").out
    table = cli("cache", "ls").out.splitlines()
    assert table[0].split()[:3] == ["KEY", "AGENT", "SCOPE"]
    assert {line.split()[0] for line in table[1:]} == {large["key"][:12], secret["key"][:12]}
    said = cli("cache", "get", large["key"][:12])
    assert (said.code, "A LONG TEXT" in said.out, "user/ada" in said.out) == (0, True, True)
    data = cli("cache", "get", large["key"], "--json").data
    assert (data["name"], data["value"]) == ("echo", ("a long text " * 20).upper())


def test_a_result_is_shown_in_units_for_people(cli: Cli) -> None:
    """`get` shows sizes, times and prices as people read them; with `--json` they are numbers."""
    cli("run", "echo", "a", "--user", "ada")
    (one,) = kept(cli)
    said = cli("cache", "get", one["key"][:12]).out
    shown = dict(line.split(maxsplit=1) for line in said.split("\n\n")[0].splitlines())
    assert list(shown) == [
        "FIELD", "key", "agent", "scope", "input", "bytes", "age", "expires", "took",
    ]  # fmt: skip
    for field in ("age", "took", "expires"):
        assert re.fullmatch(r"[0-9.]{1,7} (ms|s|min|h|d)", shown[field]), shown[field]
    assert shown["expires"] == "5 min"
    data = cli("cache", "get", one["key"][:12], "--json").data
    assert all(type(data[field]) is float for field in ("age_s", "remaining_s", "cost_s"))
    dear = StoredResult(
        key="3f", name="a", scope="global", summary="x", tags=("docs", "mail"), tiers=("warm",),
        size_bytes=12_345, age_s=None, remaining_s=None, cost_s=90_000.0, cost_usd=0.0125,
    )  # fmt: skip
    assert cache.described(dear) == [
        ("key", "3f"), ("agent", "a"), ("scope", "global"), ("input", "x"),
        ("tags", "docs, mail"), ("bytes", "12,345"), ("expires", "never"), ("took", "25 h"),
        ("cost", "$0.0125"),
    ]  # fmt: skip


def test_a_directory_in_place_of_the_file_is_explained(cli: Cli, place: Path) -> None:
    """A cache file that is a directory costs no call; what it is and what to do is said by each
    command that needs it, and it is left as it is."""
    wrong = place / ".paceline" / "cache.db"
    wrong.mkdir(parents=True)
    said = cli("run", "echo", "a")
    assert (said.code, said.out) == (0, "A\n")
    results = [said, *(cli("cache", *words) for words in (("ls",), ("stats",), ("get", "ab")))]
    assert [said.code for said in results] == [0, 1, 1, 1]
    for said in (*results, cli("cache", "clear"), cli("doctor")):
        text = " ".join((said.out + said.err).split())
        assert f"{wrong} is not a file" in text
        assert f"Remove {wrong}; a new one is made." in text
        assert "writable" not in text
    assert wrong.is_dir()


def test_what_can_be_removed_from_a_full_disk_is_said(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a full disk is in the way of clearing, it is said that the file can go as a whole; where
    something else is, it is not."""
    (place / ".paceline" / "cache.db").mkdir(parents=True)
    for full in (True, False):
        monkeypatch.setattr("paceline.cli.cache.is_full", lambda _, full=full: full)
        said = cli("cache", "clear")
        assert said.code == 1
        assert ("holds nothing but results, and may be removed" in said.err) is full


@pytest.mark.parametrize(("key", "word"), [("0" * 64, "no result"), ("not-a-key", "hexadecimal")])
def test_a_key_has_to_be_clear(cli: Cli, key: str, word: str) -> None:
    """A key of no result is told on standard error; the code is 1."""
    for text in ("a", "b"):
        cli("run", "echo", text)
    for command in (("get", key), ("invalidate", "--key", key)):
        said = cli("cache", *command)
        assert (said.code, said.out) == (1, "")
        assert word in said.err
    assert len(kept(cli)) == 2


def test_a_beginning_of_two_keys_is_not_enough(cli: Cli) -> None:
    """The beginning of more than one key is told on standard error; the code is 1."""
    for number in range(17):  # more than a first digit can tell apart
        cli("run", "echo", str(number))
    first = Counter(result["key"][0] for result in kept(cli)).most_common(1)[0][0]
    for command in (("get", first), ("invalidate", "--key", first)):
        said = cli("cache", *command)
        assert (said.code, said.out) == (1, "")
        assert "several" in said.err
    assert len(kept(cli)) == 17


def test_each_way_of_invalidating(cli: Cli, place: Path) -> None:
    """By tag, by agent, by the beginning of its name, by key: what is named is executed anew, and
    nothing else; what happened is said. (S0-78)"""
    (place / "agents" / "reader.py").write_text(READER)
    (place / "agents" / "counter.py").write_text(COUNTER)

    def fill() -> None:
        for agent in ("echo", "reader", "counter"):
            cli("run", agent, "x")

    everything = {"echo": "warm", "reader": "warm", "counter": "warm"}

    def found() -> dict[str, str]:
        return {agent: sources(cli, agent, "x")[0] for agent in everything}

    fill()
    assert found() == everything
    said = cli("cache", "invalidate", "docs")
    assert said.out == "stale: all that was read under docs; 1 result removed\n"
    assert found() == everything | {"reader": "executed"}
    assert "1 result" in cli("cache", "invalidate", "--agent", "echo").out
    assert found() == everything | {"echo": "executed"}
    assert "1 result" in cli("cache", "invalidate", "--prefix", "cou").out
    assert found() == everything | {"counter": "executed"}
    (one,) = kept(cli, "--agent", "echo")
    assert "removed" in cli("cache", "invalidate", "--key", one["key"][:14]).out
    assert found() == everything | {"echo": "executed"}
    assert cli("cache", "clear", "echo").out == "1 result of echo removed\n"
    assert found() == everything | {"echo": "executed"}
    assert cli("cache", "clear").out == "3 results removed\n"
    assert found() == dict.fromkeys(everything, "executed")
    assert cli("cache", "invalidate").code == 2


@pytest.mark.parametrize(
    "command", [("clear", "counter"), ("clear",), ("invalidate", "agent:counter")]
)
def test_a_running_process_sees_it_at_once(cli: Cli, place: Path, command: tuple[str, ...]) -> None:
    """What is cleared from the command line is executed anew by a process that has it in memory."""
    (place / "agents" / "counter.py").write_text(COUNTER)
    settings = load(overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}})
    runtime = Runtime(settings, agents=["agents"], home=place / ".paceline", environ={})
    with SyncRuntime(runtime) as running:
        first, hot = (running.run("counter", "x") for _ in range(2))
        said = process(place, "cache", *command)
        after, again = (running.run("counter", "x") for _ in range(2))
    assert (said.code, said.err) == (0, "")
    assert [o.source for o in (first, hot, after, again)] == [
        Source.EXECUTED,
        Source.HOT,
        Source.EXECUTED,
        Source.HOT,
    ]


def test_results_are_computed_ahead(cli: Cli, place: Path) -> None:
    """`cache warm` computes results for a user that the next call finds; a writing agent is
    refused and not run. (S1-52)"""
    (place / "agents" / "writer.py").write_text(WRITER)
    said = cli("cache", "warm", "echo", "a", "b", "a", "--user", "ada")
    assert (said.code, said.out[:34]) == (0, "2 computed, 1 there already, 0 ref")
    assert cli("run", "echo", "b", "--user", "ada", "--json").data["source"] == "warm"
    assert cli("run", "echo", "b", "--user", "bob", "--json").data["source"] == "executed"
    data = cli("cache", "warm", "writer", "x", "--json").data
    assert (data["refused"], data["warmed"]) == (1, 0)
    assert not (place / "written").exists()
    said = cli("cache", "warm", "failing", "x")
    assert said.code == 0
    assert "refused" in said.err


def test_past_calls_are_computed_ahead(cli: Cli, place: Path) -> None:
    """`--from-history` computes again what past calls would need, for whom they were made; a secret
    in an input keeps it from that. (S1-52)"""
    (place / "agents" / "counter.py").write_text(COUNTER)
    for text in ("a", "a", "b", "api_key=sk-abcdefghijklmnop"):
        cli("run", "counter", text)
    cli("run", "echo", "mine", "--user", "ada")
    cli("cache", "clear")
    (place / "counted").unlink()
    data = cli("cache", "warm", "--from-history", "10", "--json").data
    assert (data["warmed"], data["failed"]) == (3, 0)
    assert sorted((place / "counted").read_text().split()) == ["a", "b"]
    assert cli("run", "echo", "mine", "--user", "ada", "--json").data["source"] == "warm"
    assert cli("cache", "warm", "--from-history", "10", "--window", "0s").out.startswith("0 comp")


@pytest.mark.parametrize(
    "arguments",
    [("echo",), (), ("echo", "x", "--from-history", "3"), ("nobody", "x"), ("--from-history", "0")],
)
def test_what_to_compute_has_to_be_clear(cli: Cli, arguments: tuple[str, ...]) -> None:
    """A request that says too little, or too much, is wrong usage."""
    assert cli("cache", "warm", *arguments).code == 2


def test_warming_is_interrupted_cleanly(place: Path) -> None:
    """Ctrl-C ends what is being computed, says a word and no traceback, and exits with 130."""
    (place / "agents" / "ready.py").write_text(
        "import asyncio, pathlib\n"
        "CACHEABLE = True\n"
        "async def run(query):\n"
        "    pathlib.Path('ready').touch()\n"
        "    await asyncio.Event().wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "paceline", "cache", "warm", "ready", "x", "y"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        while not (place / "ready").exists():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "interrupted\n")


def test_a_damaged_file_is_explained(cli: Cli, place: Path) -> None:
    """A cache file that is none is told with its path and what to do; looking leaves it there."""
    (place / ".paceline").mkdir(exist_ok=True)
    (place / ".paceline" / "cache.db").write_bytes(b"no database" * 1_000)
    for command in (("ls",), ("stats",)):
        said = cli("cache", *command)
        assert said.code == 1
        assert "cache.db" in said.err
    assert (place / ".paceline" / "cache.db").read_bytes().startswith(b"no database")


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", ""),
        ("clear", ""),
        ("invalidate", ""),
        ("invalidate", "--agent", ""),
        ("invalidate", "--prefix", ""),
        ("invalidate", "--key", ""),
    ],
)
def test_an_empty_name_takes_nothing_away(cli: Cli, arguments: tuple[str, ...]) -> None:
    """A variable that a script forgot to set is an error, and never stands for a result or all."""
    cli("run", "echo", "a")
    done = cli("cache", *arguments)
    assert done.code != 0
    assert "next:" in done.err
    assert len(kept(cli)) == 1


def test_figures_are_readable(cli: Cli) -> None:
    """Neither a small file nor a time just below a second is shown as nothing or as a power."""
    cli("run", "echo", "a")
    assert "0.0 MiB" not in cli("cache", "stats").out
    assert "KiB" in cli("cache", "stats").out
    assert [short_time(s) for s in (0.0123, 0.999, 0.9999)] == ["12.3 ms", "999 ms", "1 s"]


def test_past_calls_are_warmed_for_nobody_else(cli: Cli) -> None:
    """`--user` with `--from-history`, which would be ignored, is refused."""
    done = cli("cache", "warm", "--from-history", "3", "--user", "bob")
    assert done.code == 2
    assert "--user" in done.err


def test_the_commands_are_listed(cli: Cli) -> None:
    """`paceline cache --help` lists its commands."""
    assert {"stats", "ls", "get", "invalidate", "clear", "warm"} <= set(
        cli("cache", "--help").out.split()
    )
