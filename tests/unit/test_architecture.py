"""The house rules: what imports what, how large things are, what may not stand in the code."""

from collections.abc import Callable, Mapping

import pytest

from tests.rules.imports import check_cycles, check_layers
from tests.rules.sizes import check_exports, check_sizes
from tests.rules.sources import Sources, python, tracked
from tests.rules.tests import check_excuses, check_promises
from tests.rules.tree import check_requirements, check_tree
from tests.rules.words import check_ambient, check_constructs, check_names, check_unfinished

Check = Callable[[Sources], list[str]]


@pytest.fixture(scope="module")
def src() -> Mapping[str, str]:
    """The product's modules."""
    return python("src")


@pytest.fixture(scope="module")
def tests() -> Mapping[str, str]:
    """The tests' modules."""
    return python("tests")


@pytest.fixture(scope="module")
def tree() -> Mapping[str, str]:
    """Every text file of the repository."""
    return tracked()


def expect_none(found: list[str]) -> None:
    assert not found, "\n".join(["", *found])


def test_imports_point_one_way(src: Sources) -> None:
    """A module imports only what lies below it, siblings never import each other, and every
    module has its layer."""
    expect_none(check_layers(src))


def test_no_imports_go_in_circles(src: Sources) -> None:
    """No module imports itself by way of others."""
    expect_none(check_cycles(src))


def test_everything_fits_on_a_screen_or_a_few(src: Sources) -> None:
    """Files, functions, classes and parameter lists keep to their budgets."""
    expect_none(check_sizes(src))


def test_modules_say_what_they_offer(src: Sources) -> None:
    """`__all__` is sorted and lists every public class and function, and nothing that is not
    there."""
    expect_none(check_exports(src))


def test_nothing_dangerous_or_shared_is_in_the_code(src: Sources) -> None:
    """No shell, evaluated text, pickle, print, global, mutable default, or broad except without
    its reason."""
    expect_none(check_constructs(src))


def test_time_chance_and_environment_are_handed_in(src: Sources) -> None:
    """No module but the outermost reads the clock, the environment or random numbers that
    nobody gave it."""
    expect_none(check_ambient(src))


def test_nothing_is_left_for_later(src: Sources) -> None:
    """The code has no words that stand for work not done."""
    expect_none(check_unfinished(src))


def test_names_of_modules_say_what_is_inside(src: Sources, tests: Sources) -> None:
    """No module is called by a word that fits everything."""
    expect_none(check_names({**src, **tests}))


def test_every_test_makes_a_promise_and_checks_it(tests: Sources) -> None:
    """Every test's docstring is a sentence, and every test can fail."""
    expect_none(check_promises(tests))


def test_no_test_is_excused_or_waits(tests: Sources) -> None:
    """No test is skipped, expected to fail, or sleeps."""
    expect_none(check_excuses(tests))


def test_the_repository_is_nobodys_machine(tree: Sources) -> None:
    """No file names a path of one machine or a package index."""
    assert len(tree) > 50
    expect_none(check_tree(tree))


def test_what_is_installed_is_pinned(tree: Sources) -> None:
    """Every requirement has one version and its hashes, and says nothing of where from."""
    locks = {path: text for path, text in tree.items() if path.startswith("requirements/")}
    assert {"requirements/run.txt", "requirements/dev.txt"} <= set(locks)
    expect_none(check_requirements(locks))


def _module(path: str, text: str) -> dict[str, str]:
    return {f"src/paceline/{path}.py": text}


def _test(text: str) -> dict[str, str]:
    return {"tests/unit/test_x.py": text}


def _function(lines: int, parameters: str = "") -> str:
    return f"def _f({parameters}):\n" + "    pass\n" * (lines - 1)


