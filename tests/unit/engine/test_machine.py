"""The states of a session: every move there is, none that there is not, and who hears of them."""

import logging
from collections import Counter
from typing import Any, Final, cast

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from paceline.engine.machine import Machine, next_state, triggers
from paceline.engine.states import AgentState, StateTransition, TransitionTrigger, Trouble
from paceline.errors import Category, IllegalTransitionError
from paceline.testing.virtual_time import VirtualClock

S = AgentState
T = TransitionTrigger
STATES: Final = list(S)
TRIGGERS: Final = list(T)
TURN: Final = (
    S.PROCESSING_PROMPT,
    S.GENERATING_RESPONSE,
    S.EXECUTING_TOOLS,
    S.AWAITING_APPROVAL,
    S.WAITING_FOR_USER,
)
TROUBLES: Final = (
    T.TOOL_FAILURE,
    T.TIMEOUT,
    T.RESOURCE_LIMIT,
    T.RATE_LIMIT,
    T.INTERNAL_ERROR,
)

# All that is legal, written out by hand; what is not here is illegal.
LEGAL: Final[dict[tuple[S, T], S]] = {
    (S.IDLE, T.USER_INPUT): S.PROCESSING_PROMPT,
    (S.PROCESSING_PROMPT, T.RESPONSE_STARTED): S.GENERATING_RESPONSE,
    (S.PROCESSING_PROMPT, T.TOOLS_REQUESTED): S.EXECUTING_TOOLS,
    (S.PROCESSING_PROMPT, T.RESPONSE_READY): S.IDLE,
    (S.GENERATING_RESPONSE, T.TOOLS_REQUESTED): S.EXECUTING_TOOLS,
    (S.GENERATING_RESPONSE, T.RESPONSE_READY): S.IDLE,
    (S.EXECUTING_TOOLS, T.TOOL_COMPLETION): S.PROCESSING_PROMPT,
    (S.EXECUTING_TOOLS, T.APPROVAL_NEEDED): S.AWAITING_APPROVAL,
    (S.EXECUTING_TOOLS, T.QUESTION): S.WAITING_FOR_USER,
    (S.AWAITING_APPROVAL, T.APPROVAL_DECIDED): S.EXECUTING_TOOLS,
    (S.WAITING_FOR_USER, T.USER_INPUT): S.EXECUTING_TOOLS,
    **{(state, trouble): S.ERROR for state in TURN for trouble in TROUBLES},
    **{(state, T.CANCELLED): S.IDLE for state in (*TURN, S.ERROR)},
    (S.ERROR, T.GAVE_UP): S.IDLE,
    **{(state, T.SHUTDOWN): S.SHUTDOWN for state in STATES if state is not S.SHUTDOWN},
}

ROUTES: Final[dict[S, tuple[T, ...]]] = {
    S.IDLE: (),
    S.PROCESSING_PROMPT: (T.USER_INPUT,),
    S.GENERATING_RESPONSE: (T.USER_INPUT, T.RESPONSE_STARTED),
    S.EXECUTING_TOOLS: (T.USER_INPUT, T.TOOLS_REQUESTED),
    S.AWAITING_APPROVAL: (T.USER_INPUT, T.TOOLS_REQUESTED, T.APPROVAL_NEEDED),
    S.WAITING_FOR_USER: (T.USER_INPUT, T.TOOLS_REQUESTED, T.QUESTION),
    S.ERROR: (T.USER_INPUT, T.TIMEOUT),
    S.SHUTDOWN: (T.SHUTDOWN,),
}
"""How a new session gets into each state."""


def trouble(origin: S) -> Trouble:
    """Something wrong in this state."""
    return Trouble(Category.TIMEOUT, "too late", retryable=True, origin=origin)


def go(machine: Machine, *path: T) -> None:
    """Makes moves that have to be legal."""
    for trigger in path:
        at = machine.state
        target = next_state(at, trigger, at)
        machine.move(at, trigger, trouble=trouble(at) if target is S.ERROR else None)


