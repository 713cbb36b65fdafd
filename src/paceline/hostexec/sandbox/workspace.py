"""The one directory that commands may work in, and the parts of it that are not theirs."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, final

from paceline.errors import SandboxError

__all__ = ["HIDDEN", "PROTECTED", "Workspace"]

PROTECTED: Final = (".git/", "paceline.toml")
"""Read-only for every command: what runs code later. A name ending in / is a directory."""
HIDDEN: Final = (".paceline/",)
"""Not even readable: our own state, with the token of the service in it."""


@final
class Workspace:
    """A directory, with names in it that commands may not change or not see."""

    __slots__ = ("hidden", "path", "protected")

    def __init__(
        self,
        path: Path,
        *,
        protected: tuple[str, ...] = PROTECTED,
        hidden: tuple[str, ...] = HIDDEN,
    ) -> None:
        """`protected` and `hidden` are names relative to `path`; those of directories end in /.

        Raises SandboxError where `path` is not a directory, or a name leads out of it.
        """
        try:
            self.path = path.resolve(strict=True)
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

    @classmethod
    def guarding(
        cls, path: Path, *, read_only: Iterable[Path] = (), unseen: Iterable[Path] = ()
    ) -> "Workspace":
        """The workspace at `path`, with those of our own files guarded that lie in it.

        What guards itself everywhere (PROTECTED, HIDDEN) is guarded too. A path that does not
        exist is taken for a directory unless its name has a suffix.
        """
        root = path.resolve()
        return cls(
            path,
            protected=(*PROTECTED, *_names_in(root, read_only)),
            hidden=(*HIDDEN, *_names_in(root, unseen)),
        )

    def secure(self) -> None:
        """Makes sure that every part to guard exists, so that a command which may write cannot
        make it: what is missing is created empty.

        A symbolic link among them cannot be guarded, only replaced: SandboxError.
        """
        for name in (*self.protected, *self.hidden):
            path = self.path
            for part in PurePosixPath(name).parts:
                path = path / part
                if path.is_symlink():
                    raise SandboxError(
                        f"{path} is a symbolic link, which cannot be kept read-only",
                        next_step="Put the directory or file itself there, or run no command"
                        " that changes the workspace.",
                    )
            _create(self.path / name, directory=name.endswith("/"))

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


def _names_in(root: Path, paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        full = Path(os.path.abspath(root / path))  # noqa: PTH100 (follows no link)
        if full != root and full.is_relative_to(root):
            directory = full.is_dir() if full.exists() else not full.suffix
            yield f"{full.relative_to(root)}{'/' if directory else ''}"


def _linked(root: Path, name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(root.joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts)))


def _create(path: Path, *, directory: bool) -> None:
    if path.exists():
        return
    try:
        if directory:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        else:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_NOFOLLOW | os.O_RDONLY, 0o644))
    except PermissionError:
        return  # then the command, which has no more rights than we, cannot make it either
    except OSError as exc:
        if exc.errno == errno.EROFS:
            return  # nobody can make it
        raise SandboxError(f"{path} cannot be kept read-only: {exc.strerror}") from exc