_HASH = " --hash=sha256:" + "0" * 64
_FAULTS: list[tuple[Check, dict[str, str], str]] = [
    (check_layers, _module("errors", "from paceline.cache import keys"), "errors may not"),
    (check_layers, _module("cache/keys", "import paceline.metrics.sketch"), "cache may not"),
    (check_layers, _module("agents/a", "def f():\n    from paceline.hostexec import b"), "agents"),
    (check_layers, _module("hostexec/a", "from paceline.runtime import Runtime"), "hostexec may"),
    (check_layers, _module("path", "from paceline.sync import x"), "path may not"),
    (check_layers, _module("cli/a", "from paceline.testing import x"), "cli may not"),
    (check_layers, _module("runtime", "from paceline import Runtime"), "runtime may not"),
    (check_layers, _module("cache/a", "from paceline.nowhere import x"), "cache may not"),
    (check_layers, _module("cache/a", "from .keys import x"), "relative"),
    (check_layers, _module("nowhere", ""), "in no layer"),
    (
        check_cycles,
        _module("cache/a", "from paceline.cache import b")
        | _module("cache/b", "def f():\n    from paceline.cache.c import x")
        | _module("cache/c", "import paceline.cache.a"),
        "paceline.cache.a -> paceline.cache.b",
    ),
    (check_sizes, _module("errors", "x = 1\n" * 501), "501 lines"),
    (check_sizes, _module("errors", "x = 1\n" * 201), "median"),
    (check_sizes, _module("errors", _function(91)), "_f has 91 lines"),
    (check_sizes, _module("errors", _function(46)), "p95"),
    (check_sizes, _module("errors", "class _C:\n" + "    x = 1\n" * 350), "_C has 351"),
    (check_sizes, _module("errors", _function(2, "self, a, b, c, d, e, /, f, *g, h, i")), "9 par"),
    (
        check_sizes,
        _module("errors", "\n".join(f"class E{n}(ValueError): ..." for n in range(26))),
        "26 exception classes",
    ),
    (check_exports, _module("errors", "def f(): ..."), "no literal __all__"),
    (check_exports, _module("errors", "__all__ = sorted(['f'])\ndef f(): ..."), "no literal"),
    (check_exports, _module("errors", "__all__ = ['f']"), "f, which is not there"),
    (check_exports, _module("errors", "__all__ = []\nclass C: ..."), "C is public"),
    (check_exports, _module("errors", "__all__ = ['f', 'C', 'X1']\nC = f = X1 = 1"), "sorted"),
    (check_exports, _module("errors", "__all__ = ['f10', 'f9']\nf9 = f10 = 1"), "sorted"),
    (
        check_exports,
        _module("__init__", f"__all__ = {[f'x{n}' for n in range(61)]}"),
        "61 public names",
    ),
    (check_constructs, _module("errors", "run('ls', shell=True)"), "shell=True"),
    (check_constructs, _module("errors", "run('ls', shell=flag)"), "shell=True"),
    (check_constructs, _module("errors", "from pickle import loads"), "pickle"),
    (check_constructs, _module("errors", "import pickle as p"), "pickle"),
    (check_constructs, _module("errors", "x = eval('1')"), "eval"),
    (check_constructs, _module("agents/registry", "exec('1')"), "exec"),
    (check_constructs, _module("errors", "print(1)"), "print"),
    (check_constructs, _module("errors", "def f():\n    global x"), "global"),
    (check_constructs, _module("errors", "def f(*, x=[]): ..."), "mutable default"),
    (check_constructs, _module("errors", "f = lambda x=dict(): x"), "mutable default"),
    (check_constructs, _module("errors", "x = 1  # noqa: BLE001"), "without a reason"),
    (check_ambient, _module("errors", "import time\nt = time.monotonic()"), "time.monotonic"),
    (check_ambient, _module("errors", "from time import time_ns as now"), "time.time_ns"),
    (check_ambient, _module("errors", "import datetime as d\nd.datetime.now()"), "datetime.now"),
    (check_ambient, _module("errors", "import os\nos.environ.get('X')"), "os.environ"),
    (check_ambient, _module("errors", "from os import getenv"), "os.getenv"),
    (check_ambient, _module("errors", "import random\nrandom.uniform(0, 1)"), "random.uniform"),
    (check_ambient, _module("errors", "import random\nr = random.Random()"), "without a seed"),
    (check_unfinished, _module("errors", "# TODO: all"), "TODO"),
    (check_unfinished, _module("errors", "x = 1  # enough for now"), "for now"),
    (check_names, _module("cache/key_utils", ""), "utils"),
    (check_names, _module("helpers/keys", ""), "helpers"),
    (check_promises, _test("def test_a():\n    assert x"), "promises nothing"),
    (check_promises, _test("def test_a():\n    'Works'\n    assert x"), "full stop"),
    (check_promises, _test("def test_a():\n    'Expects to assert.'\n    f()"), "asserts nothing"),
    (
        check_promises,
        _test("def f(): ...\ndef test_a():\n    'Works.'\n    f()"),
        "asserts nothing",
    ),
    (check_promises, _test("class TestA:\n    async def test_a(self):\n        f()"), "promises"),
    (check_excuses, _test("import time\ntime.sleep(1)"), "time.sleep"),
    (check_excuses, _test("from pytest import mark\n@mark.skipif(1)\ndef f(): ..."), "skipif"),
    (check_excuses, _test("import pytest\npytest.xfail('x')"), "xfail"),
    (check_tree, {"docs/a.md": "see @k/main/src".replace("@", "/wor")}, "one machine"),
    (check_tree, {"docs/a.md": "https://@.org/p".replace("@", "py" + "pi")}, "package index"),
    (check_requirements, {"requirements/run.txt": "rich==1.0\n"}, "not pinned"),
    (check_requirements, {"requirements/run.txt": f"rich>=1.0 \\\n   {_HASH}\n"}, "not pinned"),
    (check_requirements, {"requirements/run.txt": "--index-url https://a\n"}, "names a host"),
]


