"""Write history: sessions share what they read exactly while their worlds are surely equal."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.cache.keys import digest
from paceline.cache.write_history import Seal, WriteHistory, write_entry
from paceline.call import Call, Caller, Effect, Kind, Plan, Scope

Operation = tuple[int, tuple[Any, ...]]
"""The number of a session, and what it does."""

_ENTRY = digest("w1")


def _random() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def _history(max_sessions: int = 100) -> WriteHistory:
    return WriteHistory(max_sessions=max_sessions, random_bytes=_random())


def _stamp(history: WriteHistory, session: str, *tags: str, world: str = "w") -> bytes | None:
    seal = history.seal(world, session, tags)
    return seal.stamp if seal is not None else None


def _write(history: WriteHistory, session: str, entry: bytes | None, *tags: str) -> None:
    history.finish(history.start("w", session, tags), entry)


# --- what the world is, in a model that knows it ------------------------------------------------


@final
class World:
    """A store of values that only depend on what was written: the truth that keys must follow.

    A write to one tag takes in the value of another one, as copying a file does.
    """

    def __init__(self) -> None:
        self.values: dict[str, object] = dict.fromkeys("abc", 0)
        self.noise = 0

    def write(self, number: int, tags: Iterable[str], source: str) -> object:
        taken = self.values[source]
        for tag in tags or "abc":
            self.values[tag] = (number, taken)
        return number % 2

    def break_off(self, tags: Iterable[str], noise: int) -> None:
        """A write that failed somewhere on its way."""
        for tag in tags or "abc":
            self.values[tag] = ("noise", noise)

    def read(self, tags: Iterable[str]) -> object:
        return tuple((tag, self.values[tag]) for tag in tags or "abc")


_TAGS = st.lists(st.sampled_from("abc"), unique=True, max_size=2).map(tuple)
_OP = st.one_of(
    st.tuples(st.just("read"), _TAGS),
    st.tuples(st.just("write"), _TAGS, st.integers(0, 2), st.sampled_from("abc")),
    st.tuples(st.just("fail"), _TAGS),
    st.tuples(st.just("overlap"), _TAGS, _TAGS, st.booleans()),
    st.tuples(st.just("reset")),
)
_RUNS = st.lists(st.tuples(st.integers(0, 2), _OP), max_size=40)


def wrong_hits(history: WriteHistory, operations: list[Operation]) -> int:
    """Hits whose value is not what the world of the session that asked holds."""
    worlds = [World() for _ in range(3)]
    kept: dict[object, object] = {}
    noise = itertools.count()
    wrong = 0
    for number in range(3):
        history.begin("w", str(number))
    for number, (kind, *arguments) in operations:
        session, world = str(number), worlds[number]
        if kind == "read":
            (tags,) = arguments
            seal = history.seal("w", session, tags)
            assert seal is not None  # nothing is running
            truth = world.read(tags)
            found = kept.setdefault((tags, seal.stamp), truth)
            wrong += found != truth
        elif kind == "write":
            tags, value, source = arguments
            running = history.start("w", session, tags)
            result = world.write(value, tags, source)
            history.finish(running, digest((value, source, tags, result)))
        elif kind == "fail":
            (tags,) = arguments
            running = history.start("w", session, tags)
            world.break_off(tags, next(noise))
            history.finish(running, None)
        elif kind == "overlap":
            first, second, swapped = arguments
            begun = [(history.start("w", session, t), t, i) for i, t in enumerate((first, second))]
            for _, tags, value in reversed(begun) if swapped else begun:
                world.write(value, tags, "a")
            for running, tags, value in begun:
                history.finish(running, digest((value, tags)))
        else:
            worlds[number] = World()
            history.begin("w", session)
    return wrong


@given(_RUNS)
def test_a_hit_is_what_the_session_would_have_read(
    operations: list[Operation],
) -> None:
    """Whatever sessions read, write, fail at and set back, a result that one of them finds is
    what running it again would give. (S0-78, S1-53)"""
    assert wrong_hits(_history(), operations) == 0


class ForgetsFailures(WriteHistory):  # type: ignore[misc]
    """Seeded bug: a write that failed counts for nothing."""

    def finish(self, write, entry):
        if entry is None:
            write.home.running.remove(write)
            return
        super().finish(write, entry)


class TagsAlone(WriteHistory):  # type: ignore[misc]
    """Seeded bug: a tag's stamp knows the writes to that tag and not the state they were made in."""

    def finish(self, write, entry):
        before = {tag: write.home.marks.get(tag, write.home.floor) for tag in write.tags}
        super().finish(write, entry)
        for tag, mark in before.items():
            write.home.marks[tag] = digest((mark, entry))


