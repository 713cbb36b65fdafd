"""A model that goes round in circles is answered, warned and refused; one that works is left alone."""

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from paceline.call import Effect
from paceline.engine.loops import LoopLimits, Loops, Screened
from paceline.engine.protocols import Preparation
from paceline.messages import ToolUse
from paceline.testing.virtual_time import VirtualClock

READ, WRITE, UNKNOWN = Effect.read("f"), Effect.write("f"), Effect.unknown()


def call(name: str = "read", effect: Effect = READ, **arguments: Any) -> Preparation:
    """A tool use with these arguments."""
    text = msgspec.json.encode(arguments, order="sorted", enc_hook=repr).decode()
    return Preparation(ToolUse("", name, text), arguments, f"{name} {text}", effect)


class Session:
    """Loops, and what comes of calls."""

    def __init__(self, **limits: Any) -> None:
        self.clock = VirtualClock()
        self.loops = Loops(clock=self.clock, limits=LoopLimits(**limits))
        self.warnings: list[str] = []

    def ask(self, preparation: Preparation, text: str = "same", *, failed: bool = False) -> str:
        """Makes a call if it may be made; how it was decided."""
        screened = self.loops.screen(preparation)
        told = text if screened.text is None else screened.text
        warning = self.loops.done(preparation, told, failed=failed)
        if warning:
            self.warnings.append(warning)
        return decision(screened)


def decision(screened: Screened) -> str:
    """In one word."""
    if screened.text is None:
        return "run"
    return "refused" if screened.refused else "reused"


def test_the_limits_are_those_of_before() -> None:
    """The window is 10 calls; 10 alike reads, 3 writes, 5 commands and 3 others are not too many;
    identical calls are at 3, reads without news at 6 and 10; results live 120 s. (V-35)"""
    assert LoopLimits() == LoopLimits(
        read=10,
        write=3,
        command=5,
        other=3,
        identical=2,
        reads_warned=6,
        reads_refused=10,
        reuse_s=120.0,
        window=10,
    )


def test_an_identical_read_is_answered_with_the_recent_result() -> None:
    """The third identical read in a row is answered with the result of the second, marked with
    reused_recent_result, loop_detected and repeat_count. (V-35, S2-58)"""
    session = Session()
    assert [session.ask(call(path="a"), "text of a") for _ in range(2)] == ["run", "run"]
    session.clock.advance(7)
    screened = session.loops.screen(call(path="a"))
    assert (screened.refused, screened.repeats) == (False, 3)
    assert screened.text == (
        "[reused_recent_result of 7 s ago; loop_detected; repeat_count=3: nothing has changed"
        " since. Go on with what you know, or do something else.]\n\ntext of a"
    )


@pytest.mark.parametrize(("age_s", "decided"), [(120.0, "reused"), (120.1, "run")])
def test_an_old_result_is_not_used_again(age_s: float, decided: str) -> None:
    """A result of up to 120 s ago is used again; after that the world may have changed, and the
    calls are counted anew. (V-35)"""
    session = Session()
    for _ in range(2):
        session.ask(call())
    session.clock.advance(age_s)
    assert session.ask(call()) == decided


@pytest.mark.parametrize("effect", [WRITE, UNKNOWN])
def test_a_read_after_a_change_is_run(effect: Effect) -> None:
    """Once something ran that may have changed what is read, or has only been let run, no result of
    before is used again, even if the change said nothing new. (V-35)"""
    session = Session()
    for number in range(5):
        change = call("write", effect, text=number % 2)
        for _ in range(2):
            assert session.ask(call()) == "run"
        assert session.ask(call()) == "reused"
        session.loops.screen(change)
        assert session.ask(call()) == "run"
        session.loops.clear()


def test_a_read_beside_a_change_is_run_again_after_it() -> None:
    """What was read while something that may change it still ran is not used again once that has
    ended, even if it said nothing new. (V-35)"""
    session = Session()
    session.ask(call("write", WRITE), "written")
    session.loops.screen(call("write", WRITE))
    assert [session.ask(call()) for _ in range(3)] == ["run", "run", "reused"]
    session.loops.done(call("write", WRITE), "written")
    assert session.ask(call()) == "run"


def test_a_failed_read_is_not_used_again() -> None:
    """What a read said when it failed is no result, so the read is run again. (V-35)"""
    session = Session()
    for _ in range(5):
        assert session.ask(call(), "no such file", failed=True) == "run"


@pytest.mark.parametrize("effect", [WRITE, UNKNOWN])
def test_an_identical_write_is_refused_the_third_time(effect: Effect) -> None:
    """What may have effects and is asked for a third time, to no new effect, is not run, and the
    model is told why. (V-35, S2-58)"""
    session = Session()
    deploy = call("deploy", effect)
    assert [session.ask(deploy) for _ in range(4)] == ["run", "run", "refused", "refused"]
    screened = session.loops.screen(deploy)
    assert screened == Screened(
        "[loop_detected; repeat_count=5: not run, as deploy was called like this before, to no new"
        " effect. Do something else, or answer.]",
        refused=True,
        repeats=5,
    )


