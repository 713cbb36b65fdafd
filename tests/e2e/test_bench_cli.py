"""`paceline bench`, as a user meets it."""

from pathlib import Path

import pytest

from paceline.cli.bench import is_checkout
from tests.e2e.command_line import Cli, process

ROOT = Path(__file__).parents[2]


def test_outside_of_a_checkout_it_says_where_to_go(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Installed without the repository, and not in a checkout of it, `bench` says what it needs
    and exits with 2."""
    monkeypatch.setattr("paceline.cli.bench.__file__", str(tmp_path / "a/b/c/bench.py"))
    said = cli("bench", "cache")
    assert (said.code, said.out) == (2, "")
    assert "not part of the installed package" in said.err
    assert "next: Run the command in a checkout" in said.err


def test_without_a_name_it_lists_what_there_is(place: Path) -> None:
    """`bench` lists benchmarks and groups, from a folder anywhere where the package runs from its
    checkout, and in any folder of a checkout."""
    for where in (place, ROOT / "src"):
        said = process(where, "bench")
        assert (said.code, said.err) == (0, "")
        names = [row.split()[0] for row in said.out.splitlines()[1:]]
        assert {"cache", "runtime", "decorators", "hit_ratio", "redis"} <= set(names)


def test_an_unknown_name_is_wrong_usage(place: Path) -> None:
    """A benchmark that does not exist is refused with the names of those that do."""
    said = process(place, "bench", "speed")
    assert (said.code, said.out) == (2, "")
    assert "speed" in said.err
    assert "decorators" in said.err


def test_a_benchmark_prints_its_figures(place: Path) -> None:
    """A named benchmark is run, and its figures printed."""
    said = process(place, "bench", "import_cost", "--quick")
    assert said.code == 0
    assert '"paceline_ms"' in said.out
    assert "written to" not in said.out


def test_a_checkout_is_ours_only_by_name(tmp_path: Path) -> None:
    """A folder is a checkout if it has the benchmarks and its project is this one."""
    assert is_checkout(ROOT)
    assert not is_checkout(tmp_path)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__main__.py").touch()
    assert not is_checkout(tmp_path)
    for text in ("[project]\nname = 'another'", "name =", "project = 1"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert not is_checkout(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'paceline'")
    assert is_checkout(tmp_path)
