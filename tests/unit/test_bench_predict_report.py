"""The report on predictions is one of those that the benchmarks write."""

from pathlib import Path
from typing import Any

import msgspec

from bench.__main__ import BENCHMARKS, GROUPS, REPORTS
from bench.predict import FREE_TEXT, LONG, RECORDED, SHORT, WORK, Cost, Figures, Taken
from bench.predict_report import sections, write
from bench.speculation import Figures as Played
from bench.verdicts import missed
from paceline.predict.evaluation import Evaluation

SETS = ("tau_airline_gpt4o", "bfcl_multi_turn", "apibank", FREE_TEXT)


def figures(
    top: float = 0.9, extra: float = 0.02, times: float = 30.0, hidden_s: float = 4.0
) -> dict[str, Any]:
    one = Evaluation(
        sessions=9, calls=90, steps=90, tool_top={1: top, 3: top}, hits=top, extra_calls=extra,
        call_top={1: top, 3: top + 0.01, 10: top + 0.02},
    )  # fmt: skip
    taken = {str(what): Taken(9, 600.0, 900.0, times / 2, times) for what in WORK}
    sessions = {str(where): taken for where in (SHORT, LONG, RECORDED)}
    cost = Cost(10_000, sessions, reference_us=26.0)
    played = Played(9, 90, 0.9, 10.0, 10.0 - hidden_s, 0.1, 9, 0.0, 0)
    return {
        "predict": msgspec.to_builtins(Figures(dict.fromkeys(SETS, one), cost), str_keys=True),
        "speculation": msgspec.to_builtins({"tau_airline_gpt4o": played}),
    }


def test_predictions_are_a_group_with_a_report(tmp_path: Path) -> None:
    """`paceline bench predict` runs what its report is made of, predictions and what they come to end
    to end, and writes both. (S2-51)"""
    assert REPORTS["predict"].sections is sections
    modules = [BENCHMARKS[name].module for name in GROUPS["predict"]]
    assert modules == ["predict", "speculation"]
    assert not missed(sections(figures()))
    assert sections({}, only_run=True) == []
    write(figures(), "paceline bench predict", tmp_path / "predict.md")
    report = (tmp_path / "predict.md").read_text("utf-8")
    assert "paceline bench predict" in report
    assert "40.0%" in report  # of the wait is hidden, end to end
    kept = msgspec.json.decode((tmp_path / "predict.json").read_bytes())
    same = [bar for part in sections(kept) for bar in part.bars]
    made = [bar for part in sections(figures()) for bar in part.bars]
    assert sorted(same, key=str) == sorted(made, key=str)
    assert kept["speculation"]["tau_airline_gpt4o"]["with_s"] == 6.0


def test_what_was_not_run_is_not_shown() -> None:
    """Of a part that was run alone only that is shown. (S2-51)"""
    only = {"speculation": figures()["speculation"]}
    assert len(sections(only, only_run=True)) == 1
    assert len(sections(only)) == len(sections(figures()))


def test_what_is_not_good_enough_is_missed() -> None:
    """A bar that predictions do not reach is shown as missed, waste too. (S2-40)"""
    assert len(missed(sections(figures(top=0.1)))) > 10
    assert any("free text" in bar.what for bar in missed(sections(figures(extra=0.06))))
    assert any("wait hidden" in bar.what for bar in missed(sections(figures(hidden_s=2.0))))


def test_cost_is_judged_by_the_reference_of_the_same_run() -> None:
    """A prediction may take 500 us for each 13 us that bare asyncio takes in the same run: half a
    millisecond is missed where that is quick, and a whole one met where it is slow. (S2-51)"""
    slow = [bar for bar in missed(sections(figures(times=40.0))) if "mean" not in bar.what]
    assert len(slow) == 9
    assert all("38.5 times" in bar.bar for bar in slow)
