"""What a record says of a call, and that taking it holds nothing up."""

import dataclasses
import gc
import json
import weakref
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Caller, Kind, Outcome, Scope, ScopeLevel, Source
from paceline.codec import IMMUTABLE
from paceline.errors import AgentError, Category
from paceline.history import record as module
from paceline.history.record import Record, capture, record, storable
from paceline.redaction import MASK, Redactor, Secret
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock

CLOCK = VirtualClock()

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def recorded(
    value: object = "world",
    *,
    error: AgentError | None = None,
    keep_inputs: bool = True,
    redactor: Redactor | None = None,
    **arguments: object,
) -> Record:
    call = a_call("1", caller=Caller("ada", "s", "t"), arguments=arguments)
    return record(
        call,
        an_outcome(call, value, error=error),
        clock=CLOCK,
        redactor=redactor or Redactor(),
        keep_inputs=keep_inputs,
    )


def test_a_record_says_it_all() -> None:
    """Who asked for what, where the result came from, what it took and cost. (S1-16, S1-55)"""
    found = recorded(query="hello")
    assert (found.id, found.trace, found.parent) == ("1", "trace", "parent")
    assert (found.kind, found.name, found.scope) == (Kind.AGENT, "echo", ScopeLevel.USER)
    assert (found.user, found.session, found.tenant) == ("ada", "s", "t")
    assert (found.source, found.instance, found.attempts) == (Source.EXECUTED, "local:1", 2)
    assert (found.queue_ns, found.execute_ns, found.total_ns) == (3_000, 4_000_000, 5_000_000_000)
    assert (found.tokens_input, found.tokens_output, found.tokens_cached) == (7, 8, 9)
    assert (found.cost_usd, found.at_ns) == (0.25, CLOCK.EPOCH_NS)
    assert (found.category, found.message, found.failed) == (None, None, False)
    assert found.input is not None
    assert json.loads(found.input) == {"query": "hello"}
    assert found.output_bytes == len(b"\x01\xa5world")


def test_an_error_is_recorded_masked() -> None:
    """An error is recorded by category and message, its secrets masked; there is no output."""
    found = recorded(error=AgentError("password=hunter2 is wrong", category=Category.NETWORK))
    assert (found.category, found.failed) == (Category.NETWORK, True)
    assert found.message == f"password={MASK} is wrong"
    assert (found.output_hash, found.output_bytes) == (None, None)


@pytest.mark.parametrize("value", ["sorry", ["a", "list"]])
def test_a_fallback_is_recorded_with_its_error(value: object) -> None:
    """What a fallback answered is a value with its hash, and the error it answered in place of is
    recorded beside it, its secrets masked. (S0-81, S0-09)"""
    call = a_call("1")
    wrong = AgentError("password=hunter2 is wrong", category=Category.NETWORK)
    wrong.__cause__ = ConnectionError("inner")
    outcome = msgspec.structs.replace(an_outcome(call, value), instead_of=wrong)
    assert capture(call, outcome, CLOCK).outcome.instead_of is None  # errors hold what they hold
    found = record(call, outcome, clock=CLOCK, redactor=Redactor(), keep_inputs=True)
    assert (found.category, found.failed) == (None, False)
    assert (found.instead_of, found.trouble) == (Category.NETWORK, Category.NETWORK)
    assert found.message == f"password={MASK} is wrong"
    assert found.error_type == "builtins.ConnectionError"
    assert found.output_hash == recorded(value).output_hash


@pytest.mark.parametrize(
    ("id_", "asked"), [("1", True), ("1-ahead", False), ("1-refresh", False), ("ahead", True)]
)
def test_who_asked_stands_in_the_id(id_: str, asked: bool) -> None:
    """Calls made ahead, or anew while the old result serves, are asked for by nobody. (S1-60)"""
    assert msgspec.structs.replace(recorded(), id=id_).asked is asked


NAMES = st.sampled_from([None, "x", "y"])
CALLERS = st.builds(Caller, NAMES, NAMES, NAMES)
LEVELS = st.sampled_from([None, *ScopeLevel])


