"""What was learnt, in its file."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import EffectKind
from paceline.errors import Category, CodecError, CorruptStoreError, StorageError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.events import Proposal
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.kept import KeptPredictions, Learnt, peek
from paceline.testing.virtual_time import VirtualClock
from tests.unit.predict.sessions import orders, predictor

DATA = {"scopes": {"a": [1, 2.5, None, True, "x"]}}


class Stage:
    """A file, a clock, and what was told."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state" / "predictions"
        self.clock = VirtualClock()
        self.told: list[StorageError] = []

    def kept(self, **options: int) -> KeptPredictions:
        return KeptPredictions(self.path, self.clock, on_trouble=self.told.append, **options)

    def files(self) -> list[str]:
        return sorted(each.name for each in self.path.parent.iterdir())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def read(kept: KeptPredictions) -> Learnt:
    learnt = kept.load()
    assert learnt is not None
    return learnt


def test_what_was_learnt_comes_back(stage: Stage) -> None:
    """What is saved is there at the next start, with its effects, its time and its size. (S2-49,
    S2-51)"""
    assert stage.kept().load() is None
    assert stage.kept().save(DATA, {"worth": 1}, {"get": EffectKind.READ})
    learnt = read(stage.kept())
    assert (learnt.predictor, learnt.ledger) == (DATA, {"worth": 1})
    assert learnt.effects == {"get": EffectKind.READ}
    assert learnt.at_ns == stage.clock.wall_ns()
    assert learnt.size == stage.path.stat().st_size
    assert stage.told == []


def test_a_predictor_proposes_the_same_after_a_restart(stage: Stage) -> None:
    """A predictor that is loaded from the file proposes what the one that was saved does. (S2-49,
    S2-51)"""

    def next_calls(model: PerformancePredictor) -> list[Proposal]:
        session = model.session()
        for event in orders(1, seed=7)[0].events[:2]:
            session.hear(event)
        return model.propose(session)

    before, after = predictor(arguments=ArgumentModel), predictor(arguments=ArgumentModel)
    for trajectory in orders(30):
        before.learn(trajectory)
    stage.kept().save(before.save())
    after.load(read(stage.kept()).predictor)
    assert next_calls(after) == next_calls(before) != []


