"""How much a command may fill of the disk."""

from pathlib import Path

import pytest

from paceline.errors import SandboxError
from paceline.hostexec.sandbox.room import Room


def test_the_room_is_what_was_free_at_the_beginning() -> None:
    """Exactly the bytes granted may be added; files that go make room again. (B-47)"""
    free = [1_000]
    room = Room(Path("/"), 300, free=lambda _: free[0])
    seen = []
    for free[0] in (1_000, 700, 699, 2_000, 0):
        seen.append(room.used_up())
    assert seen == [False, False, True, False, True]


def test_the_file_system_is_asked(tmp_path: Path) -> None:
    """A real file system has room for nothing of a negative size, and for what is its own."""
    assert Room(tmp_path, -1_000_000_000_000_000).used_up()
    assert not Room(tmp_path, 1_000_000_000_000_000).used_up()


def test_a_workspace_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    """Where the workspace is gone, the error is typed and says what to do."""
    with pytest.raises(SandboxError, match="workspace"):
        Room(tmp_path / "gone", 1)