def test_what_was_refused_may_be_done_later() -> None:
    """A write that was refused is run again when its last result is more than 120 s old. (V-35)"""
    session = Session()
    assert [session.ask(call("deploy", UNKNOWN)) for _ in range(3)][-1] == "refused"
    session.clock.advance(120.1)
    assert session.ask(call("deploy", UNKNOWN)) == "run"


def test_identical_writes_of_one_answer_are_bounded() -> None:
    """An answer that asks for the same write many times at once gets it twice. (V-35)"""
    session = Session()
    decided = [decision(session.loops.screen(call("pay", WRITE))) for _ in range(64)]
    assert decided == ["run"] * 2 + ["refused"] * 62


def test_news_is_no_loop() -> None:
    """A call that says something new each time may be made as often as one likes, whatever it
    does. (V-35)"""
    session = Session()
    for effect in (READ, WRITE, UNKNOWN):
        for number in range(100):
            assert session.ask(call("next_page", effect), f"page {number}") == "run"
    assert session.warnings == []


def test_different_calls_are_no_loop() -> None:
    """Any number of different calls may be made, one after the other or 64 at once, even if all
    say the same. (V-35)"""
    session = Session()
    for number in range(200):
        assert session.ask(call(query=number), "nothing found") == "run"
    calls = [call(query=number) for number in range(64)]
    assert {session.loops.screen(one).text for one in calls} == {None}
    assert {session.loops.done(one, "nothing found") for one in calls} == {""}
    assert session.warnings == []


def test_work_between_the_same_commands_is_no_loop() -> None:
    """Tests that are run again after each change may fail the same way as often as they
    do. (V-35)"""
    session = Session()
    for number in range(50):
        assert session.ask(call("edit", WRITE, path="a", text=f"try {number}"), "edited") == "run"
        assert session.ask(call("shell", UNKNOWN, command="pytest"), "1 failed") == "run"
    assert session.warnings == []


def test_a_change_that_failed_is_no_work() -> None:
    """A command between changes that fail, each in its own way, is a loop all the same. (V-35)"""
    session = Session()
    decided: list[str] = []
    for number in range(3):
        edit = call("edit", WRITE, path="a", text=f"try {number}")
        session.ask(edit, f"no match for try {number}", failed=True)
        decided.append(session.ask(call("shell", UNKNOWN, command="pytest"), "1 failed"))
    assert decided == ["run", "run", "refused"]


def test_two_writes_in_turn_are_a_loop() -> None:
    """Making a change and taking it back again and again is refused. (V-35)"""
    session = Session()
    decided = [
        session.ask(call("edit", WRITE, text=text), "edited") for _ in range(5) for text in "ab"
    ]
    assert decided[:4] == ["run"] * 4
    assert set(decided[-4:]) == {"refused"}


@pytest.mark.parametrize(
    ("name", "effect", "limit"),
    [("read", READ, 10), ("edit", WRITE, 3), ("shell", UNKNOWN, 5), ("any", UNKNOWN, 3)],
)
def test_alike_calls_are_warned_of_and_then_refused(name: str, effect: Effect, limit: int) -> None:
    """Calls that differ in where they begin, and say nothing new, are warned of beyond the limit
    of their kind and refused beyond twice of it. (V-35)"""
    session = Session(reads_warned=1_000, reads_refused=1_000)
    decided: list[str] = []
    warned_at: list[int] = []
    for number in range(2 * limit + 3):
        decided.append(session.ask(call(name, effect, path="a", offset=number), "end of file"))
        if session.warnings:
            warned_at.append(number + 1)
            assert f"repeat_count={number + 1}" in session.warnings.pop()
    assert decided == ["run"] * 2 * limit + ["refused"] * 3
    assert warned_at == list(range(limit + 1, 2 * limit + 1))


def test_a_file_can_be_read_page_by_page() -> None:
    """Pages that say something new are no loop, however many there are. (V-35)"""
    session = Session()
    for page in range(100):
        assert session.ask(call(path="a", offset=page * 50, limit=50), f"lines {page}") == "run"
    assert session.warnings == []


@pytest.mark.parametrize(
    "same", ["src/a", "./src/a", "src//a", "src/./a", "src/b/../a", "src/a/", ".//src/a"]
)
def test_paths_are_the_same_however_they_are_written(same: str) -> None:
    """A path that is written another way names the same thing. (V-35)"""
    session = Session(other=1)
    other = {"lines": [1, 2]}
    assert session.ask(call("tool", UNKNOWN, path="src/a", offset=1, **other)) == "run"
    assert session.ask(call("tool", UNKNOWN, path=same, limit=2, **other)) == "run"
    assert session.ask(call("tool", UNKNOWN, path=same, page=3, **other)) == "refused"
    assert session.ask(call("tool", UNKNOWN, path="src/ab", page=3, **other)) == "run"


