"""Which tool uses of one answer may run together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Effect, EffectKind
from paceline.engine.schedule import Schedule
from paceline.tags import file_reads, file_writes

PATHS = ("/", "/w", "/w/a", "/w/a/b", "/w/ab", "/x")
TAGS = st.lists(st.sampled_from(("orders", "users", "stock")), max_size=2).map(tuple)
EFFECTS = st.one_of(
    st.builds(Effect, st.sampled_from(EffectKind), TAGS),
    st.sampled_from(PATHS).map(lambda path: Effect.read(*file_reads(path))),
    st.sampled_from(PATHS).map(lambda path: Effect.write(*file_writes(path))),
)


def paths(effect: Effect) -> set[str]:
    """What of the world it touches: words, and paths."""
    own = "node:" if effect.kind is EffectKind.READ else "tree:"
    files = [tag for tag in effect.tags if tag.startswith(("node:", "tree:"))]
    return {tag.removeprefix(own) for tag in files if tag.startswith(own)} or set(effect.tags)


def meet(one: str, other: str) -> bool:
    """Whether they are the same, or one a path that contains the other."""
    if not (one.startswith("/") and other.startswith("/")):
        return one == other
    shorter, longer = sorted((one.rstrip("/") + "/", other.rstrip("/") + "/"), key=len)
    return longer.startswith(shorter)


def conflict(one: Effect, other: Effect) -> bool:
    """Whether their order matters, as the words of the declaration have it."""
    kinds = {one.kind, other.kind}
    if EffectKind.UNKNOWN in kinds:
        return True
    if EffectKind.PURE in kinds or EffectKind.WRITE not in kinds:
        return False
    if not one.tags or not other.tags:
        return True
    return any(meet(a, b) for a in paths(one) for b in paths(other))


@given(st.lists(EFFECTS, max_size=12), st.data())
def test_no_two_that_conflict_run_together_and_all_others_may(
    effects: list[Effect], data: st.DataObject
) -> None:
    """In every order of starting and ending, a use is ready exactly if no earlier one that is not
    over conflicts with it, and all get their turn (S2-29, V-34)."""
    schedule = Schedule()
    left = [schedule.add(effect) for effect in effects]
    assert left == list(range(len(effects)))
    started: set[int] = set()
    while left:
        ready = schedule.ready()
        assert ready == [
            index
            for index in left
            if index not in started
            and not any(conflict(effects[one], effects[index]) for one in left if one < index)
        ]
        assert ready or started
        index = data.draw(st.sampled_from([*ready, *sorted(started)]))
        if index in started:
            schedule.done(index)
            started.remove(index)
            left.remove(index)
        else:
            schedule.start(index)
            started.add(index)
    assert schedule.ready() == []


@given(st.lists(EFFECTS, max_size=6), EFFECTS)
def test_free_is_what_would_be_ready(effects: list[Effect], effect: Effect) -> None:
    """An effect is free exactly if a use with it would be ready once added (S2-29)."""
    schedule = Schedule()
    for one in effects:
        schedule.add(one)
    free = schedule.free(effect)
    index = schedule.add(effect)
    assert free is (index in schedule.ready())


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (Effect.read("a"), Effect.read("a"), True),
        (Effect.pure(), Effect.write(), True),
        (Effect.read(), Effect.write("a"), False),
        (Effect.read("a"), Effect.write(), False),
        (Effect.write("a"), Effect.write("b"), True),
        (Effect.write("a"), Effect.write("a"), False),
        (Effect.unknown(), Effect.pure(), False),
        (Effect.pure(), Effect.unknown(), False),
        (Effect.write(*file_writes("/w/a")), Effect.write(*file_writes("/w/b")), True),
        (Effect.write(*file_writes("/w/a")), Effect.write(*file_writes("/w/ab")), True),
        (Effect.write(*file_writes("/w/a")), Effect.write(*file_writes("/w/a/c")), False),
        (Effect.write(*file_writes("/w/a/c")), Effect.write(*file_writes("/w/a")), False),
        (Effect.read(*file_reads("/w")), Effect.write(*file_writes("/w/a")), False),
        (Effect.read(*file_reads("/w/a")), Effect.write(*file_writes("/w")), False),
        (Effect.read(*file_reads("/w/b")), Effect.write(*file_writes("/w/a")), True),
    ],
)
def test_tags_decide_what_runs_together(one: Effect, other: Effect, together: bool) -> None:
    """Reads run together, a write waits for what touches its tags, files meet if one contains the
    other, and what is unknown runs alone (S2-29, V-34)."""
    schedule = Schedule()
    schedule.add(one)
    schedule.add(other)
    assert schedule.ready() == ([0, 1] if together else [0])


def test_of_many_only_the_first_are_looked_at() -> None:
    """Of 792 uses that do not conflict 64 are ready at a time, and each that is over lets the next
    come forward (S2-29)."""
    schedule = Schedule()
    for number in range(792):
        schedule.add(Effect.write(str(number)))
    assert schedule.ready() == list(range(64))
    schedule.start(0)
    assert schedule.ready() == list(range(1, 64))
    schedule.done(0)
    assert schedule.ready() == list(range(1, 65))


def test_one_that_has_not_begun_is_ready_again() -> None:
    """A use that was started and waits again is ready as before, and holds up the others still
    (S2-29)."""
    schedule = Schedule()
    first, second = schedule.add(Effect.unknown()), schedule.add(Effect.pure())
    schedule.start(first)
    assert schedule.ready() == []
    schedule.wait(first)
    assert schedule.ready() == [first]
    schedule.done(first)
    assert schedule.ready() == [second]
