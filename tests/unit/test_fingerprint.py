"""Fingerprints of files: whatever is done to a file, what was read from it is not found again."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from paceline.cache.fingerprint import Fingerprints

_TICK_NS = 1_000_000_000
_START_NS = 1_800_000_000 * 10**9


class SlowClock:
    """A clock moved by hand, and a file system whose times are of that clock, in whole ticks."""

    def __init__(self) -> None:
        self.now_ns = _START_NS
        self._times: dict[int, int] = {}

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def touched(self, *paths: Path) -> None:
        """Something was just done to these."""
        for path in paths:
            if path.exists():
                self._times[path.stat().st_ino] = self.now_ns // _TICK_NS * _TICK_NS

    def stat(self, path: str) -> os.stat_result:
        """As os.stat, but for the time of change; that of modification stays what it was set to."""
        found = Path(path).stat()
        changed_ns = self._times.get(found.st_ino, _START_NS - 10**12)
        modified_ns = found.st_mtime_ns if found.st_mtime_ns < 10**18 else changed_ns
        times = {"st_mtime_ns": modified_ns, "st_ctime_ns": changed_ns}
        return os.stat_result(tuple(found)[:10], times)


Fingerprint = Callable[[list[str]], object]
Make = Callable[[SlowClock], Fingerprint]


def ours(clock: SlowClock) -> Fingerprint:
    """The real one, on a file system with a coarse clock."""
    return Fingerprints(clock=clock, stat=clock.stat).of


# --- seeded bugs -------------------------------------------------------------------------------


def _by(*fields: str) -> Make:
    def make(clock: SlowClock) -> Fingerprint:
        def told(path: str) -> object:
            try:
                found = clock.stat(path)
            except FileNotFoundError:
                return None
            return tuple(getattr(found, field) for field in fields)

        return lambda paths: tuple(map(told, paths))

    return make


def without_content(clock: SlowClock) -> Fingerprint:
    """Takes every file for settled."""
    return Fingerprints(clock=clock, stat=clock.stat, settle_ns=-(10**18)).of


def settled_too_soon(clock: SlowClock) -> Fingerprint:
    """Takes a file for settled within the tick of its change."""
    return Fingerprints(clock=clock, stat=clock.stat, settle_ns=_TICK_NS // 10).of


SEEDED: dict[str, Make] = {
    "modification time only": _by("st_mtime_ns"),
    "size only": _by("st_size"),
    "size and modification time": _by("st_size", "st_mtime_ns"),
    "node only": _by("st_dev", "st_ino"),
    "no content": without_content,
    "settled too soon": settled_too_soon,
}


# --- any course of events ----------------------------------------------------------------------

_NAMES = ("a", "b", "d/x", "link")
_OLD_NS = 10**17


class Files(RuleBasedStateMachine):
    """Does everything to files and looks, after each step, for results that are not true."""

    make: Make = staticmethod(ours)

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="fingerprint"))
        self.clock = SlowClock()
        self.fingerprint = type(self).make(self.clock)
        (self.root / "d").mkdir()
        self.kept: dict[object, object] = {}
        self.look()

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def look(self) -> None:
        """What is kept under the fingerprint of now is what reading gives now."""
        for paths in (["a"], ["b"], ["link"], ["d"], ["d/x", "a"]):
            absolute = [str(self.root / path) for path in paths]
            told = self.fingerprint(absolute)
            assert told is not None
            truth = [self._read(path) for path in absolute]
            assert self.kept.setdefault((tuple(paths), told), truth) == truth

    @staticmethod
    def _read(path: str) -> object:
        there = Path(path)
        if there.is_dir():
            return [(entry.name, entry.read_bytes()) for entry in sorted(there.iterdir())]
        try:
            return there.read_bytes()
        except FileNotFoundError:
            return None

    @rule(name=st.sampled_from(_NAMES), content=st.sampled_from([b"", b"1", b"2", b"22"]))
    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        if not path.is_symlink():
            path.write_bytes(content)
            self.clock.touched(path, path.parent)
        self.look()

    @rule(name=st.sampled_from(_NAMES))
    def set_back(self, name: str) -> None:
        path = self.root / name
        if path.exists():
            os.utime(path, ns=(_OLD_NS, _OLD_NS))
            self.clock.touched(path)
        self.look()

    @rule(name=st.sampled_from(_NAMES))
    def delete(self, name: str) -> None:
        path = self.root / name
        path.unlink(missing_ok=True)
        self.clock.touched(path.parent)
        self.look()

    @rule(old=st.sampled_from(_NAMES[:3]), new=st.sampled_from(_NAMES[:3]))
    def rename(self, old: str, new: str) -> None:
        if (self.root / old).exists():
            (self.root / old).replace(self.root / new)
            self.clock.touched(self.root / new, self.root, self.root / "d")
        self.look()

    @rule(to=st.sampled_from(_NAMES[:3]))
    def point(self, to: str) -> None:
        draft = self.root / "draft"
        draft.symlink_to(to)
        draft.replace(self.root / "link")
        self.clock.touched(self.root)
        self.look()

    @rule(ticks=st.sampled_from([0.3, 1, 2, 5]))
    def wait(self, ticks: float) -> None:
        self.clock.now_ns += int(ticks * _TICK_NS)
        self.look()


_MANY = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_no_course_of_events_serves_what_is_not_true() -> None:
    """Whatever is written, renamed, linked, deleted, made anew and set back in time, in whichever
    tick of a coarse clock, a result is only found while reading would give the same. (S0-78, T24)
    """
    run_state_machine_as_test(Files, settings=_MANY)


def _events(files: Files) -> Iterator[None]:
    """A course of events in which each seeded bug shows."""
    files.write("a", b"1")
    files.write("b", b"2")
    yield files.wait(5)
    yield files.write("a", b"2")  # of the same size, in a later tick
    yield files.set_back("a")
    files.wait(5)
    files.write("a", b"1")
    yield files.set_back("a")  # of the same size, with the same modification time
    files.wait(5)
    files.point("a")
    files.wait(5)
    yield files.point("b")
    files.write("a", b"3")
    files.wait(0.3)
    yield files.write("a", b"4")  # of the same size, within a tick
    yield files.rename("b", "a")
    yield files.delete("a")
    yield files.write("a", b"2")


def _play(make: Make) -> None:
    class Played(Files):
        pass

    Played.make = staticmethod(make)
    files = Played()
    try:
        for _ in _events(files):
            pass
    finally:
        files.teardown()


def test_a_course_of_all_dangers_is_told() -> None:
    """Edits of one size, with one modification time, within one tick, by renaming and through a
    link are all seen. (T24)"""
    _play(ours)
    with pytest.raises(AssertionError):
        _play(_by())


@pytest.mark.parametrize("name", SEEDED)
def test_seeded_bugs_are_found(name: str) -> None:
    """Fingerprints that leave out what they need are told from ours by the same course. (T24)"""
    with pytest.raises(AssertionError):
        _play(SEEDED[name])


# --- single promises ---------------------------------------------------------------------------


@pytest.fixture
def clock() -> SlowClock:
    return SlowClock()


@pytest.fixture
def fingerprints(clock: SlowClock) -> Fingerprints:
    return Fingerprints(clock=clock, max_read_bytes=10, max_entries=3, stat=clock.stat)


def test_what_does_not_change_keeps_its_fingerprint(
    fingerprints: Fingerprints, clock: SlowClock, tmp_path: Path
) -> None:
    """A settled file has one fingerprint for as long as nobody touches it, and reading it does
    not count."""
    path = tmp_path / "a"
    path.write_bytes(b"1")
    first = fingerprints.of([path])
    clock.now_ns += 10**15
    path.read_bytes()
    assert fingerprints.of([str(path)]) == first is not None
    assert len(first) == 32


def test_paths_are_told_apart(fingerprints: Fingerprints, tmp_path: Path) -> None:
    """The same files under other names, in another order or number are another dependency."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.hardlink_to(a)
    lists = [[], [a], [b], [a, b], [b, a], [a, a], [tmp_path], [tmp_path / "a/"]]
    assert len({fingerprints.of(paths) for paths in lists}) == len(lists) - 1