@given(CALLERS, LEVELS, CALLERS, LEVELS)
def test_sharers_are_those_of_the_scope(
    one: Caller, one_level: ScopeLevel | None, other: Caller, other_level: ScopeLevel | None
) -> None:
    """Two records have equal sharers exactly if a result of the one may serve the other. (S1-60)"""

    def sharers(caller: Caller, scope: Scope) -> tuple[str | None, ...]:
        call = msgspec.structs.replace(a_call("1", caller=caller), scope=scope)
        made = record(call, an_outcome(call), clock=CLOCK, redactor=Redactor(), keep_inputs=False)
        return made.sharers

    scopes = Scope.of(one, one_level), Scope.of(other, other_level)
    same = sharers(one, scopes[0]) == sharers(other, scopes[1])
    assert same == (scopes[0] == scopes[1])


@given(PLAIN, PLAIN)
def test_hashes_tell_values_apart(one: object, other: object) -> None:
    """Equal values of equal type have one hash, others do not; type counts: 1, 1.0 and True."""
    same = repr(one) == repr(other)
    assert (recorded(one).output_hash == recorded(other).output_hash) is same
    assert (recorded(q=one).input_hash == recorded(q=other).input_hash) is same


@given(PLAIN)
def test_when_it_is_made_makes_no_difference(value: object) -> None:
    """A record made later is the one made at once, for any plain arguments and value."""
    call = a_call("1", arguments={"query": value})
    outcome = an_outcome(call, value)
    taken = capture(call, outcome, CLOCK)
    now = record(call, outcome, clock=CLOCK, redactor=Redactor(), keep_inputs=True)
    if isinstance(value, dict | list):
        value.clear()
    assert taken.record(Redactor(), keep_inputs=True) == now


def test_what_can_change_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture that kept a reference to a list would record what it became later."""
    monkeypatch.setattr(module, "IMMUTABLE", IMMUTABLE | {list})
    with pytest.raises(AssertionError):
        test_when_it_is_made_makes_no_difference.hypothesis.inner_test(["as it was"])  # type: ignore[attr-defined]


def test_large_values_do_not_hold_the_call_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large value that could change is not encoded in passing; its record has no hash."""
    encoded: list[object] = []

    def encode(value: object, type_: object) -> bytes:
        encoded.append(value)
        return b"x"

    monkeypatch.setattr(module, "encode", encode)
    shared: list[object] = [0] * 100
    cyclic: list[object] = []
    cyclic.append(cyclic)
    for value in (
        list(range(10_000)),
        {str(n): [n] for n in range(1_500)},
        [{"a": [shared] * 50}] * 50,
        ["x" * 10_000_000],
        cyclic,
    ):
        assert recorded(value, query=value).output_hash is None
    assert encoded == []


