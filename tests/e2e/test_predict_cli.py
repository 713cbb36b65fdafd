"""`paceline predict`, as a user meets it."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command_line import Cli
from tests.e2e.terminal import Session

RUN = {
    "events": [
        {"k": "user", "text": "open"},
        {"k": "step", "calls": [{"name": "echo", "args": {"query": "a"}, "result": "A"}]},
        {"k": "asst", "text": "done"},
    ]
}


def runs(place: Path, count: int) -> str:
    rows = [json.dumps({"id": str(n), "task": str(n), **RUN}) for n in range(count)]
    (place / "runs.jsonl").write_text("\n".join(rows))
    return "runs.jsonl"


@pytest.fixture
def start(place: Path) -> Iterator[Any]:
    sessions: list[Session] = []

    def call(*arguments: str) -> Session:
        sessions.append(Session(place, *arguments))
        return sessions[-1]

    yield call
    for session in sessions:
        session.close()


def test_a_file_is_evaluated(cli: Cli, place: Path) -> None:
    """`predict eval FILE` says whether calling ahead pays, with all options of its help; the effects are
    those of the agents there are. (S2-40, S2-51)"""
    said = cli("predict", "eval", runs(place, 120), "--read-only", "e*", "--tool-s", "echo=0.5")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Worth turning on: ")
    assert "(echo 0.5 s)" in said.out
    found = cli("predict", "eval", "runs.jsonl", "--json", "-n", "7", "--model-s", "2").data
    assert (found["sessions"], found["model_s"]) == (7, 2)
    assert (found["read_only"], found["unknown"]) == (["echo"], [])


def test_wrong_usage_is_told_with_the_line(cli: Cli, place: Path) -> None:
    """A file that is not there or of another form, a pattern and a time that are none, and an unknown
    session end with code 2 and what to do. (S2-51)"""
    (place / "bad.jsonl").write_text(json.dumps({"id": "1", **RUN}) + '\n{"id": 2}\n')
    wrong = (
        (("eval", "none.jsonl"), "none.jsonl cannot be read: No such file"),
        (("eval", "bad.jsonl"), "bad.jsonl: line 2 is no recorded session"),
        (("eval", runs(place, 3), "--read-only", "x"), "no tool that was called is meant by x"),
        (("eval", "runs.jsonl", "--read-only", "a,b"), "the option again for the next"),
        (("eval", "runs.jsonl", "--tool-s", "soon"), "is no time"),
        (("eval", "--limit", "0"), "--limit"),
        (("show", "abc"), "there is no session abc"),
        (("forget",), "say what is to be forgotten"),
        (("forget", "ada b"), "paceline predict forget --user 'ada b'"),
    )
    for arguments, words in wrong:
        said = cli("predict", *arguments)
        assert (said.code, said.out) == (2, "")
        assert words in said.err
    assert not (place / ".paceline" / "predictions").exists()


@pytest.mark.parametrize("command", ["eval", "show"])
def test_examples_have_lines_of_their_own(cli: Cli, command: str) -> None:
    """In the help each example is a line by itself. (S2-51)"""
    lines = [line.strip(" │") for line in cli("predict", command, "--help").out.splitlines()]
    examples = [line for line in lines if line.startswith("paceline predict")]
    assert examples[0] == f"paceline predict {command}"
    assert len(examples) == 2


def test_what_is_forgotten_is_gone(cli: Cli, place: Path) -> None:
    """`show` tells that nothing was learnt, and of a file that is damaged; `forget --all` begins anew.
    (S2-49)"""
    assert cli("predict", "show").out == "nothing was learnt here yet\n"
    file = place / ".paceline" / "predictions"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    said = cli("predict", "show")
    assert (said.code, said.out) == (1, "")
    assert "is damaged" in said.err
    assert any(
        row["what"] == "predictions" and row["state"] == "broken"
        for row in cli("doctor", "--json").data["findings"]
    )
    assert cli("predict", "forget", "--all").code == 0
    assert cli("predict", "show").out == "nothing was learnt here yet\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_can_be_stopped(start: Any, place: Path) -> None:
    """On a terminal it is told what takes its time and how much of it is done, on one line however
    narrow it is, and Ctrl-C ends it in words, with code 130, and leaves no line behind. (S2-51)"""
    evaluation = start("predict", "eval", runs(place, 20_000), "--read-only", "echo")
    evaluation.until("predicting 20,000 calls of 20,000 sessions: ", "%, ")
    evaluation.resize(30, 24)
    evaluation.said = ""
    while evaluation.said.count("\r\x1b[K") < 4:
        assert evaluation.read()
    os.kill(evaluation.process.pid, signal.SIGINT)
    assert evaluation.ended() == 130
    assert "stopped before it was done; nothing was changed" in evaluation.screen
    told = evaluation.said.split("\r\x1b[K")[2:4]  # the first may have been made before
    assert all(20 < len(each) < 30 and "%, " in each for each in told)
    assert evaluation.screen.rstrip().endswith("interrupted")
    assert "Traceback" not in evaluation.said