def test_arguments_that_are_no_plain_data_are_compared_as_they_are() -> None:
    """Calls with arguments that cannot be written down are alike if their keys are the same, and
    only then. (V-35)"""
    session = Session(other=1)
    for number in range(5):
        use = ToolUse("", "tool", str(number))
        strange: dict[str, object] = {"path": "a", "map": {(1, 2): number}}
        assert session.ask(Preparation(use, strange, str(number), UNKNOWN)) == "run"


def test_reads_in_a_row_without_news_are_warned_of_and_refused() -> None:
    """After 6 reads in a row that said nothing new the model is warned, after 10 it is refused what
    it has read before; something new is read all the same, and ends it. (V-35, S2-58)"""
    session = Session(identical=1_000, read=1_000)
    reads = [call(path=path) for path in "abc"]
    decided = [session.ask(read, "text") for _ in range(5) for read in reads]
    assert decided == ["run"] * 13 + ["refused"] * 2
    assert len(session.warnings) == 10 - 6 + 1
    assert "6 reads in a row said nothing new" in session.warnings[0]
    assert "repeat_count=6" in session.warnings[0]
    assert session.ask(call(path="d"), "text") == "run"
    assert session.ask(reads[0], "text") == "run"


def test_results_used_again_are_reads_without_news() -> None:
    """A model that is answered with recent results again and again is refused in the end. (V-35)"""
    session = Session()
    decided = [session.ask(call()) for _ in range(14)]
    assert decided == ["run", "run"] + ["reused"] * 9 + ["refused"] * 3


def test_only_the_latest_calls_are_remembered() -> None:
    """A call that comes back after 10 others is new; as one of 10 it is not. (V-35)"""
    for others, third in ((9, "reused"), (10, "run")):
        session = Session(reads_refused=1_000)
        for _ in range(2):
            session.ask(call())
        for number in range(others):
            session.ask(call(path=f"p{number}"), "news")
        assert session.ask(call()) == third
        for number in range(30):
            session.ask(call(path=f"q{number}"), "news")
        assert len(session.loops._calls) <= 10
        assert len(session.loops._asked or ()) <= 10


def test_a_word_of_the_user_begins_anew() -> None:
    """Cleared, nothing of before counts. (V-35)"""
    session = Session()
    for _ in range(12):
        session.ask(call())
    session.loops.clear()
    assert [session.ask(call()) for _ in range(3)] == ["run", "run", "reused"]


def test_something_is_remembered() -> None:
    """A window of no calls at all is refused. (V-35)"""
    with pytest.raises(ValueError, match="at least one"):
        Session(window=0)


@given(
    effects=st.lists(st.sampled_from([READ, WRITE, UNKNOWN]), min_size=1, max_size=4),
    order=st.data(),
)
def test_every_circle_ends(effects: list[Effect], order: st.DataObject) -> None:
    """Whatever few calls a model repeats in whatever order, if they say nothing new then in the end
    none is run. (V-35)"""
    session = Session()
    calls = [call(f"tool {n}", effect) for n, effect in enumerate(effects)]
    indexes = st.integers(0, len(calls) - 1)
    for number in order.draw(st.lists(indexes, min_size=1, max_size=40)):
        session.ask(calls[number])
    decided = [session.ask(one) for _ in range(20) for one in calls]
    assert "run" not in decided[-len(calls) :]


class AnyCourse(RuleBasedStateMachine):
    """Reads of a file that others change, beside the file itself."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session()
        self.content = 0

    @rule(path=st.sampled_from("ab"), seconds=st.integers(0, 60))
    def read(self, path: str, seconds: int) -> None:
        """Reads it; what is used again has to be what is there."""
        self.session.clock.advance(seconds)
        reading = call(path=path)
        screened = self.session.loops.screen(reading)
        text = f"content {self.content}" if screened.text is None else screened.text
        self.session.loops.done(reading, text)
        if not screened.refused:
            assert text.endswith(f"content {self.content}")

    @rule(content=st.integers(0, 2), effect=st.sampled_from([WRITE, UNKNOWN]))
    def write(self, content: int, effect: Effect) -> None:
        """Changes it, if that is allowed."""
        writing = call("write", effect, content=content)
        screened = self.session.loops.screen(writing)
        if screened.text is None:
            self.content = content
        else:
            assert screened.refused
        self.session.loops.done(writing, screened.text or "written")


def test_what_is_used_again_is_never_out_of_date() -> None:
    """Under any order of reads and writes of a session, a result that is used again is what reading
    again would say. (V-35)"""
    run_state_machine_as_test(AnyCourse)