def machine_in(state: S, **o: Any) -> Machine:
    """A machine that got into this state."""
    machine = Machine(clock=VirtualClock(), **o)
    go(machine, *ROUTES[state])
    assert machine.state is state
    return machine


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("trigger", [t for t in TRIGGERS if t is not T.RECOVERED])
def test_every_pair_of_state_and_trigger_is_in_the_table_or_refused(state: S, trigger: T) -> None:
    """A trigger leads where the table of the specification says, or nowhere; origins play no part
    but in recovery. (S2-04, S2-14)"""
    target = LEGAL.get((state, trigger))
    assert {next_state(state, trigger, origin) for origin in (None, *STATES)} == {target}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("origin", [None, *STATES])
def test_recovery_leads_back_where_the_trouble_arose(state: S, origin: S | None) -> None:
    """A session recovers from ERROR alone, to the state of the running turn that it was in, and
    asks anew for an answer that broke off. (S2-04, S2-14)"""
    back = {at: at for at in TURN} | {S.GENERATING_RESPONSE: S.PROCESSING_PROMPT}
    target = back.get(origin) if state is S.ERROR and origin is not None else None
    assert next_state(state, T.RECOVERED, origin) is target


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_the_machine_makes_legal_moves_and_refuses_the_others(state: S, trigger: T) -> None:
    """In each state every trigger moves, is recorded and told, or is a typed error that changes
    nothing, case 99. (S2-13, S2-46)"""
    machine = machine_in(state)
    heard: list[StateTransition] = []
    machine.observe(heard.append)
    before = (machine.state, machine.since_ns, machine.trouble, tuple(machine.history))
    target = next_state(state, trigger, S.PROCESSING_PROMPT)
    what = trouble(state) if target is S.ERROR else None
    if target is None:
        with pytest.raises(IllegalTransitionError, match=f"is {state} cannot move by {trigger}"):
            machine.move(state, trigger, trouble=what)
        after = (machine.state, machine.since_ns, machine.trouble, tuple(machine.history))
        assert (after, heard) == (before, [])
        return
    made = machine.move(state, trigger, trouble=what)
    assert (made.from_state, made.to_state, made.trigger) == (state, target, trigger)
    assert (machine.state, machine.trouble, machine.history[-1], heard) == (
        target,
        what,
        made,
        [made],
    )


@pytest.mark.parametrize("actual", STATES)
@pytest.mark.parametrize("expected", STATES)
def test_who_expects_another_state_is_refused(actual: S, expected: S) -> None:
    """A move from a state in which the session is not is an error that names both, and nothing is
    changed, so that the record cannot lie. (S2-46)"""
    if actual is expected:
        assert machine_in(actual).state is expected
        return
    machine = machine_in(actual)
    before = tuple(machine.history)
    with pytest.raises(IllegalTransitionError, match=f"is {actual}, not {expected}"):
        machine.move(expected, T.SHUTDOWN)
    assert (machine.state, tuple(machine.history)) == (actual, before)


def test_an_unknown_event_is_refused() -> None:
    """A trigger that is none is the same typed error in every state, and changes nothing, case
    99. (S2-46)"""
    for state in STATES:
        machine = machine_in(state)
        with pytest.raises(IllegalTransitionError, match="cannot move by nonsense"):
            machine.move(state, cast("T", "nonsense"))
        assert machine.state is state


def test_nothing_comes_after_shutdown() -> None:
    """A session that is shut down takes no trigger at all, and the error says what to do, case
    99. (S2-04)"""
    machine = machine_in(S.SHUTDOWN)
    for trigger in T:
        with pytest.raises(IllegalTransitionError) as refused:
            machine.move(S.SHUTDOWN, trigger)
        assert "open another one" in refused.value.next_step
    assert triggers(S.SHUTDOWN) == ()


def test_every_state_is_reached_and_left() -> None:
    """There is a way into every state from a new session, and back to IDLE from all but
    SHUTDOWN. (S2-04)"""
    for state in STATES:
        machine = machine_in(state)
        if state in (*TURN, S.ERROR):
            go(machine, T.CANCELLED)
            assert machine.state is S.IDLE
    assert {target for _, target in LEGAL.items()} | {S.IDLE} == set(STATES)


