"""The command line, as a user meets it."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.command_line import ECHO, Cli, Said, process

KEYS = {
    "value",
    "error",
    "source",
    "agent",
    "user",
    "instance",
    "instead_of",
    "attempts",
    "queue_ms",
    "execute_ms",
    "total_ms",
}


def test_a_second_process_is_answered_from_disk(place: Path) -> None:
    """The same command twice, in two processes: the second is warm, and spends under a
    millisecond in the call path by its own account. (S1-29, S1-42)"""
    first = process(place, "run", "host_exec", "uname -a", "--json")
    second = process(place, "run", "host_exec", "uname -a", "--json")
    assert (first.code, first.data["source"]) == (0, "executed")
    assert (second.code, second.data["source"]) == (0, "warm")
    assert first.data["value"] == second.data["value"]
    assert second.data["value"]["stdout"].startswith("Linux")
    assert second.data["execute_ms"] == 0
    assert set(first.data) == set(second.data) == KEYS


def test_a_result_is_printed(cli: Cli) -> None:
    """Without --json the value alone is printed, and the exit code is 0."""
    assert cli("run", "echo", "hello") == Said(0, "HELLO\n", "")


def test_a_command_is_printed_in_the_form_of_chats(cli: Cli) -> None:
    """The result of a host command is printed as its line of success and its output. (S1-21)"""
    said = cli("run", "host_exec", "cat agents/echo.py")
    assert said.out == f"✅ `cat agents/echo.py` (exit code: 0)\n{ECHO}"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("run", "failing", "x"), 1, "no such thing"),
        (("run", "nobody", "x"), 2, "paceline agents"),
        (("run", "ech", "x"), 2, "Did you mean echo"),
        (("run", "echo", " "), 2, "empty"),
        (("run", "echo"), 2, "INPUT"),
        (("rum",), 2, "rum"),
        (("run", "host_exec", "rm -rf /"), 3, "⚠️  Command blocked by whitelist: rm -rf /"),
        (("run", "host_exec", "uname; id"), 3, "⚠️  Command blocked by whitelist: uname; id"),
        (("run", "slow", "x", "--timeout", "0.01"), 4, "deadline"),
        (("run", "echo", "x", "--agents", "nowhere"), 2, "nowhere"),
        (("run", "host_exec", "cat missing.txt"), 1, "(exit code: 1)"),
        (("history", "no-such-id"), 2, "paceline history"),
        (("hostexec", "explain", "rm -rf /"), 3, ""),
        (("hostexec", "check", "missing.toml"), 1, "missing.toml"),
    ],
)
def test_exit_codes_tell_what_happened(
    cli: Cli, arguments: tuple[str, ...], code: int, word: str
) -> None:
    """1 the agent failed, 2 wrong usage, 3 refused by policy, 4 timed out; the message says what
    happened, on standard error. (S1-48)"""
    said = cli(*arguments)
    assert said.code == code
    assert word in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("agent", ["failing", "nobody"])
def test_json_tells_failures_too(cli: Cli, agent: str) -> None:
    """With --json a failure is one object with the same keys, and an error with a next step."""
    said = cli("run", agent, "x", "--json")
    assert said.code != 0
    assert set(said.data) == KEYS
    assert said.data["value"] is None
    assert {"type", "category", "message", "next_step"} == set(said.data["error"])
    assert said.data["error"]["next_step"]


def test_input_can_come_from_a_pipe(place: Path) -> None:
    """A dash for the input reads it from standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "run", "echo", "-"],
        cwd=place,
        input="from afar",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "FROM AFAR\n"


def test_users_are_kept_apart(cli: Cli) -> None:
    """Results stored for one user are not those of another; --no-cache runs anyway. (S1-54)"""
    sources = [
        cli("run", "echo", "x", "--json", *more).data["source"]
        for more in (
            ("--user", "ada"),
            ("--user", "grace"),
            ("--user", "ada"),
            ("--user", "ada", "--no-cache"),
        )
    ]
    assert sources == ["executed", "executed", "warm", "executed"]


