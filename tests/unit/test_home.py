"""Where state lives."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from paceline.errors import ConfigError
from paceline.home import Home

Locate = Callable[[Mapping[str, str], Path], Home]


def check_order(locate: Locate, cwd: Path) -> None:
    """Each place is taken only where those before it are not named or not there."""
    named = {"PACELINE_HOME": "/a/b"}
    assert locate({}, cwd).path == USER
    (cwd / ".paceline").mkdir()
    assert locate({}, cwd).path == cwd / ".paceline"
    assert locate(named, cwd).path == Path("/a/b")


USER = Path("/user/state")


def located(environ: Mapping[str, str], cwd: Path) -> Home:
    return Home.locate(environ, cwd, user_state=lambda: USER)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory to start in that is not this process's own, whose environment misleads."""
    for name in ("PACELINE_HOME", "HOME"):
        monkeypatch.setenv(name, "/misleading")
    return tmp_path


def test_the_nearest_named_place_wins(elsewhere: Path) -> None:
    """State lives in `$PACELINE_HOME`, else in `./.paceline`, else in the user's state
    directory, going by the environment that is handed in alone."""
    check_order(located, elsewhere)


def test_an_ambient_environment_is_caught(elsewhere: Path) -> None:
    """The check above fails for a search that reads the environment of the process."""
    with pytest.raises(AssertionError):
        check_order(lambda _, cwd: located(os.environ, cwd), elsewhere)


@pytest.mark.parametrize(
    ("chosen", "path"),
    [
        ("state", "{cwd}/state"),
        (".", "{cwd}"),
        ("~", "/home/ada"),
        ("~/state", "/home/ada/state"),
        ("/a/~", "/a/~"),
    ],
)
def test_a_chosen_place_is_relative_to_where_we_started(
    elsewhere: Path, chosen: str, path: str
) -> None:
    """A relative PACELINE_HOME starts at the given directory, `~` at the given home."""
    environ = {"PACELINE_HOME": chosen, "HOME": "/home/ada"}
    assert located(environ, elsewhere).path == Path(path.format(cwd=elsewhere))


def test_an_empty_name_counts_as_none(elsewhere: Path) -> None:
    """An empty PACELINE_HOME counts as not set."""
    assert located({"PACELINE_HOME": ""}, elsewhere).path == USER


def test_a_file_called_paceline_is_no_home(elsewhere: Path) -> None:
    """Only a directory `.paceline` is taken for a home."""
    (elsewhere / ".paceline").touch()
    assert located({}, elsewhere).path == USER


def test_the_platform_says_where_a_users_state_is(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a chosen place state is kept where the platform keeps it, under our name."""
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert Home.locate({}, elsewhere).path == Path("/state/paceline")


def test_a_user_without_a_directory_is_told_what_to_set(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who has no directory is told to set PACELINE_HOME."""

    def unknown(*_: object, **__: object) -> Path:
        raise RuntimeError("no home directory")

    monkeypatch.setattr("platformdirs.user_state_path", unknown)
    with pytest.raises(ConfigError) as caught:
        Home.locate({}, elsewhere)
    assert "PACELINE_HOME" in caught.value.next_step


def test_every_file_has_its_own_place_in_the_home() -> None:
    """No two kinds of state share a file, and all lie directly in the home."""
    home = Home(Path("/h"))
    names = [name for name, what in vars(Home).items() if isinstance(what, property)]
    paths = [getattr(home, name) for name in names]
    assert len(set(paths)) == len(paths) >= 6
    assert {path.parent for path in paths} == {Path("/h")}


def test_locating_touches_nothing(elsewhere: Path) -> None:
    """Looking for the home creates no file or directory."""
    home = Home.locate({"PACELINE_HOME": "state"}, elsewhere)
    assert not home.path.exists()
    assert list(elsewhere.iterdir()) == []
