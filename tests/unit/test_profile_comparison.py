"""`paceline profile RUN --against OTHER`, on a history of its own."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from paceline.cli.app import run
from paceline.cli.compare import compare_runs
from paceline.cli.comparison_options import Wish
from paceline.cli.place import Place
from paceline.cli.profile import Wanted
from paceline.errors import StorageError, UsageError
from paceline.history.sqlite import SqliteHistory
from paceline.redaction import Redactor
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock

MS = 1_000_000
Said = pytest.CaptureFixture[str]
Cli = Callable[..., tuple[int, str, str]]


def fail(exc: StorageError) -> None:
    raise exc


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where the same work is recorded twice, the second time slower."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PACELINE_HOME", str(tmp_path / "state"))
    place = Place({}, tmp_path, home=tmp_path / "state")
    clock = VirtualClock()
    history = SqliteHistory(place.home.history, clock=clock, redactor=Redactor(), on_loss=fail)
    for own, fetch_ms, name in (("base", 100, "old"), ("later", 150, "new")):
        calls = (("-1", "fetch", own, fetch_ms), ("-2", name, own, 20), ("", "plan", None, 300))
        for end, called, parent, took_ms in calls:
            clock.advance(took_ms / 1_000)
            call = msgspec.structs.replace(
                a_call(f"{own}{end}", called), trace_id=own, parent_id=parent
            )
            history.observe(
                call, msgspec.structs.replace(an_outcome(call), total_ns=took_ms * MS, link="")
            )
        clock.advance(60)
    history.close()
    return place


@pytest.fixture
def cli(place: Place, capsys: Said) -> Cli:
    """The command line, where these runs are."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["--home", str(place.home.path), "profile", *arguments])
        return (code, *capsys.readouterr())

    return call


def test_what_changed_is_a_table(cli: Cli) -> None:
    """Both runs are named, and each name has what it is and was, in plain text; nothing fails
    where no limit is given. (V-41)"""
    code, out, err = cli("later", "--against", "base")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["run later  300ms", "against base  300ms  (the whole time +0%)"]
    table = [" ".join(line.split()) for line in lines[4:]]
    assert table == [
        "NAME CALLS WAS TOTAL WAS SELF WAS P95 WAS CHANGE",
        "fetch 1 1 150ms 100ms 150ms 100ms 150ms 100ms +50%",
        "new 1 - 20.0ms - 20.0ms - 20.0ms - new",
        "old - 1 - 20.0ms - 20.0ms - 20.0ms gone",
        "plan 1 1 300ms 300ms 300ms 300ms 300ms 300ms +0%",
    ]
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize(("percent", "code"), [("49.9", 1), ("50", 0), ("0", 1)])
def test_a_regression_fails(percent: str, code: int, cli: Cli) -> None:
    """What grew by more than the limit is named, and is the exit code 1; at the limit it is not;
    the other way round nothing is worse. (V-41)"""
    ended, out, _ = cli("later", "--against", "base", "--fail-above", percent)
    assert ended == code
    complaint = f"slower by more than {percent} %: p95 of fetch, 100ms -> 150ms (+50%)"
    assert (complaint in out.splitlines()) == bool(code)
    assert cli("base", "--against", "later", "--fail-above", percent)[0] == 0


def test_machines_get_it_all(cli: Cli) -> None:
    """`--json` is one object with both runs, each name before and after, and what is worse; that
    is null where no limit was given. (V-41)"""
    code, out, _ = cli("last", "--against", "base", "--fail-above", "10", "--json")
    told = json.loads(out)
    assert (code, told["version"], told["run"], told["against"]) == (1, 1, "later", "base")
    assert (told["total_ns"], told["change"]) == (300 * MS, 0)
    names = {name["name"]: name for name in told["names"]}
    assert (names["fetch"]["before"]["p95_ns"], names["fetch"]["change"]) == (100 * MS, 0.5)
    assert names["new"]["before"] is None
    assert told["worse"] == [{"name": "fetch", "before_ns": 100 * MS, "after_ns": 150 * MS}]
    assert json.loads(cli("last", "--against", "base", "--json")[1])["worse"] is None


@pytest.mark.parametrize("other", ["later", "last", "later-1"])
def test_a_run_and_itself_are_refused(other: str, cli: Cli) -> None:
    """A run is not compared with itself, by whichever of its ids it is named. (V-41)"""
    code, out, err = cli("later", "--against", other)
    assert (code, out) == (2, "")
    assert "with itself" in err
    assert "next:" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fail-above", "10"),
        ("--top", "--against", "base"),
        ("--folded", "--against", "base"),
        ("--chrome", "trace.json", "--against", "base"),
        ("--against", "base", "--fail-above", "-1"),
        ("--against", "base", "--fail-above", "nan"),
        ("--against", "nothing"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], cli: Cli) -> None:
    """A limit without another run, another form beside a comparison, a limit that is none and a
    run that is not there are wrong usage. (V-41)"""
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert not Path("trace.json").exists()


def test_the_options_are_explained(cli: Cli) -> None:
    """The help of the command has the options of the comparison, with the others. (V-41)"""
    code, out, _ = cli("--help")
    assert code == 0
    assert all(option in out for option in ("--against", "--fail-above", "--folded", "--names"))


def test_only_so_many_names_are_shown(place: Place, capsys: Said) -> None:
    """The table has as many names as asked for, those first whose self time changed most. (V-41)"""
    assert compare_runs(place, "later", Wish("base"), Wanted(names=1)) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[5:]] == ["fetch"]
    with pytest.raises(UsageError, match="two runs"):
        compare_runs(place, "later", Wish(fail_above=1), Wanted())
