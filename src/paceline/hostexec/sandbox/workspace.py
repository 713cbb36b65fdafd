"""The one directory that commands may work in, and the parts of it that are not theirs."""

import contextlib
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, final

from paceline.errors import SandboxError
from paceline.hostexec.sandbox.standins import standing_in

__all__ = ["HIDDEN", "PROTECTED", "Workspace"]

PROTECTED: Final = (".git/", "paceline.toml")
"""Read-only for every command: what runs code later. A name ending in / is a directory."""
HIDDEN: Final = (".paceline",)
"""Not even readable: our own state, with the token of the service in it."""


@final
class Workspace:
    """A directory, with names in it that commands may not change or not see."""

    __slots__ = ("fixed", "hidden", "path", "protected")

    def __init__(
        self,
        path: Path,
        *,
        protected: tuple[str, ...] = PROTECTED,
        hidden: tuple[str, ...] = HIDDEN,
    ) -> None:
        """`protected` and `hidden` are names relative to `path`; those that stand for directories
        where they are missing end in /.

        Raises SandboxError where `path` is not a directory, or a name leads out of it.
        """
        try:
            self.path = Path(os.path.realpath(path, strict=True))
        except OSError as exc:
            raise SandboxError(
                f"the workspace {path} cannot be used: {exc.strerror}",
                next_step="Set hostexec.workspace to a directory that exists.",
            ) from exc
        if not self.path.is_dir() or self.path == Path("/"):
            raise SandboxError(
                f"the workspace {self.path} is not a directory to work in",
                next_step="Set hostexec.workspace to the directory of your project.",
            )
        for name in (*protected, *hidden):
            pure = PurePosixPath(name)
            if pure.is_absolute() or not pure.parts or ".." in pure.parts:
                raise SandboxError(f"{name!r} does not name a part of the workspace")
        self.protected = protected
        self.hidden = hidden
        self.fixed: Path | None = None
        """Something that has to stay read-only and has the whole workspace in it."""

    @classmethod
    def guarding(
        cls, path: Path, *, read_only: Iterable[Path] = (), unseen: Iterable[Path] = ()
    ) -> "Workspace":
        """The workspace at `path`, with those of our own files guarded that lie in it.

        All paths are absolute. Each is guarded by its name, where it really is, and where
        symbolic links lead on the way; what guards itself everywhere (PROTECTED, HIDDEN) too. One
        that does not exist is taken for a directory unless its name has a suffix. Raises
        SandboxError also where a path of `unseen` is the workspace itself.
        """
        root = Path(os.path.realpath(path))
        kept = list(_places([*(root / name for name in PROTECTED), *read_only]))
        secret = list(_places([*(root / name for name in HIDDEN), *unseen]))
        if root in secret:
            raise SandboxError(
                f"the workspace {root} is also where state is kept, which no command may see",
                next_step="Set PACELINE_HOME, or hostexec.workspace, to another directory.",
            )
        hidden = _below(root, secret)
        workspace = cls(
            path,
            protected=tuple(_as_name(root, name) for name in _below(root, kept)),
            hidden=tuple(str(name) for name in hidden if not set(name.parents) & set(hidden)),
        )
        workspace.fixed = next((place for place in kept if root.is_relative_to(place)), None)
        return workspace

    @contextlib.asynccontextmanager
    async def guarded(self, *, writing: bool = True) -> AsyncGenerator[None]:
        """While the block runs, every part to guard exists, so that a command which may write
        cannot make it; what is missing is there, empty, for so long. For one that only reads,
        the parts that are there do not go.

        A symbolic link among them cannot be guarded, only replaced: SandboxError for a command
        that writes, as where the whole workspace has to stay as it is.
        """
        names = (*self.protected, *self.hidden)
        if not writing:
            async with standing_in(self.path, names, make=False):
                yield
            return
        if self.fixed is not None:
            raise SandboxError(
                f"the workspace {self.path} lies in {self.fixed}, which no command may change",
                next_step="Set hostexec.workspace to another directory.",
            )
        for name in names:
            path = self.path
            for part in PurePosixPath(name).parts:
                path = path / part
                if path.is_symlink():
                    raise SandboxError(
                        f"{path} is a symbolic link, which cannot be kept read-only",
                        next_step="Put the directory or file itself there, or run no command"
                        " that changes the workspace.",
                    )
        async with standing_in(self.path, names):
            yield

    def present(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the names that exist here as themselves, not as symbolic links."""
        return tuple(
            name.rstrip("/")
            for name in names
            if (self.path / name).exists() and not _linked(self.path, name)
        )

    def readable(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """The workspace without its hidden parts, as (paths whole, directories by name only):
        for a mechanism that can only allow."""
        hidden = {self.path / name for name in self.present(self.hidden)}
        whole: list[Path] = []
        names: list[Path] = []
        todo = [self.path]
        while todo:
            path = todo.pop()
            if path in hidden:
                continue
            if any(path in other.parents for other in hidden):
                names.append(path)
                todo += path.iterdir()
            elif not path.is_symlink():  # where a link leads is allowed, or not, by itself
                whole.append(path)
        return tuple(whole), tuple(names)

    def closed_at(self, uid: int, gid: int) -> Path | None:
        """The first directory on the way here, and including it, that this user and group
        cannot enter; None when the way is free. Access lists are not looked at."""
        for directory in (*reversed(self.path.parents), self.path):
            state = directory.stat()
            shift = 6 if state.st_uid == uid else 3 if state.st_gid == gid else 0
            needed = 0o5 if directory == self.path else 0o1
            if (state.st_mode >> shift) & needed != needed:
                return directory
        return None


def _places(paths: Iterable[Path]) -> Iterator[Path]:
    """Where these are: each symbolic link on the way, and where the way ends."""
    for path in paths:
        todo, seen = [path], set[Path]()
        while todo:
            way = todo.pop()
            seen.add(way)
            for step in (*reversed(way.parents), way):
                place = Path(os.path.realpath(step.parent)) / step.name
                if place.is_symlink():
                    yield place
                    if (beyond := place.parent / place.readlink()) not in seen:
                        todo.append(beyond)
        yield Path(os.path.realpath(path))


def _below(root: Path, places: Iterable[Path]) -> list[PurePosixPath]:
    return list(
        dict.fromkeys(
            PurePosixPath(place.relative_to(root))
            for place in places
            if place != root and place.is_relative_to(root)
        )
    )


def _as_name(root: Path, name: PurePosixPath) -> str:
    full = root / name
    directory = full.is_dir() if full.exists() else not name.suffix
    return f"{name}/" if directory else str(name)


def _linked(root: Path, name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(root.joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts)))