def test_statistics_are_the_known_text(cli: Cli) -> None:
    """`paceline stats` prints exactly the text that chat users know. (S1-17)"""
    assert cli("stats").out == "**Agent Performance Statistics**\n\nNo calls recorded yet.\n"
    for _ in range(3):
        cli("run", "echo", "x")
    cli("run", "failing", "x")
    lines = cli("stats").out.splitlines()
    assert lines[:5] == [
        "**Agent Performance Statistics**",
        "",
        "**echo**",
        "  Calls: 3 (cached: 2)",
        "  Cache hit rate: 66.7%",
    ]
    assert lines[5].startswith("  Avg time: ")
    assert lines[5].endswith("ms")
    assert lines[6] == "  Errors: 0 (0.0%)"
    assert lines[-1] == "  Errors: 1 (100.0%)"


def test_statistics_in_full_and_for_programs(cli: Cli) -> None:
    """--verbose adds percentiles and sources, --json gives the same as data. (S1-15)"""
    cli("run", "echo", "x")
    cli("run", "echo", "x")
    text = cli("stats", "--verbose").out
    assert all(word in text for word in ("p50", "p95", "p99", "warm 1", "executed 1"))
    data = cli("stats", "--json").data
    assert data["agents"]["echo"]["calls"] == 2
    assert data["agents"]["echo"]["sources"] == {"executed": 1, "warm": 1}


def test_the_history_shows_calls(cli: Cli) -> None:
    """Calls are listed newest first, can be filtered, and shown in full by id. (S1-16)"""
    cli("run", "echo", "first", "--user", "ada")
    cli("run", "failing", "second", "--user", "grace")
    newest, oldest = (json.loads(line) for line in cli("history", "--json").out.splitlines())
    assert (oldest["name"], oldest["user"], oldest["source"]) == ("echo", "ada", "executed")
    assert newest["category"] == "execution"
    assert [json.loads(x)["id"] for x in cli("history", "--errors", "--json").out.splitlines()] == [
        newest["id"]
    ]
    table = cli("history", "--user", "ada").out.splitlines()
    assert len(table) == 2
    assert "first" in table[1]
    assert oldest["output_hash"] in cli("history", oldest["id"][:18]).out


def test_secrets_stay_out_of_the_state(cli: Cli, place: Path) -> None:
    """A secret in an input is in no file of the state directory but the agent's own results."""
    cli("run", "failing", "api_key=sk-abcdefghijklmnop")
    cli("run", "host_exec", "cat token=abcdefghijklmnop")
    for file in (place / ".paceline").iterdir():
        assert b"abcdefghijklmnop" not in file.read_bytes()


def test_agents_are_listed_with_what_is_broken(cli: Cli, place: Path) -> None:
    """Every agent is listed; a broken module is named with its error, and the exit code is 1."""
    assert cli("agents").code == 0
    (place / "agents" / "bad.py").write_text("def run(:\n")
    said = cli("agents")
    assert said.code == 1
    assert {"echo", "failing", "host_exec", "slow"} <= set(said.out.split())
    assert "bad.py:1" in said.err
    assert cli("run", "echo", "x").out == "X\n"


def test_reload_checks_and_signals(cli: Cli, place: Path) -> None:
    """`reload` loads every module, leaves a mark that running processes watch, and fails when a
    module is broken. (S1-13)"""
    assert cli("reload").code == 0
    assert (place / ".paceline" / "reload").exists()
    (place / "agents" / "bad.py").write_text("def run(:\n")
    said = cli("reload")
    assert (said.code, "bad" in said.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[cache]\nhot_entires = 3\n", "hot_entries"),
        ("[cahce]\nhot_entries = 3\n", "cache"),
        ("[cache]\nhot_entries = 'many'\n", "hot_entries"),
        ("[cache\n", "TOML"),
    ],
)
def test_a_wrong_configuration_is_explained(cli: Cli, place: Path, text: str, word: str) -> None:
    """A setting that cannot be is named, with the nearest there is; nothing is run."""
    (place / "paceline.toml").write_text(text)
    said = cli("run", "echo", "x")
    assert said.code == 2
    assert word in said.err
    assert cli("doctor").code == 1


