"""Recorded runs of agents whose results are known: what a cache would have answered is judged
by them.

Two sets lie beside the project. The whole of BFCL v4 multi-turn is run anew, by its own
simulators, where its package can be imported: `pip install --no-deps bfcl-eval mpmath`.
"""

import ast
import copy
import gzip
import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.tool_effects import BFCL, TAU_AIRLINE, Effects
from paceline.cache.keys import digest

__all__ = ["Run", "Runs", "Step", "bfcl_full", "bfcl_given", "tau_airline"]

_DATA = Path(__file__).parents[2] / "shared/data/trajectories"
_BFCL = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
_SIMULATORS = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
}


class Step(msgspec.Struct):
    """One call of a tool. `true` is whether the recorded result is the call's own."""

    name: str
    arguments: dict[str, Any]
    result: Any
    true: bool = True


class Run(msgspec.Struct):
    """The calls of one run, in order; runs of one `start` began in the same state."""

    id: str
    start: str
    steps: list[Step]


class Runs(msgspec.Struct):
    """A set of runs and what its tools do."""

    effects: Effects
    runs: list[Run]


def tau_airline() -> Runs:
    """200 runs of tau-bench airline, four of each task; a task starts from its own database."""
    runs = [
        Run(run["id"], run["task"], [_step(call) for call in calls if call["name"] not in _OUTSIDE])
        for run, calls in _recorded("tau_airline_gpt4o")
    ]
    for run in runs:
        _mark_mixed_up(run.steps)
    return Runs(TAU_AIRLINE, runs)


def bfcl_given() -> Runs:
    """200 runs of BFCL, one of each task: what state a task starts in is not recorded."""
    recorded = _recorded("bfcl_multi_turn")
    return Runs(
        BFCL, [Run(run["id"], run["id"], [_step(c) for c in calls]) for run, calls in recorded]
    )


def bfcl_full() -> Runs | None:
    """All 800 tasks, of four variants; three of them mostly start in one state. None without the
    package."""
    if importlib.util.find_spec("bfcl_eval") is None:
        return None
    data = Path(str(importlib.import_module("bfcl_eval").__file__)).parent / "data"
    runs = []
    for variant in ("base", "miss_func", "miss_param", "long_context"):
        name = f"BFCL_v4_multi_turn_{variant}.json"
        answers = {
            task["id"]: task["ground_truth"] for task in _lines(data / "possible_answer" / name)
        }
        for task in _lines(data / name):
            calls = [call for turn in answers[task["id"]] for call in turn]
            runs.append(_executed(task, calls, long_context=variant == "long_context"))
    return Runs(BFCL, runs)


def _executed(task: dict[str, Any], calls: list[str], *, long_context: bool) -> Run:
    """A task's true calls, run by the simulators from its start state."""
    state = {name: task["initial_config"].get(name, {}) for name in task["involved_classes"]}
    tools: dict[str, Callable[..., object]] = {}
    for name, config in state.items():
        simulator = getattr(importlib.import_module(f"{_BFCL}.{_SIMULATORS[name]}"), name)()
        if hasattr(simulator, "_load_scenario"):
            simulator._load_scenario(copy.deepcopy(config), long_context=long_context)  # noqa: SLF001 (the only way in)
        tools.update(inspect.getmembers(simulator, inspect.ismethod))
    start = digest((json.dumps(state, sort_keys=True), long_context)).hex()
    return Run(task["id"], start, [_execute(tools, text) for text in calls])


def _execute(tools: Mapping[str, Callable[..., object]], text: str) -> Step:
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Call)
    name = ast.unparse(node.func).rpartition(".")[2]
    given = [ast.literal_eval(value) for value in node.args]
    named = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
    arguments = inspect.signature(tools[name]).bind(*given, **named).arguments
    result = tools[name](*given, **named)
    return Step(name, dict(arguments), json.loads(json.dumps(result, default=str)))


# --- recordings of tau-bench -------------------------------------------------------------------

_OUTSIDE = ("think", "transfer_to_human_agents")


def _mark_mixed_up(steps: list[Step]) -> None:
    """Some recorded results are those of a later call of the run, as the answers show: user
    details that are a sum, a reservation that is cancelled before it was. What is no answer to
    its call, or just as well one to a later call that had it, proves nothing.
    """
    for at, step in enumerate(steps):
        later = [
            other.result
            for other in steps[at + 1 :]
            if (other.name, other.arguments) != (step.name, step.arguments)
        ]
        step.true = _answers(step) and (step.name == "calculate" or step.result not in later)


def _answers(step: Step) -> bool:
    """Whether a result is one that this call can have."""
    arguments, result = step.arguments, step.result
    match step.name:
        case "get_reservation_details":
            return isinstance(result, dict) and _same(result, arguments, "reservation_id")
        case "get_user_details":
            return isinstance(result, dict) and "payment_methods" in result
        case "calculate":
            return isinstance(result, str) and _is_sum(result, arguments["expression"])
        case "search_direct_flight":
            return isinstance(result, list) and all(
                isinstance(found, dict) and _same(found, arguments, "origin", "destination")
                for found in result
            )
        case "search_onestop_flight":
            return isinstance(result, list) and all(
                isinstance(found, list)
                and _same(found[0], arguments, "origin")
                and _same(found[1], arguments, "destination")
                for found in result
            )
        case _:
            return True


def _same(result: Mapping[str, object], arguments: Mapping[str, object], *names: str) -> bool:
    return all(result.get(name) == arguments[name] for name in names)


def _is_sum(result: str, expression: str) -> bool:
    """Whether a text is the value of a sum, rounded to cents."""
    try:
        return abs(float(result) - _value(ast.parse(expression, mode="eval").body)) < 0.01
    except (ValueError, SyntaxError):
        return False


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left, ast.Add(), right):
            return _value(left) + _value(right)
        case ast.BinOp(left, ast.Sub(), right):
            return _value(left) - _value(right)
        case ast.BinOp(left, ast.Mult(), right):
            return _value(left) * _value(right)
        case ast.BinOp(left, ast.Div(), right):
            return _value(left) / _value(right)
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand)
        case _:
            raise ValueError(ast.unparse(node))


# --- files -------------------------------------------------------------------------------------


def _recorded(name: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    for run in _lines(_DATA / f"{name}.jsonl.gz"):
        steps = [event for event in run["events"] if event["k"] == "step"]
        yield run, [call for step in steps for call in step["calls"]]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    yield from map(json.loads, text.splitlines())


def _step(call: dict[str, Any]) -> Step:
    return Step(call["name"], call["args"], call["result"])