def test_nothing_there_is_a_state(fingerprints: Fingerprints, tmp_path: Path) -> None:
    """A result that depends on a file's absence has a fingerprint, and appearing changes it."""
    path = tmp_path / "a"
    absent = fingerprints.of([path])
    path.write_bytes(b"")
    empty = fingerprints.of([path])
    path.unlink()
    assert fingerprints.of([path]) == absent
    assert None not in (absent, empty)
    assert absent != empty


def test_links_are_what_they_lead_to(fingerprints: Fingerprints, tmp_path: Path) -> None:
    """A link that leads nowhere or in circles is absence; one to a file changes with the file."""
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to("target")
    nowhere = fingerprints.of([link])
    target.write_bytes(b"1")
    somewhere = fingerprints.of([link])
    target.write_bytes(b"22")
    assert len({nowhere, somewhere, fingerprints.of([link])}) == 3
    link.unlink()
    link.symlink_to("link")
    assert fingerprints.of([link]) is not None


@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/uptime", "/dev/null", "/dev/urandom"])
def test_what_changes_without_a_trace_is_not_vouched_for(
    fingerprints: Fingerprints, path: str
) -> None:
    """Files that the kernel makes up as they are read, and devices, have no fingerprint."""
    assert fingerprints.of([path]) is None