def test_settings_come_from_file_then_environment(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file beats the defaults, and the environment beats the file. (S1-50)"""
    (place / "paceline.toml").write_text("[agents]\ndir = 'nowhere'\n")
    assert cli("run", "echo", "x").code == 2
    monkeypatch.setenv("PACELINE_AGENTS_DIR", "agents")
    assert cli("run", "echo", "x").code == 0


def test_without_a_sandbox_nothing_runs(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sandbox asked for is missing, host commands are refused with the next step, and
    other agents go on. (B-49)"""
    monkeypatch.setattr("paceline.hostexec.sandbox.bubblewrap.BWRAP", "/nowhere/bwrap")
    monkeypatch.setenv("PACELINE_HOSTEXEC_SANDBOX", "bubblewrap")
    said = cli("run", "host_exec", "uname -a")
    assert said.code == 1
    assert "bubblewrap" in said.err
    assert cli("run", "echo", "x").code == 0
    assert cli("doctor").code == 1


def test_the_policy_can_be_asked(cli: Cli, place: Path) -> None:
    """Rules are listed, explained for a command, and checked in a file with their examples."""
    assert "git status" in cli("hostexec", "rules").out
    said = cli("hostexec", "explain", "df -h")
    assert (said.code, "allowed by rule df" in said.out) == (0, True)
    assert cli("hostexec", "check").code == 0
    (place / "policy.toml").write_text("version = 1\n[[command]]\nid = 'x'\n")
    said = cli("hostexec", "check", "policy.toml")
    assert said.code == 1
    assert "policy.toml" in said.err


def test_the_audit_log_can_be_checked(cli: Cli, place: Path) -> None:
    """An audit log is whole until somebody changes a line of it."""
    assert cli("hostexec", "audit").code == 0
    for _ in range(2):
        cli("run", "host_exec", "uname -a", "--no-cache")
    assert cli("hostexec", "audit").code == 0
    log = place / ".paceline" / "audit.jsonl"
    log.write_text(log.read_text().replace("uname", "id   ", 1))
    assert cli("hostexec", "audit").code == 1


def test_a_reader_that_leaves_is_no_error(place: Path) -> None:
    """Printing into a pipe that is closed ends quietly."""
    script = f"{sys.executable} -m paceline hostexec rules | head -1 >/dev/null"
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""


def test_an_interrupt_ends_a_call_cleanly(place: Path) -> None:
    """Ctrl-C cancels the running call, says a word and no traceback, and exits with 130."""
    (place / "agents" / "ready.py").write_text(
        "import asyncio, pathlib\n"
        "async def run(query):\n"
        "    pathlib.Path('ready').touch()\n"
        "    await asyncio.Event().wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "paceline", "run", "ready", "x"],
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


def test_help_names_every_command(cli: Cli) -> None:
    """`paceline --help` lists the commands, and `--version` tells the version."""
    said = cli("--help")
    commands = {"run", "agents", "reload", "stats", "history", "doctor", "hostexec"}
    assert commands <= set(said.out.split())
    assert cli("--version").out.startswith("paceline ")
    assert cli("-V") == cli("--version")


def test_options_of_a_command_are_to_be_quoted(cli: Cli) -> None:
    """Who forgets the quotes of a command line is told how to write it, and nothing is run."""
    said = cli("run", "host_exec", "uname", "-a")
    assert said.code == 2
    assert "No such option: -a" in said.err
    assert 'paceline run host_exec "uname -a"' in said.err


def test_an_agent_that_is_missing_is_explained(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an agent could not be made available, the call of it says why, in both forms."""
    monkeypatch.setenv("PACELINE_HOSTEXEC_WORKSPACE", "nowhere")
    for more in ((), ("--json",)):
        said = cli("run", "host_exec", "uname -a", *more)
        assert said.code == 2
        assert "hostexec.workspace" in said.err


def test_a_directory_of_agents_that_was_set_has_to_exist(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """agents.dir that is no directory is an error for every command that needs agents."""
    monkeypatch.setenv("PACELINE_AGENTS_DIR", "nope")
    for arguments in (("run", "echo", "x"), ("agents",)):
        said = cli(*arguments)
        assert said.code == 2
        assert "agents.dir = 'nope'" in said.err
    said = cli("doctor")
    assert (said.code, "agents.dir = 'nope'" in said.out) == (1, True)


def test_an_empty_history_says_why_it_is(cli: Cli) -> None:
    """Without calls it says how to make one; where none match, that none match."""
    assert "no calls yet" in cli("history").out
    cli("run", "echo", "x")
    for narrowed in (("--agent", "nosuch"), ("--user", "nosuch"), ("--errors",)):
        assert cli("history", *narrowed).out == "no calls match\n"


def test_times_have_their_zone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are those of the user's zone, and say which it is."""
    cli("run", "echo", "x")
    monkeypatch.setenv("TZ", "XYZ-05:30")
    time.tzset()
    try:
        assert "+05:30" in cli("history").out
        call = json.loads(cli("history", "--json").out)["id"]
        assert "+05:30" in cli("history", call).out
    finally:
        monkeypatch.undo()
        time.tzset()


READER = """
from pathlib import Path
from paceline import Effect, Plan, file_reads

def plan(query): return Plan(Effect.read(*file_reads(Path(query).resolve())), ttl_s=60)
def run(query): return sorted(path.name for path in Path(query).iterdir())
"""


def test_a_host_command_that_writes_invalidates_reads(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an agent read of a directory is read anew after `touch` in it, also by the next
    process; what it read of a directory beside it stays, though its name begins alike. (S1-53)"""
    monkeypatch.setenv("PACELINE_HOSTEXEC_WRITES", "true")
    (place / "agents" / "listing.py").write_text(READER)
    for name in ("notes", "notes-old"):
        (place / name).mkdir()
        (place / name).chmod(0o777)  # commands run as a user of their own
        cli("run", "listing", name)
    assert cli("run", "host_exec", "touch notes/today.txt").code == 0
    changed = cli("run", "listing", "notes", "--json").data
    assert (changed["source"], changed["value"]) == ("executed", ["today.txt"])
    assert cli("run", "listing", "notes-old", "--json").data["source"] == "warm"


def test_commands_can_go_through_the_service(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hostexec serve` runs the commands of other processes that hold the token, answers in the
    old form too, and ends on SIGTERM."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "paceline", "hostexec", "serve", "--port", "0"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout is not None
        url = service.stdout.readline().split()[3]
        monkeypatch.setenv("PACELINE_HOSTEXEC_MODE", "service")
        monkeypatch.setenv("PACELINE_HOSTEXEC_URL", url)
        assert "accepts the token" in cli("doctor").out
        said = cli("run", "host_exec", "uname -s", "--json")
        assert said.data["value"]["stdout"] == "Linux\n"
        assert cli("run", "host_exec", "rm -rf /").code == 3
        token = (place / ".paceline" / "token").read_text().strip()
        request = urllib.request.Request(
            f"{url}/run",
            json.dumps({"command": "uname -s"}).encode(),
            {"X-Exec-Token": token, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            assert json.load(reply)["returncode"] == 0
        monkeypatch.setenv("HOST_EXEC_TOKEN", "another-token-of-some-length")
        said = cli("doctor")
        assert (said.code, "authentication failed" in said.out) == (1, True)
        said = cli("run", "host_exec", "uname -r")
        assert "❌ Host exec authentication failed (check HOST_EXEC_TOKEN)" in said.err
        service.terminate()
        _, err = service.communicate(timeout=30)
    assert (service.returncode, err) == (0, "")
    monkeypatch.delenv("HOST_EXEC_TOKEN")
    said = cli("doctor")
    assert (said.code, "cannot be reached" in said.out) == (1, True)
    said = cli("run", "host_exec", "uname -v")
    assert (said.code, "hostexec serve" in said.err) == (1, True)
