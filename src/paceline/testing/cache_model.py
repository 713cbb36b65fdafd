"""Any sequence of steps on a cache backend, compared with a dictionary that knows expiry.

Three keys and steps of time of 1, 5 and 10 units: few enough for lifetimes to be crossed and
keys to be met again, which is where caches err.
"""

import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import sampled_from

from paceline.testing.cache_backend import Factory, Manners, Subject

__all__ = ["Machine", "check_model"]

_KEYS: Final = tuple(bytes([number]) * 32 for number in range(3))
_LIFETIMES: Final = (1, 5, 10, 10, 3_600, 0)
_TICKS: Final = (1, 5, 10)
_STEPS: Final = 40
_CHECKS_OF_SPEED: Final = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
)


class _Held(NamedTuple):
    """What a key may hold: a value until a moment, in units; nothing if the value is None."""

    value: bytes | None = None
    until: float = 0

    def at(self, now: float) -> bytes | None:
        return self.value if now < self.until else None


_NOTHING: Final = _Held()


class _Model:
    """The dictionary. A key holds one thing, or several of which the last is still to settle."""

    def __init__(self, *, eventual: bool) -> None:
        self._eventual = eventual
        self._now = 0
        self._held: dict[bytes, list[_Held]] = {}

    def put(self, key: bytes, value: bytes, units: int) -> None:
        new = _Held(value, self._now + units) if units else _NOTHING
        older = self._held.get(key, [_NOTHING]) if self._eventual else []
        self._held[key] = [*older, new]

    def expect(self, key: bytes, found: bytes | None) -> None:
        """Asserts that this may be found, and forgets what is older."""
        held = self._held.get(key, [_NOTHING])
        shown = [one.at(self._now) for one in held]
        assert found in shown, f"found {found!r}, expected {' or '.join(map(repr, shown))}"
        self._held[key] = held[shown.index(found) :]

    def delete(self, key: bytes) -> None:
        self._held[key] = [_NOTHING]

    def clear(self) -> None:
        self._held.clear()

    def settle(self) -> None:
        self._held = {key: held[-1:] for key, held in self._held.items()}

    def tick(self, units: int) -> None:
        self._now += units


class Machine(RuleBasedStateMachine):
    """The steps. `check_model` makes subclasses that say of which backend."""

    factory: Factory
    directory: Path
    manners: Manners

    def __init__(self) -> None:
        super().__init__()
        fresh = Path(tempfile.mkdtemp(dir=self.directory))
        self.subject = Subject(self.factory, fresh, self.manners)
        self.model = _Model(eventual=self.manners.eventual)
        self.puts = 0

    @rule(key=sampled_from(_KEYS), units=sampled_from(_LIFETIMES))
    def put(self, key: bytes, units: int) -> None:
        """Stores a value, and does not wait."""
        self._put(key, units)

    @rule(key=sampled_from(_KEYS), units=sampled_from(_LIFETIMES))
    def update(self, key: bytes, units: int) -> None:
        """Stores two values in a row."""
        self._put(key, 10)
        self._put(key, units)

    @rule(key=sampled_from(_KEYS))
    def get(self, key: bytes) -> None:
        """Looks at one key."""
        self.model.expect(key, self.subject.get(key))

    @rule()
    def get_all(self) -> None:
        """Looks at each key."""
        for key in _KEYS:
            self.model.expect(key, self.subject.get(key))

    @rule(key=sampled_from((*_KEYS, *_KEYS, None)))
    def remove(self, key: bytes | None) -> None:
        """Deletes one key; clears all for None."""
        if key is None:
            self.subject.clear()
            self.model.clear()
        else:
            self.subject.delete(key)
            self.model.delete(key)

    @precondition(lambda self: not self.manners.real_time)
    @rule(units=sampled_from(_TICKS))
    def tick(self, units: int) -> None:
        """Lets time pass."""
        self._tick(units)

    @precondition(lambda self: not self.manners.real_time)
    @rule(key=sampled_from(_KEYS), units=sampled_from(_TICKS))
    def put_and_outlive(self, key: bytes, units: int) -> None:
        """Stores a value and waits for its end."""
        self._put(key, units)
        self._tick(units)

    @precondition(lambda self: self.manners.eventual)
    @rule()
    def flush(self) -> None:
        """Waits until all can be read."""
        self.subject.settle()
        self.model.settle()

    @precondition(lambda self: self.manners.persistent)
    @rule()
    def reopen(self) -> None:
        """Closes the backend and opens another one."""
        self.subject.reopen()
        self.model.settle()

    def teardown(self) -> None:
        """Looks at each key a last time."""
        try:
            self.subject.settle()
            self.model.settle()
            self.get_all()
        finally:
            self.subject.close()

    def _put(self, key: bytes, units: int) -> None:
        self.puts += 1
        value = b"%d" % self.puts
        if self.manners.real_time and units:
            units = _LIFETIMES[-2]  # which does not end meanwhile, however slow the machine
        self.subject.begin_put(key, value, units)
        self.model.put(key, value, units)

    def _tick(self, units: int) -> None:
        self.subject.advance(units)
        self.model.tick(units)


def check_model(
    factory: Factory, manners: Manners, *, examples: int = 100, derandomize: bool = True
) -> None:
    """Tries `examples` sequences of steps; raises AssertionError with the shortest bad one."""
    with tempfile.TemporaryDirectory() as directory:
        members = {
            "factory": staticmethod(factory),
            "directory": Path(directory),
            "manners": manners,
        }
        run_state_machine_as_test(
            type("Machine", (Machine,), members),
            settings=settings(
                max_examples=examples,
                stateful_step_count=_STEPS,
                derandomize=derandomize,
                database=None,
                report_multiple_bugs=False,
                print_blob=False,
                deadline=None,
                suppress_health_check=_CHECKS_OF_SPEED,
                phases=(Phase.generate, Phase.shrink),
            ),
        )
