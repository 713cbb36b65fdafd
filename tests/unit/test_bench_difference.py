"""Ratios of benchmarks beside those that were kept."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import __main__ as command
from bench.difference import Change, as_table, changes, ratios
from bench.timing import Timed
from bench.verdicts import Section, at_most, beside

PARTS = [
    Section(
        "A call", [beside("hit", Timed([350.0], [100.0]), "lru", 4), at_most("bytes", 9, 10, str)]
    ),
    Section("Not measured", notes=["why"]),
]


def test_ratios_are_those_to_a_limit() -> None:
    """A ratio is one of a bar with a limit, or what a benchmark returned as such; times and
    counts, which depend on the machine, are none. (V-42)"""
    results = {
        "tiers": {"ratio": {"hot hit": 7.9}, "ns": {"hot hit": 1_542.0}},
        "import_cost": {"ratio": 1.5},
        "registry": {"agents_10": {"ratio": 2.3, "dict_ns": 60.4}},
        "disk": {"error": "OSError: full"},
        "machine": "Python",
    }
    assert ratios(PARTS, results) == {
        "A call: hit": 3.5,
        "tiers: hot hit": 7.9,
        "import_cost": 1.5,
        "registry: agents_10": 2.3,
    }


def test_what_changed_is_a_table() -> None:
    """Each ratio has its old and new value and the change; one that is on one side only is kept,
    and says so. (V-42)"""
    found = changes({"a": 2.0, "old": 1.0, "zero": 0.0}, {"new": 3.0, "a": 2.5, "zero": 1.0})
    assert found[1] == Change("a", 2.0, 2.5)
    table = as_table(found)
    assert table.columns == ["ratio", "old", "new", "change"]
    assert table.rows == [
        ["new", "", "3.00", "new"],
        ["a", "2.00", "2.50", "+25%"],
        ["zero", "0.00", "1.00", ""],
        ["old", "1.00", "", "gone"],
    ]


def measured(monkeypatch: pytest.MonkeyPatch, kept: Path, ratio: float) -> tuple[str, str]:
    """What is printed by a benchmark that comes to this ratio."""

    def figures(_: str, *, quick: bool) -> dict[str, Any]:
        return {"ratio": ratio, "quick": quick}

    monkeypatch.setattr(command, "_run", figures)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # that of the tests stays
    monkeypatch.setattr(command, "LATEST", kept)
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert command.main(["registry"]) == 0
    return out.getvalue(), err.getvalue()


def test_the_change_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After measuring, ratios are shown beside those that are kept, of what was measured only;
    where nothing is kept there is nothing to show. (V-42)"""
    kept = tmp_path / "latest.json"
    assert "OLD" not in measured(monkeypatch, kept, 3.0)[0]
    before = {"registry": {"ratio": 2.0}, "import_cost": {"ratio": 9.0}, "machine": "a machine"}
    kept.write_bytes(msgspec.json.encode(before))
    lines = measured(monkeypatch, kept, 3.0)[0].splitlines()
    at = lines.index("beside latest.json (a machine)")
    assert [row.split() for row in lines[at + 1 :]] == [
        ["RATIO", "OLD", "NEW", "CHANGE"],
        ["registry", "2.00", "3.00", "+50%"],
    ]
    assert kept.read_bytes() == msgspec.json.encode(before)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"metrics": 1, "registry": {}}'])
def test_what_cannot_be_compared_is_no_failure(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures that were kept in another form, or are broken, are said to be no use, and what was
    measured is printed all the same. (V-42)"""
    kept = tmp_path / "latest.json"
    kept.write_bytes(content)
    out, _ = measured(monkeypatch, kept, 3.0)
    assert '"ratio": 3.0' in out
    if content in {b"{", b"[]"}:
        assert "cannot be compared" in measured(monkeypatch, kept, 3.0)[1]