class OrderOfEnds(WriteHistory):  # type: ignore[misc]
    """Seeded bug: writes that overlap count in the order in which they ended."""

    def start(self, world, session, tags=()):
        write = super().start(world, session, tags)
        for running in write.home.running:
            running.alone = True
        return write


_A, _ALL = ("a",), ()
_SEEDED: list[tuple[type[WriteHistory], list[Operation]]] = [
    (ForgetsFailures, [(0, ("read", _A)), (1, ("fail", _A)), (1, ("read", _A))]),
    (
        TagsAlone,
        [
            (0, ("write", ("b",), 1, "a")),
            (0, ("read", ("b",))),
            (1, ("write", _A, 2, "a")),
            (1, ("write", ("b",), 1, "a")),
            (1, ("read", ("b",))),
        ],
    ),
    (
        OrderOfEnds,
        [
            (0, ("overlap", _A, _A, False)),
            (0, ("read", _A)),
            (1, ("overlap", _A, _A, True)),
            (1, ("read", _A)),
        ],
    ),
]


@pytest.mark.parametrize(("broken", "operations"), _SEEDED)
def test_the_model_finds_seeded_bugs(
    broken: type[WriteHistory], operations: list[Operation]
) -> None:
    """The check above fails for histories that forget, cut short or order what they cannot."""
    assert wrong_hits(WriteHistory(), operations) == 0
    assert wrong_hits(broken(), operations) > 0


# --- single promises ---------------------------------------------------------------------------


def test_equal_histories_share() -> None:
    """Sessions with one world and the same writes have the same stamps; replays hit. (S0-78)"""
    history = _history()
    for session in "ab":
        history.begin("w", session)
        _write(history, session, _ENTRY, "t")
        _write(history, session, digest("w2"))
    assert _stamp(history, "a") == _stamp(history, "b") is not None
    assert _stamp(history, "a", "t") == _stamp(history, "b", "t")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=2), st.lists(st.binary(max_size=3), max_size=3))))
def test_different_histories_do_not(pasts: list[tuple[str, list[bytes]]]) -> None:
    """Stamps are equal only for the same world and the same writes in the same order."""
    history, seen = WriteHistory(), dict[bytes | None, object]()
    for number, (world, writes) in enumerate(pasts):
        session = str(number)
        history.begin(world, session)
        for entry in writes:
            history.finish(history.start(world, session), entry)
        stamp = _stamp(history, session, world=world)
        assert seen.setdefault(stamp, (world, writes)) == (world, writes)


def test_a_write_leaves_other_tags_alone() -> None:
    """A write to one resource does not put results of others out of reach; one that does not say
    what it writes does. (S1-53)"""
    history = _history()
    history.begin("w", "s")
    before = _stamp(history, "s", "other")
    _write(history, "s", _ENTRY, "t")
    assert _stamp(history, "s", "other") == before
    assert _stamp(history, "s") != _stamp(history, "s", "t", "other")
    _write(history, "s", _ENTRY)
    assert _stamp(history, "s", "other") != before


def test_who_was_not_begun_shares_nothing() -> None:
    """A session that nobody said the start of is consistent with itself and equal to none."""
    history = _history()
    history.begin("w", "begun")
    assert _stamp(history, "x") == _stamp(history, "x")
    assert len({_stamp(history, "x"), _stamp(history, "y"), _stamp(history, "begun")}) == 3


def test_what_is_forgotten_never_shares_again() -> None:
    """There are never more sessions than the limit, and one that fell out has a new history."""
    history = _history(max_sessions=2)
    history.begin("w", "a")
    _write(history, "a", _ENTRY)
    seal = history.seal("w", "a")
    assert seal is not None
    for session in "bc":
        history.begin("w", session)
    assert not history.unbroken(seal)
    history.begin("w", "d")
    assert _stamp(history, "a") not in (seal.stamp, _stamp(history, "d"), None)
    assert len(history._sessions) == 2