@pytest.mark.parametrize(("check", "sources", "finding"), _FAULTS)
def test_every_rule_finds_its_fault(check: Check, sources: Sources, finding: str) -> None:
    """A source with one seeded fault is found by the rule against that fault."""
    found = check(sources)
    assert any(finding in one for one in found), found


_FINE: list[tuple[Check, dict[str, str]]] = [
    (check_layers, _module("hostexec/a", "from paceline.balance.gate import Gate\nimport os")),
    (check_layers, _module("cache/a", "from paceline.cache import keys, memory")),
    (
        check_cycles,
        _module("cache/a", "if TYPE_CHECKING:\n    from paceline.cache.b import x")
        | _module("cache/b", "from paceline.cache.a import y"),
    ),
    (check_sizes, _module("errors", _function(45, "self, a, b, c, d, e, *, f, g, h"))),
    (
        check_exports,
        _module("errors", "__all__ = ['AB', 'Ab', 'f9', 'f10']\nAB = Ab = f9 = f10 = 1"),
    ),
    (check_constructs, _module("errors", "'''print(eval)'''\nrun(shell=False)")),
    (check_constructs, _module("agents/load", "exec(compile('1', 'a', 'exec'))")),
    (check_constructs, _module("errors", "x = 1  # noqa: BLE001 (agents may raise anything)")),
    (check_constructs, _module("errors", "# They may raise anything.\nx = 1  # noqa: BLE001")),
    (check_ambient, _module("clock", "import time\nnow = time.monotonic_ns")),
    (check_ambient, _module("cache/a", "import random\ndef f(r: random.Random): r.uniform(0, 1)")),
    (check_promises, _test("def test_a():\n    'It works. (S0-36, X-1)'\n    check_it()")),
    (
        check_promises,
        _test(
            "def f():\n    g()\ndef g():\n    assert x\ndef test_a():\n    'Works.'\n    run(f())"
        ),
    ),
    (check_requirements, {"requirements/run.txt": f"rich==1.0 ; a == 'b' \\\n   {_HASH}\n"}),
]


@pytest.mark.parametrize(("check", "sources"), _FINE)
def test_no_rule_finds_fault_with_good_code(check: Check, sources: Sources) -> None:
    """A source that keeps to a rule is not reported by it."""
    expect_none(check(sources))
