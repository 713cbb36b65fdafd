"""A place with a few agents, and the command line in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline.cli.app import run
from tests.e2e.command_line import Cli, Said, furnish
from tests.security.shell_host import open_directory


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory to work in, with a few agents, that host commands can enter."""
    with open_directory() as work:
        furnish(work, monkeypatch)
        yield work


@pytest.fixture
def cli(place: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process."""

    def call(*arguments: str) -> Said:
        code = run(list(arguments))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call