def test_many_tags_are_bounded() -> None:
    """A session that writes ever new tags is remembered in bounded room, and none of its results
    of before is found under a tag that it wrote."""
    history = _history()
    history.begin("w", "s")
    for number in range(2_000):
        before = _stamp(history, "s", f"t{number}")
        _write(history, "s", _ENTRY, f"t{number}")
        assert _stamp(history, "s", f"t{number}") != before
    assert len(history._sessions["w", "s"].marks) <= 256


def _seal(history: WriteHistory, *tags: str) -> Seal:
    seal = history.seal("w", "s", tags)
    assert seal is not None
    return seal


def test_nothing_is_read_from_the_cache_during_a_write() -> None:
    """While a write runs, reads of what it may change have no key; others have."""
    history = _history()
    history.begin("w", "s")
    write = history.start("w", "s", ("t",))
    assert history.seal("w", "s", ("t", "u")) is None
    assert history.seal("w", "s") is None
    assert history.seal("w", "s", ("u",)) is not None
    history.finish(write, _ENTRY)
    assert history.seal("w", "s", ("t",)) is not None


def test_a_result_computed_across_a_write_is_not_kept() -> None:
    """A seal breaks when a write to its tags begins and stays broken after it ended, whichever
    way. (S0-78)"""
    history = _history()
    history.begin("w", "s")
    for entry in (_ENTRY, None):
        mine, anything, other = _seal(history, "t"), _seal(history), _seal(history, "u")
        write = history.start("w", "s", ("t",))
        assert not history.unbroken(mine)
        assert not history.unbroken(anything)
        history.finish(write, entry)
        assert not history.unbroken(mine)
        assert not history.unbroken(anything)
        assert history.unbroken(other)


def test_setting_back_breaks_seals() -> None:
    """A result that was begun before the world was set back is not kept, though the stamps are
    those of then."""
    history = _history()
    history.begin("w", "s")
    seal = _seal(history)
    _write(history, "s", _ENTRY)
    history.begin("w", "s")
    assert _seal(history).stamp == seal.stamp
    assert not history.unbroken(seal)


def test_a_write_that_outlives_its_world_spoils_the_next() -> None:
    """A session set back while one of its writes runs shares nothing, during it and after."""
    history = _history()
    for session in ("s", "other"):
        history.begin("w", session)
    write = history.start("w", "s")
    history.begin("w", "s")
    during = _seal(history)
    assert during.stamp != _stamp(history, "other")
    history.finish(write, _ENTRY)
    assert not history.unbroken(during)


def test_a_write_of_the_forgotten_breaks_what_came_after() -> None:
    """A write that ends after its session was forgotten still breaks the seals made meanwhile."""
    history = _history(max_sessions=1)
    write = history.start("w", "s")
    history.begin("w", "other")
    seal = _seal(history)
    history.finish(write, _ENTRY)
    assert not history.unbroken(seal)


# --- entries -----------------------------------------------------------------------------------


def _call(**changes: object) -> Call:
    plain = Call("1", Kind.TOOL, "book", {"seat": 1}, Caller("ada", "s1"), Scope.of(Caller(), None),
                 Plan(Effect.write()))  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def test_an_entry_is_what_was_done_and_what_came_of_it() -> None:
    """Two writes are one only if code, arguments, user and result are; the session is not in it."""
    same = write_entry(_call(caller=Caller("ada", "s2"), id="2"), "1", {"ok": True})
    assert write_entry(_call(), "1", {"ok": True}) == same is not None
    others = [
        write_entry(_call(), "1", {"ok": False}),
        write_entry(_call(), "2", {"ok": True}),
        write_entry(_call(name="cancel"), "1", {"ok": True}),
        write_entry(_call(arguments={"seat": 2}), "1", {"ok": True}),
        write_entry(_call(caller=Caller("eve", "s1")), "1", {"ok": True}),
        write_entry(_call(caller=Caller("ada", "s1", "acme")), "1", {"ok": True}),
    ]
    assert len({same, *others}) == 7


def test_an_entry_that_cannot_be_made_is_none() -> None:
    """A write with a result that has no canonical form counts as one nothing is known of."""
    assert write_entry(_call(), "1", object()) is None
