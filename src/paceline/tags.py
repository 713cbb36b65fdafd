"""Tags of files: which results a change to a path invalidates.

A result read from a path depends on that node and on every subtree it lies in. A write to a
path changes the node, and every directory above it as something that contains it; it also
replaces whatever lay below. So::

    read  /w/a/b  ->  node:/w/a/b   tree:/  tree:/w  tree:/w/a  tree:/w/a/b
    write /w/a/b  ->  node:/  node:/w  node:/w/a  node:/w/a/b   tree:/w/a/b

and a read is stale exactly if it shares a tag with a later write: the paths are equal, or one
contains the other. Siblings such as `/w/a` and `/w/ab` share none. Both lists are as long as
the path is deep.
"""

from collections.abc import Iterator
from pathlib import PurePath, PurePosixPath

__all__ = ["file_reads", "file_writes"]


def file_reads(*paths: PurePath | str) -> tuple[str, ...]:
    """Tags to read under for results that depend on these absolute paths or what is below."""
    return tuple(dict.fromkeys(tag for path in paths for tag in _tags(path, "node", "tree")))


def file_writes(*paths: PurePath | str) -> tuple[str, ...]:
    """Tags to write for calls that change these absolute paths or what is below."""
    return tuple(dict.fromkeys(tag for path in paths for tag in _tags(path, "tree", "node")))


def _tags(path: PurePath | str, alone: str, lineage: str) -> Iterator[str]:
    path = PurePosixPath(path)
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"not an absolute, normal path: {path}")
    yield f"{alone}:{path}"
    yield f"{lineage}:{path}"
    for parent in path.parents:
        yield f"{lineage}:{parent}"
