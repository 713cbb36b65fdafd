"""Fixtures of the sandbox tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.security.shell_host import ShellHost, open_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """A workspace."""
    with open_directory() as path:
        yield path


@pytest.fixture
def shell(directory: Path) -> Iterator[Callable[..., ShellHost]]:
    """Makes hosts over the workspace; takes their logs away afterwards."""
    made: list[ShellHost] = []

    def make(**options: Any) -> ShellHost:
        made.append(ShellHost(directory, **options))
        return made[-1]

    yield make
    for host in made:
        host.log.unlink(missing_ok=True)
