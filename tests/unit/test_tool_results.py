"""Tool results in made-up runs: what each rule of keys answers, judged by a world that is known."""

import random
from typing import Any

import pytest

from bench.tool_effects import BFCL, TAU_AIRLINE, Effects, effect_of
from bench.tool_results import Rule, Writes, WritesByTag, rules, score
from bench.tool_runs import Run, Runs, Step
from paceline.call import UNKNOWN, Effect, EffectKind

EFFECTS: Effects = {
    "add": Effect.pure(),
    "show": Effect.read("file:{name}"),
    "list": Effect.read("names", "moods"),
    "put": Effect.write("file:{name}", "names"),
    "copy": Effect.write("file:{to}", "names"),
    "drop": Effect.write("file:{name}", "names"),
    "cheer": Effect.write("moods"),
}
NAMES = ("a", "b", "c")


class Disk:
    """A small world: files, and a mood that only `list` tells."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = dict(files)
        self.mood = 0

    def run(self, tool: str, arguments: dict[str, Any]) -> object:
        match tool:
            case "add":
                return arguments["x"] + 1
            case "show":
                return self.files.get(arguments["name"], {"error": "no such file"})
            case "list":
                return [sorted(self.files), self.mood]
            case "put":
                self.files[arguments["name"]] = arguments["text"]
            case "copy":
                self.files[arguments["to"]] = self.files.get(arguments["name"], "")
            case "drop":
                self.files.pop(arguments["name"], None)
            case _:
                self.mood += 1
        return None


def _arguments(tool: str, rng: random.Random) -> dict[str, Any]:
    if tool in ("list", "cheer"):
        return {}
    if tool == "add":
        return {"x": rng.randrange(3)}
    arguments = {"name": rng.choice(NAMES)}
    if tool == "put":
        arguments["text"] = rng.choice("12")
    if tool == "copy":
        arguments["to"] = rng.choice(NAMES)
    return arguments


@pytest.fixture(scope="module")
def runs() -> Runs:
    """300 runs of 12 calls from three start states, many of which begin alike."""
    rng, made = random.Random(5), []
    for number in range(300):
        start = number % 3
        disk, steps = Disk({NAMES[start]: str(start)}), []
        for _ in range(12):
            tool = rng.choices(tuple(EFFECTS), weights=(1, 6, 3, 1, 1, 1, 1))[0]
            arguments = _arguments(tool, rng)
            steps.append(Step(tool, arguments, disk.run(tool, arguments)))
        made.append(Run(str(number), str(start), steps))
    return Runs(EFFECTS, made)


def test_writes_in_the_key_leave_nothing_wrong(runs: Runs) -> None:
    """With the start state and the writes in its key no read gets a wrong answer, with all writes
    or with those to what it reads; and the latter hit more often. (S0-78, S1-53)"""
    all_writes, by_tag = score(runs, Writes()), score(runs, WritesByTag())
    assert all_writes.wrong == by_tag.wrong == 0
    assert 0 < all_writes.hits < by_tag.hits
    assert score(runs, Writes(reads=True)).hits < all_writes.hits


@pytest.mark.parametrize("name", ["tool and arguments", "start state"])
def test_keys_that_leave_writes_out_answer_wrong(runs: Runs, name: str) -> None:
    """The same runs tell rules apart: those that do not look at writes give wrong answers."""
    rule: Rule = dict(rules())[name]()
    figures = score(runs, rule)
    assert figures.wrong > 0.1 * figures.hits


def test_a_wrong_declaration_is_found(runs: Runs) -> None:
    """A tool that declares less than it writes or reads shows as wrong answers."""
    silent = {**EFFECTS, "copy": Effect.write("names")}
    blind = {**EFFECTS, "list": Effect.read("names")}
    for effects in (silent, blind):
        assert score(Runs(effects, runs.runs), WritesByTag()).wrong > 0


def test_failures_are_never_answered_from_the_cache() -> None:
    """An error that a tool returned is not kept, so asking again runs it again. (E-07, T15)"""
    steps = [Step("show", {"name": "a"}, {"error": "no such file"})] * 2
    figures = score(Runs(EFFECTS, [Run("1", "s", steps)]), Writes())
    assert (figures.reads, figures.hits) == (2, 0)


def test_effects_name_the_arguments_they_touch() -> None:
    """Tags carry the arguments they name; a tool in no table is unknown."""
    book = effect_of(TAU_AIRLINE, "get_user_details", {"user_id": "ada"})
    assert book == Effect(EffectKind.READ, ("user:ada", "users"))
    assert effect_of(BFCL, "get_outside_temperature_from_google", {}) == UNKNOWN