def test_the_triggers_of_a_state_are_those_of_the_table() -> None:
    """What a state can be moved by is listed in full; in ERROR recovery is among it. (S2-14)"""
    for state in STATES:
        known = {t for s, t in LEGAL if s is state} | ({T.RECOVERED} if state is S.ERROR else set())
        assert set(triggers(state)) == known


@pytest.mark.parametrize("origin", TURN)
def test_trouble_is_kept_while_it_lasts(origin: S) -> None:
    """In ERROR a session knows its trouble, and recovered it is back with none. (S2-04)"""
    machine = machine_in(origin)
    what = trouble(origin)
    machine.move(origin, T.TIMEOUT, trouble=what)
    known = [machine.trouble]
    machine.move(S.ERROR, T.RECOVERED)
    known.append(machine.trouble)
    again = S.PROCESSING_PROMPT if origin is S.GENERATING_RESPONSE else origin
    assert (machine.state, known) == (again, [what, None])


@pytest.mark.parametrize(
    ("trigger", "what"),
    [
        (T.TIMEOUT, None),
        (T.TIMEOUT, trouble(S.EXECUTING_TOOLS)),
        (T.RESPONSE_READY, trouble(S.PROCESSING_PROMPT)),
    ],
)
def test_the_trouble_belongs_to_the_move(trigger: T, what: Trouble | None) -> None:
    """A move to ERROR without a trouble, or with one of another state, and any other move with
    one, is refused and changes nothing. (S2-04, S2-46)"""
    machine = machine_in(S.PROCESSING_PROMPT)
    with pytest.raises(IllegalTransitionError, match="the trouble of a move"):
        machine.move(S.PROCESSING_PROMPT, trigger, trouble=what)
    assert (machine.state, machine.trouble, len(machine.history)) == (S.PROCESSING_PROMPT, None, 1)


def test_a_move_is_recorded_with_times_and_turn() -> None:
    """A recorded move has the wall time, how long the state before lasted and the turn it belongs
    to, and survives being written as JSON. (S2-13)"""
    clock = VirtualClock()
    machine = Machine(clock=clock)
    clock.advance(2)
    machine.move(S.IDLE, T.USER_INPUT, turn_id="t1")
    clock.advance(0.5)
    what = trouble(S.PROCESSING_PROMPT)
    made = machine.move(S.PROCESSING_PROMPT, T.RATE_LIMIT, turn_id="t1", trouble=what)
    assert [t.in_state_ns for t in machine.history] == [2_000_000_000, 500_000_000]
    assert (made.at_ns, made.turn_id, machine.since_ns) == (
        clock.wall_ns(),
        "t1",
        clock.monotonic_ns(),
    )
    assert msgspec.json.decode(msgspec.json.encode(made), type=StateTransition) == made


def test_the_history_is_bounded() -> None:
    """The latest `most` moves are kept, 1000 if nobody says otherwise, and 500 after compaction,
    which says how many went. (S2-23, S2-45)"""
    machine = Machine(clock=VirtualClock())
    for _ in range(600):
        go(machine, T.USER_INPUT, T.RESPONSE_READY)
    assert len(machine.history) == 1_000
    latest = list(machine.history)[-500:]
    assert (machine.compact(), machine.compact()) == (500, 0)
    assert list(machine.history) == latest
    assert (machine.compact(0), len(machine.history)) == (500, 0)
    with pytest.raises(ValueError, match="one move"):
        Machine(clock=VirtualClock(), most=0)


