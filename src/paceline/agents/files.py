"""Agent files: which there are, and their bytes as they were at one moment.

A file that somebody is writing must not be taken for finished: the first half of a module is
often a valid module. So files count only when they have not changed for `QUIET_S`, and their
bytes only when size, times and inode are the same before and after reading. A writer that
pauses for longer is not noticed; one that writes beside and renames never is a problem.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, final

import msgspec

from paceline.agents.digest import bytes_digest
from paceline.agents.module import check_name
from paceline.clock import Clock
from paceline.errors import AgentLoadError, Category

__all__ = ["MAX_BYTES", "QUIET_S", "AgentFiles", "Listing", "Source", "Stamp", "read", "settled"]

QUIET_S: Final = 0.05
"""Longer than the grain of time stamps of files, so that two edits never look alike."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""A larger file is not read: nobody wrote it."""
_ROUNDS: Final = 20
_NS: Final = 1_000_000_000


class Stamp(msgspec.Struct, frozen=True):
    """A file as its directory entry describes it; whoever changes the file changes this."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int


class AgentFiles(msgspec.Struct, frozen=True):
    """The files of one agent: `main` is the module, or `__init__.py` of a package.

    `stamps` are of all Python files, by their names below `base`. `problem` says why they
    cannot be an agent.
    """

    name: str
    root: Path
    main: Path
    stamps: tuple[Stamp, ...] = ()
    problem: str = ""

    @property
    def base(self) -> Path:
        """The directory that the names of the stamps are relative to."""
        return self.main.parent

    @property
    def is_package(self) -> bool:
        """Whether it is a directory with `__init__.py`."""
        return self.main.name == "__init__.py"


@final
class Listing(msgspec.Struct, frozen=True):
    """What the directories hold.

    `agents` by name; of two with one name the first counts, `notes` tell of the other.
    `unreadable` are directories that exist and cannot be listed, `unsettled` the names whose
    files are being written right now.
    """

    agents: dict[str, AgentFiles]
    notes: tuple[str, ...] = ()
    unreadable: frozenset[Path] = frozenset()
    unsettled: frozenset[str] = frozenset()


class Source(msgspec.Struct, frozen=True):
    """The code of one agent: the bytes of its files, by their names below `files.base`."""

    files: AgentFiles
    texts: dict[str, bytes]
    digest: str


def settled(dirs: Sequence[Path], *, clock: Clock, pause: Callable[[float], object]) -> Listing:
    """What the directories hold once nobody is writing there any more.

    Waits only when a file is younger than `QUIET_S`, and about a second at most.
    """
    listing = _listing(dirs)
    changed: frozenset[str] = frozenset()
    for _ in range(_ROUNDS):
        if not _is_young(listing, clock.wall_ns()):
            return listing
        pause(QUIET_S)
        later = _listing(dirs)
        names = listing.agents.keys() | later.agents.keys()
        changed = frozenset(n for n in names if listing.agents.get(n) != later.agents.get(n))
        listing = later
        if not changed:
            return listing
    return msgspec.structs.replace(listing, unsettled=changed)


def read(files: AgentFiles) -> Source:
    """The bytes of an agent's files.

    Raises AgentLoadError when they cannot be read, of the category UNAVAILABLE when they are no
    longer as they were listed: they are worth another look.
    """
    if files.problem:
        raise AgentLoadError(f"{files.main}: {files.problem}")
    check_name(files.name, str(files.main))
    texts: dict[str, bytes] = {}
    for stamp in files.stamps:
        path = files.base / stamp.name
        try:
            texts[stamp.name] = _bytes(path, stamp)
        except OSError as exc:
            raise AgentLoadError(f"{path} cannot be read: {exc.strerror}") from exc
    parts = (part for name, text in texts.items() for part in (os.fsencode(name), text))
    return Source(files, texts, bytes_digest(*parts))


def _bytes(path: Path, stamp: Stamp) -> bytes:
    # Non-blocking, as what was a file a moment ago may be a pipe now.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:  # noqa: PTH123 (a descriptor has no path)
        if _stamp(stamp.name, os.fstat(fd)) == stamp:
            data = file.read(stamp.size + 1)
            if len(data) == stamp.size and _stamp(stamp.name, os.fstat(fd)) == stamp:
                return data
    raise AgentLoadError(
        f"{path} changed while it was read",
        next_step="It is read again with the next reload.",
        category=Category.UNAVAILABLE,
    )


def _is_young(listing: Listing, now_ns: int) -> bool:
    """Whether anything was changed in the last moment, or in what the clock says is the future."""
    latest = now_ns - int(QUIET_S * _NS)
    return any(
        stamp.mtime_ns > latest or stamp.ctime_ns > latest
        for files in listing.agents.values()
        for stamp in files.stamps
    )


def _listing(dirs: Sequence[Path]) -> Listing:
    agents: dict[str, AgentFiles] = {}
    notes: list[str] = []
    unreadable: set[Path] = set()
    for root in dirs:
        try:
            with os.scandir(root) as found:
                entries = sorted(found, key=lambda entry: (not _is_dir(entry), entry.name))
        except FileNotFoundError:
            continue  # no directory, no agents
        except OSError as exc:
            unreadable.add(root)
            notes.append(f"the agents directory {root} cannot be listed: {exc.strerror}")
            continue
        for files in _agents_in(root, entries):
            first = agents.setdefault(files.name, files)
            if first is not files:
                notes.append(f"{files.main} is not used: {first.main} has the same name")
    return Listing(agents, tuple(notes), frozenset(unreadable))


def _agents_in(root: Path, entries: Sequence["os.DirEntry[str]"]) -> Iterator[AgentFiles]:
    """Python's own order: packages before modules."""
    for entry in entries:
        if entry.name.startswith(("_", ".")):
            continue
        path = root / entry.name
        if entry.name.endswith(".py"):
            yield _agent(path.stem, root, path, [path.name])
        elif _is_dir(entry) and os.path.isfile(path / "__init__.py"):  # noqa: PTH113 (never raises)
            yield _agent(entry.name, root, path / "__init__.py", sorted(_python_files(path)))


def _is_dir(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads nowhere


def _python_files(package: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(package):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        below = Path(folder).relative_to(package)
        yield from (str(below / n) for n in names if n.endswith(".py"))


def _agent(name: str, root: Path, main: Path, names: Sequence[str]) -> AgentFiles:
    stamps: list[Stamp] = []
    problem = ""
    for file in names:
        try:
            stamp = _stamp(file, os.stat(main.parent / file))  # noqa: PTH116 (as fast as it goes)
        except OSError as exc:
            problem = f"{file} cannot be read: {exc.strerror}"
            continue
        stamps.append(stamp)
        if not stat.S_ISREG(stamp.mode):
            problem = f"{file} is not a regular file"
        elif stamp.size > MAX_BYTES:
            problem = f"{file} has {stamp.size} bytes; a module may have {MAX_BYTES}"
    return AgentFiles(name, root, main, tuple(stamps), problem)


def _stamp(name: str, found: os.stat_result) -> Stamp:
    return Stamp(
        name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_mode
    )
