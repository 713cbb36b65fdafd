"""Stand-ins for guarded files that do not exist: empty, and only there while a command runs.

A mount needs something to be mounted on, and what is mounted over cannot be made by the command.
Stand-ins bear the sticky bit, so that those left by a crash are known as ours and go with the next
command. Commands of all processes share them: who uses them holds a shared lock on the
workspace, and only who gets that lock for itself alone takes them away.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from paceline.errors import Category, SandboxError

__all__ = ["standing_in"]

_DIRECTORY: Final = stat.S_ISVTX | 0o755
_FILE: Final = stat.S_ISVTX | 0o644
_ROUNDS: Final = 100
_ROUND_S: Final = 0.01
_CANNOT_BE_MADE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""The command, which has no more rights than we, cannot make it either."""


@contextlib.asynccontextmanager
async def standing_in(
    root: Path, names: Sequence[str], *, make: bool = True
) -> AsyncGenerator[None]:
    """While the block runs, all names exist below `root`; those of directories end in /.

    What is there stays as it is. Without `make` nothing is made, but what others have made does
    not go while the block runs, and what a crash has left goes with it. Raises SandboxError where
    a stand-in cannot be made, or somebody else keeps the workspace locked.
    """
    try:
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise SandboxError(
            f"the workspace {root} cannot be used: {exc.strerror}",
            next_step="Set hostexec.workspace to a directory that you can read.",
        ) from exc
    try:
        await _share(lock, root)
        try:
            for name in names if make else ():
                _make(root, name)
            yield
        finally:
            _take_away(lock, root, names)
    finally:
        os.close(lock)


async def _share(lock: int, root: Path) -> None:
    for _ in range(_ROUNDS):
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_ROUND_S)
        except OSError as exc:
            raise SandboxError(f"the workspace {root} cannot be locked: {exc.strerror}") from exc
        else:
            return
    raise SandboxError(
        f"another program keeps the workspace {root} locked",
        next_step="Try again when it has ended (`lslocks` names it).",
        category=Category.UNAVAILABLE,
    )


def _make(root: Path, name: str) -> None:
    path = root / name
    try:
        for above in _between(root, path):
            _directory(above)
        if name.endswith("/"):
            _directory(path)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDONLY | os.O_CLOEXEC
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, flags, _FILE))
    except OSError as exc:
        if exc.errno not in _CANNOT_BE_MADE:
            raise SandboxError(f"{path} cannot be kept as it is: {exc.strerror}") from exc


def _directory(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=_DIRECTORY)


def _take_away(lock: int, root: Path, names: Sequence[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # others use them still
    for name in names:
        path = root / name
        for place in (path, *reversed([*_between(root, path)])):
            # what somebody has put something into is no longer ours
            with contextlib.suppress(OSError):
                _remove(place)


def _remove(path: Path) -> None:
    state = path.lstat()
    if state.st_uid != os.geteuid() or not state.st_mode & stat.S_ISVTX:
        return
    if stat.S_ISDIR(state.st_mode):
        path.rmdir()
    elif stat.S_ISREG(state.st_mode) and state.st_size == 0:
        path.unlink()


def _between(root: Path, path: Path) -> Iterator[Path]:
    """The directories above `path` and below `root`, the uppermost first."""
    parts = PurePosixPath(path.relative_to(root)).parts
    return (root.joinpath(*parts[:n]) for n in range(1, len(parts)))