def test_a_listener_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that raises is logged; the move stands, and the other listeners hear of
    it. (S2-46)"""
    machine = Machine(clock=VirtualClock())
    heard: list[StateTransition] = []

    def fails(transition: StateTransition) -> None:
        raise RuntimeError(f"no {transition.to_state}")

    machine.observe(fails)
    machine.observe(heard.append)
    go(machine, T.USER_INPUT)
    assert (machine.state, len(heard)) == (S.PROCESSING_PROMPT, 1)
    assert "Failed to send state transition event: no processing_prompt" in caplog.messages


def test_who_listens_no_more_hears_no_more() -> None:
    """Each listener is taken away by itself, even if it was added twice, and taking it away again
    is nothing. (S2-46)"""
    machine = Machine(clock=VirtualClock())
    heard: list[StateTransition] = []
    first, second = machine.observe(heard.append), machine.observe(heard.append)
    go(machine, T.USER_INPUT)
    first()
    go(machine, T.RESPONSE_READY)
    second()
    second()
    go(machine, T.USER_INPUT)
    assert [t.trigger for t in heard] == [T.USER_INPUT, T.USER_INPUT, T.RESPONSE_READY]


def test_listeners_hear_all_moves_in_one_order() -> None:
    """If a listener makes a move itself, all still hear of the moves in the order they were made
    in. (S2-46)"""
    machine = Machine(clock=VirtualClock())
    heard: list[T] = []

    def cancels(transition: StateTransition) -> None:
        if transition.trigger is T.USER_INPUT:
            machine.move(transition.to_state, T.CANCELLED)

    machine.observe(cancels)
    machine.observe(lambda transition: heard.append(transition.trigger))
    go(machine, T.USER_INPUT)
    assert heard == [t.trigger for t in machine.history] == [T.USER_INPUT, T.CANCELLED]


def test_moves_are_logged_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Each move is one line of the debug log, in the words people know. (S2-46)"""
    with caplog.at_level(logging.DEBUG, logger="paceline"):
        go(Machine(clock=VirtualClock()), T.USER_INPUT)
    assert caplog.messages == ["State transition: idle -> processing_prompt (trigger: user_input)"]


class AnyCourse(RuleBasedStateMachine):
    """A session under any sequence of triggers, beside the table written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.machine = Machine(clock=self.clock, most=8)
        self.heard: list[StateTransition] = []
        self.machine.observe(self.heard.append)
        self.state, self.origin = S.IDLE, cast("S | None", None)
        self.spent: Counter[S] = Counter()

    @rule(
        trigger=st.sampled_from(TRIGGERS),
        expected=st.one_of(st.none(), st.sampled_from(STATES)),
        origin=st.sampled_from([None, None, None, *TURN]),
        seconds=st.integers(0, 5),
    )
    def move(self, trigger: T, expected: S | None, origin: S | None, seconds: int) -> None:
        """Tries a move, often from the right state and with the right trouble."""
        self.clock.advance(seconds)
        self.spent[self.state] += seconds
        at = self.state if expected is None else expected
        target = LEGAL.get((at, trigger))
        if trigger is T.RECOVERED and at is S.ERROR and self.origin is not None:
            resumed = self.origin
            target = S.PROCESSING_PROMPT if resumed is S.GENERATING_RESPONSE else resumed
        source = at if origin is None and target is S.ERROR else origin
        what = None if source is None else trouble(source)
        legal = at is self.state and target is not None
        legal = legal and source is (at if target is S.ERROR else None)
        known = len(self.heard)
        try:
            self.machine.move(at, trigger, trouble=what)
        except IllegalTransitionError:
            assert not legal
            assert len(self.heard) == known
        else:
            assert legal
            assert target is not None
            self.state, self.origin = target, source

    @invariant()
    def agrees(self) -> None:
        """State, trouble and record are those of the model."""
        machine = self.machine
        assert machine.state is self.state
        assert (machine.trouble is not None) == (self.state is S.ERROR)
        assert list(machine.history) == self.heard[-8:]

    @invariant()
    def is_one_chain(self) -> None:
        """Each move begins where the last ended, and no time is lost between them."""
        for one, other in zip(self.heard, self.heard[1:], strict=False):
            assert one.to_state is other.from_state
            assert other.at_ns - one.at_ns == other.in_state_ns
        now = self.clock.monotonic_ns() - self.machine.since_ns
        total = sum(t.in_state_ns for t in self.heard) + now
        assert total == sum(self.spent.values()) * 1_000_000_000


def test_any_course_of_a_session_follows_the_table() -> None:
    """Under any triggers, right and wrong, a session is where the table says, and its record is
    one unbroken chain. (S2-04, S2-13, S2-46)"""
    run_state_machine_as_test(AnyCourse)
