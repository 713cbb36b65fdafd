"""Tags of files: a read shares one with a write exactly if one path contains the other."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.tags import file_reads, file_writes

PATHS = st.lists(st.sampled_from(["a", "b", "ab", "a b", "é"]), max_size=4).map(
    lambda names: PurePosixPath("/", *names)
)


def related(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one == other or one in other.parents or other in one.parents


@given(PATHS, PATHS)
def test_a_write_makes_stale_what_it_touches(read: PurePosixPath, written: PurePosixPath) -> None:
    """A read is stale after a write exactly if the paths are equal or one contains the other."""
    shared = set(file_reads(read)) & set(file_writes(written))
    assert bool(shared) is related(read, written)


@given(st.lists(PATHS, min_size=1, max_size=3), st.lists(PATHS, min_size=1, max_size=3))
def test_several_paths_are_each_their_own(
    read: list[PurePosixPath], written: list[PurePosixPath]
) -> None:
    """Several paths at once are related exactly if any two of them are, and no tag comes twice."""
    reads, writes = file_reads(*read), file_writes(*written)
    assert bool(set(reads) & set(writes)) is any(related(r, w) for r in read for w in written)
    assert len(set(reads)) == len(reads)
    assert len(set(writes)) == len(writes)


@given(PATHS)
def test_tags_are_as_many_as_the_path_is_deep(path: PurePosixPath) -> None:
    """The number of tags grows with the depth of the path only."""
    depth = len(path.parts)
    assert len(file_reads(path)) == len(file_writes(path)) == depth + 1


@pytest.mark.parametrize("path", ["a", "", ".", "../a", "/a/../b"])
def test_only_absolute_normal_paths_have_tags(path: str) -> None:
    """A path that could mean another one is refused."""
    for tags in (file_reads, file_writes):
        with pytest.raises(ValueError, match="not an absolute, normal path"):
            tags(path)


def test_text_and_paths_are_the_same() -> None:
    """A path may be given as text."""
    assert file_reads("/a/b/") == file_reads(PurePosixPath("/a/b"))
    assert file_writes() == ()


def test_the_law_finds_tags_by_prefix() -> None:
    """Tags compared as text would take `/a` for a parent of `/ab`."""
    read, written = PurePosixPath("/ab"), PurePosixPath("/a")
    assert str(read).startswith(str(written))
    assert not set(file_reads(read)) & set(file_writes(written))