def test_pipes_are_neither_read_nor_vouched_for(fingerprints: Fingerprints, tmp_path: Path) -> None:
    """A pipe has no fingerprint, and asking for one does not wait for its other end."""
    os.mkfifo(tmp_path / "pipe")
    assert fingerprints.of([tmp_path / "pipe"]) is None
    assert fingerprints.of([tmp_path]) is None


def test_limits_hold(fingerprints: Fingerprints, clock: SlowClock, tmp_path: Path) -> None:
    """A large file is not read: it has no fingerprint until it has settled; a directory with too
    much in it has none at all."""
    path = tmp_path / "a"
    path.write_bytes(b"12345678901")
    clock.touched(path)
    assert fingerprints.of([path]) is None
    clock.now_ns += 3 * _TICK_NS
    assert fingerprints.of([path]) is not None
    for name in "bcd":
        assert fingerprints.of([tmp_path]) is not None
        (tmp_path / name).write_bytes(b"1")
    assert fingerprints.of([tmp_path]) is None


def test_what_cannot_be_looked_at_is_not_vouched_for(clock: SlowClock, tmp_path: Path) -> None:
    """Where looking is not allowed there is no fingerprint: it may change unseen."""

    def refused(path: str) -> os.stat_result:
        raise PermissionError(13, "no", path)

    assert Fingerprints(clock=clock, stat=refused).of([tmp_path]) is None


def test_a_directory_is_told_one_level_deep(fingerprints: Fingerprints, tmp_path: Path) -> None:
    """A directory changes with its entries' names and files, and with what is listed in a folder
    below it when that is young."""
    inner = tmp_path / "d" / "inner"
    inner.mkdir(parents=True)
    states = [fingerprints.of([tmp_path / "d"])]
    (tmp_path / "d" / "a").write_bytes(b"1")
    states.append(fingerprints.of([tmp_path / "d"]))
    (tmp_path / "d" / "a").write_bytes(b"2 and more")
    states.append(fingerprints.of([tmp_path / "d"]))
    assert None not in states
    assert len(set(states)) == 3


@pytest.mark.parametrize("path", ["a", "", "./a", "/a\0b", "/\ud800"])
def test_what_is_no_absolute_path_is_refused(fingerprints: Fingerprints, path: str) -> None:
    """A path that depends on where the process stands, or is none, is an error of the caller."""
    with pytest.raises(ValueError, match=r"not an absolute path|null|surrogates"):
        fingerprints.of([path])
