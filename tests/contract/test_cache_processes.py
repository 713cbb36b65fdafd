"""The warm tier and its leases between processes: killed, hung, and at work at once."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

_OPEN = """
import asyncio, os, random, sys
from pathlib import Path
from paceline.cache.disk.tier import DiskTier
from paceline.cache.disk.leases import FileLeases, Lease
from paceline.clock import SystemClock

def fail(exc):
    say(f"trouble {exc}")

def say(text):
    os.write(1, f"{text}\\n".encode())

place = Path(sys.argv[1])
HOUR = 3_600_000_000_000
tier = DiskTier(place / "cache.db", clock=SystemClock(), max_bytes=16_000_000, on_trouble=fail)
"""
_ASK = (
    _OPEN
    + """
leases = FileLeases(place / "leases", on_trouble=fail, rng=random.Random())
key, gate, patience_s = b"k" * 32, sys.argv[2], float(sys.argv[3])
say("asking")
got = asyncio.run(
    leases.wait(key, lambda: tier.get(key), patience_s=patience_s, clock=SystemClock())
)
if got is None or isinstance(got, Lease):
    say(f"computing {'with' if got else 'without'}")
    with open(gate) as result:  # until the test opens the other end
        value = result.read().encode()
    tier.put(key, value, HOUR)
    if got is not None:
        tier.after_written(got.release)
else:
    value = got.value
say(f"has {value.decode()}")
tier.close()
"""
)
_STORE = (
    _OPEN
    + """
number = int(sys.argv[2])
while True:
    for number in range(number, number + 50):
        tier.put(number.to_bytes(32, "big"), bytes(500), HOUR)
    tier.flush()
    say(number)
"""
)
_LOAD = (
    _OPEN
    + """
wrong = 0
for number in range(3_000):
    key = (number * 7 % 500).to_bytes(32, "big")
    tier.put(key, key * 20 + sys.argv[2].encode(), HOUR)
    if number % 50 == 0:
        tier.flush()
    if number % 300 == 0:
        tier.delete(key)
    found = tier.get(key)
    wrong += found is not None and not found.value.startswith(key * 20)
tier.flush()
say(f"done {wrong} {tier.snapshot().dropped} {tier.snapshot().damaged}")
tier.close()
"""
)


class _Process:
    """A process that says what it does."""

    def __init__(self, code: str, *arguments: object) -> None:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def rest(self) -> list[str]:
        """What it still says until its end."""
        assert self.process.stdout is not None
        with self.process.stdout as stdout:  # not `communicate`: it forgets what was read ahead
            said = stdout.read()
        assert self.process.wait(60) == 0
        return [line for line in said.splitlines() if line != "asking"]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


class _Askers:
    """Processes that want one result, and a gate that the one computing waits at."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.gate = place / "gate"
        os.mkfifo(self.gate)
        self.all: list[_Process] = []

    def start(self, count: int = 1, *, patience_s: float = 60, gate: Path | None = None) -> None:
        for _ in range(count):
            self.all.append(_Process(_ASK, self.place, gate or self.gate, patience_s))
        for asker in self.all[-count:]:
            assert asker.line() == "asking"

    def let(self, result: str) -> None:
        """Lets the one that computes, or the next that will, come to this result."""
        with self.gate.open("w") as gate:
            gate.write(result)

    def await_computing(self) -> None:
        """Comes back when one computes, which then gets no result."""
        self.gate.open("w").close()


@pytest.fixture
def askers(tmp_path: Path) -> Iterator[_Askers]:
    askers = _Askers(tmp_path)
    yield askers
    for asker in askers.all:
        if asker.process.poll() is None:
            asker.kill()
        if asker.process.stdout is not None:
            asker.process.stdout.close()


def test_four_processes_compute_once(askers: _Askers) -> None:
    """Of four processes that ask for a result at once, one computes it, and all have it. (S1-51)"""
    askers.start(4)
    askers.let("result")
    said = [line for asker in askers.all for line in asker.rest()]
    assert sorted(said) == ["computing with", *["has result"] * 4]


def test_a_killed_holder_is_replaced(askers: _Askers) -> None:
    """When the one that computes is killed, another one takes over, and the others have its
    result. (S1-51)"""
    askers.start()
    holder = askers.all[0]
    assert holder.line() == "computing with"
    askers.start(3)
    holder.kill()
    askers.let("result")
    said = [line for asker in askers.all[1:] for line in asker.rest()]
    assert sorted(said) == ["computing with", *["has result"] * 3]


def test_a_hung_holder_is_not_waited_for(askers: _Askers) -> None:
    """When the one that computes hangs, another loses patience and computes without the lease,
    and who asks after that has its result. (S1-51)"""
    askers.start(gate=askers.place / "gate")
    assert askers.all[0].line() == "computing with"
    os.mkfifo(other := askers.place / "other")
    askers.start(patience_s=0.05, gate=other)
    with other.open("w") as gate:
        gate.write("result")
    assert askers.all[1].rest() == ["computing without", "has result"]
    askers.start()
    assert askers.all[2].rest() == ["has result"]
    assert askers.all[0].process.poll() is None


def test_a_crash_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """However often the process is killed while it stores, the file is whole, and everything is
    in it that was written when `flush` came back. (D85)"""
    stored = 0
    for _ in range(8):
        process = _Process(_STORE, tmp_path, stored)
        for _ in range(5):
            stored = int(process.line())
        process.kill()
        with closing(sqlite3.connect(tmp_path / "cache.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            keys = {int.from_bytes(row[0], "big") for row in db.execute("SELECT key FROM results")}
        assert keys >= set(range(stored + 1))


def test_processes_at_once_see_no_trouble(tmp_path: Path) -> None:
    """Processes that store, remove and read in one file at the same time meet no error, lose
    nothing and read whole values. (D88)"""
    both = [_Process(_LOAD, tmp_path, name) for name in ("a", "b", "c")]
    assert [process.rest() for process in both] == [["done 0 0 0"]] * 3