def test_it_is_private(stage: Stage) -> None:
    """The file, and a directory that is made for it, can be read by their owner alone, whatever the
    umask; nothing else is left behind. (S2-51)"""
    before = os.umask(0)
    try:
        stage.kept().save(DATA)
        stage.kept().save(DATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE(stage.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(stage.path.parent.stat().st_mode) == 0o700
    assert stage.files() == ["predictions"]


def test_the_last_writer_is_remembered(stage: Stage) -> None:
    """Of two processes that save, the one that did so last is remembered, whole. (S2-51)"""
    one, other = stage.kept(), stage.kept()
    assert one.save({"of": "one"})
    assert other.save({"of": "other"})
    assert read(stage.kept()).predictor == {"of": "other"}
    assert one.save({"of": "one"})
    assert read(stage.kept()).predictor == {"of": "one"}


def test_what_was_forgotten_stays_forgotten(stage: Stage) -> None:
    """A process that learnt before something was forgotten may not write it back; once it has read
    again it may write. (S2-51)"""
    running = stage.kept()
    running.save(DATA)
    stage.clock.advance(1)
    stage.kept().forget()
    assert not running.save(DATA)
    assert peek(stage.path) is None
    stage.clock.advance(1)
    assert running.load() is None
    assert running.save({"new": 1})
    assert read(stage.kept()).predictor == {"new": 1}


def test_a_part_may_be_forgotten(stage: Stage) -> None:
    """What is left when a part was forgotten is there, and who knew that part may not write. (S2-51)"""
    running = stage.kept()
    running.save(DATA, 1, {"get": EffectKind.READ})
    stage.clock.advance(1)
    tool = stage.kept()
    learnt = read(tool)
    tool.forget(Learnt({"scopes": {}}, learnt.ledger, learnt.effects, 0, 0))
    assert not running.save(DATA)
    left = read(running)
    assert (left.predictor, left.ledger) == ({"scopes": {}}, 1)
    assert left.effects == {"get": EffectKind.READ}


def test_forgetting_outlives_what_others_write(stage: Stage) -> None:
    """What was forgotten stays so when another process, that has learnt since, has written. (S2-51)"""
    running = stage.kept()
    running.save(DATA)
    stage.clock.advance(1)
    stage.kept().forget()
    assert stage.kept().save({"new": 1})
    assert not running.save(DATA)


def test_forgetting_holds_when_the_clock_stands_still(stage: Stage) -> None:
    """What is forgotten twice in one moment is forgotten twice. (S2-51)"""
    stage.kept().forget()
    running = stage.kept()
    stage.kept().forget()
    assert not running.save(DATA)


def spoiled(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "spoil",
    [
        spoiled(lambda _: b""),
        spoiled(lambda data: data[:-1]),
        spoiled(lambda data: data + b"x"),
        spoiled(lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]),
        spoiled(lambda data: b"PLP9" + data[4:]),
        spoiled(lambda _: b"SQLite format 3\0" + b"x" * 99),
    ],
)
def test_a_file_that_cannot_be_used_is_moved_aside(
    stage: Stage, spoil: Callable[[Path], object]
) -> None:
    """A damaged or foreign file is told of, moved aside and kept; learning begins anew. (S2-51)"""
    stage.kept().save(DATA)
    spoil(stage.path)
    kept = stage.kept()
    assert kept.load() is None
    assert stage.files() == ["predictions.damaged"]
    (told,) = stage.told
    assert isinstance(told, CorruptStoreError)
    assert "moved aside" in told.message
    assert kept.save(DATA)
    assert read(kept).predictor == DATA


def test_what_was_moved_aside_is_forgotten_too(stage: Stage) -> None:
    """Forgetting all removes what was moved aside, which may hold the same. (S2-51)"""
    stage.kept().save(DATA)
    spoiled(lambda data: data[:-1])(stage.path)
    stage.kept().load()
    stage.kept().forget()
    assert stage.files() == ["predictions"]
    assert b"scopes" not in stage.path.read_bytes()


def test_looking_changes_nothing(stage: Stage) -> None:
    """`peek` makes no file and moves none: a damaged one raises, as often as it is looked at. (S2-51)"""
    assert peek(stage.path) is None
    assert not stage.path.parent.exists()
    stage.kept().save(DATA)
    spoiled(lambda data: data[:-1])(stage.path)
    for _ in range(2):
        with pytest.raises(CorruptStoreError):
            peek(stage.path)


def test_too_much_is_refused(stage: Stage) -> None:
    """More than may be kept is refused with a reason, and what was kept before stays. (S2-51)"""
    kept = stage.kept(most_bytes=200)
    kept.save(DATA)
    with pytest.raises(StorageError, match="200 are kept at most") as caught:
        kept.save({"long": "x" * 200})
    assert caught.value.category is Category.EXHAUSTED
    assert read(kept).predictor == DATA
    stage.kept().save({"long": "x" * 200})
    assert kept.load() is None
    assert "larger" in stage.told[0].message


def test_a_full_disk_is_an_error_at_the_boundary(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk saving raises StorageError, leaves no draft, and what was kept stays. (S2-51)"""
    stage.kept().save(DATA)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left") as caught:
            stage.kept().save({"new": 1})
    assert caught.value.category is Category.EXHAUSTED
    assert stage.files() == ["predictions"]
    assert read(stage.kept()).predictor == DATA


def test_forgetting_makes_the_space_it_needs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is full of what was learnt all is forgotten by deleting it first, and running
    processes drop what they know. (S2-51)"""
    running = stage.kept()
    running.save(DATA)
    stage.path.with_name("predictions.damaged").write_bytes(b"old")
    stage.clock.advance(1)
    synced = os.fsync

    def full(file: int) -> None:
        if stage.path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert stage.kept().forget()
    assert stage.files() == ["predictions"]
    assert peek(stage.path) is None
    assert not running.save(DATA)


def test_what_fails_otherwise_deletes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting that fails for another reason than a full disk is an error, and all stays. (S2-51)"""
    stage.kept().save(DATA)
    learnt = read(stage.kept())

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    for left in (None, learnt):
        with pytest.raises(StorageError, match="Input/output error"):
            stage.kept().forget(left)
    assert read(stage.kept()).predictor == DATA


def test_a_draft_that_was_left_behind_goes(stage: Stage) -> None:
    """What a process that was killed while it wrote has left is removed by the next that writes.
    (S2-51)"""
    stage.kept().save(DATA)
    (stage.path.parent / ".predictions.dead").write_bytes(b"x")
    stage.kept().save(DATA)
    assert stage.files() == ["predictions"]


def test_what_is_no_file_is_told_of(stage: Stage) -> None:
    """A directory in its place is told of, and left as it is. (S2-51)"""
    stage.path.mkdir(parents=True)
    assert stage.kept().load() is None
    assert len(stage.told) == 1
    with pytest.raises(StorageError):
        stage.kept().save(DATA)
    assert stage.files() == ["predictions"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**70, str(2**70)),
        ("a\ud800", "a\\ud800"),
        ({"\ud800": [-(2**64)]}, {"\\ud800": [str(-(2**64))]}),
        ((("a\ud800",), 2**70), [["a\\ud800"], str(2**70)]),
    ],
)
def test_one_strange_value_does_not_cost_all(stage: Stage, value: object, kept: object) -> None:
    """A number or a text that has no form in the file is kept as text, and all else as it is. (S2-51)"""
    stage.kept().save({**DATA, "value": value})
    assert read(stage.kept()).predictor == {**DATA, "value": kept}


@pytest.mark.parametrize("value", [object(), {"x": iter([1])}])
def test_what_is_no_plain_data_is_refused(stage: Stage, value: object) -> None:
    """What has no form in the file raises CodecError, and what was kept stays. (S2-51)"""
    stage.kept().save(DATA)
    with pytest.raises(CodecError):
        stage.kept().save({"value": value})
    assert read(stage.kept()).predictor == DATA


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_content_breaks_a_start(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever stands in the file, loading returns, and saving works afterwards. (S2-51)"""
    stage = Stage(tmp_path_factory.mktemp("kept"))
    stage.path.parent.mkdir()
    stage.path.write_bytes(data)
    kept = stage.kept()
    assert kept.load() is None
    assert kept.save(DATA)
    assert read(kept).predictor == DATA