def test_unchangeable_values_are_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of usual length costs its call nothing: it is encoded when the record is made."""
    encoded: list[object] = []

    def encode(value: object, _: object) -> bytes:
        encoded.append(value)
        return b"x"

    monkeypatch.setattr(module, "encode", encode)
    call = a_call("1", arguments={"query": "x" * 16_000, "n": 1})
    taken = capture(call, an_outcome(call, "y" * 16_000), CLOCK)
    assert encoded == []
    taken.record(Redactor(), keep_inputs=True)
    assert len(encoded) == 2


class Traced(list[object]):
    """A list that can be watched."""


def _held(root: object) -> list[object]:
    """All that can be reached from an object, modules and classes apart."""
    found: dict[int, object] = {}
    waiting = [root]
    while waiting:
        at = waiting.pop()
        if id(at) in found or isinstance(at, type | ModuleType):
            continue
        found[id(at)] = at
        function = isinstance(at, FunctionType)  # which refers to its whole module
        waiting.extend((at.__closure__ or ()) if function else gc.get_referents(at))  # type: ignore[attr-defined]
    return list(found.values())


@pytest.mark.parametrize("large", ["x" * 50_000, b"x" * 50_000, ["x" * 50_000], "x" * 5_000_000])
def test_what_waits_is_small(large: object) -> None:
    """A capture keeps neither a large value, argument or message nor anything of an error, and
    its record has the hash of what was not too large to take one."""
    traced = Traced([large])
    watched = weakref.ref(traced)
    call = a_call("1", arguments={"query": large, "more": traced})
    outcome = an_outcome(call, large)
    error = AgentError("x" * 50_000)
    error.__cause__ = KeyError(traced)
    taken = [capture(call, outcome, CLOCK), capture(call, an_outcome(call, error=error), CLOCK)]
    same = record(call, outcome, clock=CLOCK, redactor=Redactor(), keep_inputs=True)
    del call, outcome, error, traced
    gc.collect()
    assert watched() is None
    sizes = [len(part) for part in _held(taken) if isinstance(part, (str, bytes))]
    assert max(sizes) <= 16 * 1024
    assert taken[0].record(Redactor(), keep_inputs=True) == same
    size = len(large) if isinstance(large, str | bytes) else len(str(large[0]))  # type: ignore[index]
    assert (same.output_hash is not None) == (size < 2_000_000)
    if same.output_bytes is not None:
        assert size < same.output_bytes < size + 20


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize("value", [object(), [Path("x")], "\ud800", {1: {2: object}}])
def test_what_has_no_encoding_has_no_hash(value: object) -> None:
    """A value that cannot be encoded leaves its hash and size empty and breaks nothing."""
    found = recorded(value, query=value)
    assert (found.output_hash, found.output_bytes, found.input_hash) == (None, None, None)
    assert found.input is None


def test_a_record_as_result_has_a_hash() -> None:
    """A dataclass or Struct, such as the result of a command, has a hash of its content."""
    assert recorded(Point(1)).output_hash == recorded(Point(1)).output_hash is not None
    assert recorded(Point(1)).output_hash != recorded(Point(2)).output_hash


def test_inputs_can_be_left_out() -> None:
    """With inputs off only their hash is there, and the same one."""
    with_inputs, without = recorded(query="hello"), recorded(query="hello", keep_inputs=False)
    assert with_inputs.input is not None
    assert without.input is None
    assert without.input_hash == with_inputs.input_hash


def test_long_texts_are_bounded() -> None:
    """Inputs over 16 KiB are not kept, messages are cut, and cut only after masking."""
    long = recorded(query="x" * 20_000)
    assert long.input is None
    assert long.input_hash is not None
    secret = "s3cr3t" * 400
    redactor = Redactor([Secret(secret)])
    found = recorded(error=AgentError("x" * 1_900 + secret), redactor=redactor)
    assert found.message == "x" * 1_900 + MASK
    huge = recorded(error=AgentError(secret * 1_000), redactor=redactor)
    assert huge.message == "(a message of 2,400,000 characters)"


SECRETS = st.text(st.sampled_from('xyz"\\/\n\x00é😀'), min_size=4, max_size=12).filter(
    lambda text: text.strip("\\")  # of backslashes alone, what is left of a neighbour looks alike
)


@given(SECRETS, PLAIN, st.text(), st.text())
def test_a_known_secret_is_in_no_record(secret: str, value: Any, before: str, after: str) -> None:
    """A secret stays out wherever it stands: in text, a list, a key, bytes; escaped or not."""
    hidden = before + secret + after
    found = recorded(
        value,
        error=AgentError(hidden),
        redactor=Redactor([Secret(secret)]),
        query=[hidden, {hidden: value}, hidden.encode(errors="replace"), {(hidden,): 1}, {hidden}],
    )
    texts = [found.message or ""]
    if found.input is not None:
        texts += _texts(json.loads(found.input))
    assert not [text for text in texts if any(secret in part for part in text.split(MASK))]


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [value] if isinstance(value, str) else []


@given(st.text())
def test_any_text_becomes_storable(text: str) -> None:
    """Text that UTF-8 has a form for stays; the rest is written out, and never raises."""
    assert storable(text) == text
    assert storable(text + "\ud800").encode() == text.encode() + b"\\ud800"


def test_an_outcome_without_value_has_the_hash_of_none() -> None:
    """None is a value like any other."""
    call = a_call("1")
    found = record(
        call,
        Outcome("1", "echo", Source.HOT),
        clock=CLOCK,
        redactor=Redactor(),
        keep_inputs=True,
    )
    assert found.output_hash == recorded(None).output_hash is not None
    assert (found.tokens_input, found.cost_usd) == (None, None)
