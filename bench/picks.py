"""What a choice costs: picking an instance, holding it and giving it back, beside LiteLLM's Router.

Each is timed beside an await of a no-op. The Router runs in an environment of its own, see
`bench/peers.py`. It only chooses, from what is not cooled down; ours count what is in flight, keep
latencies and tell the strategy of the end too.
"""

import gc
import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import cache
from itertools import cycle, islice
from time import thread_time_ns
from typing import Final

import msgspec

from bench.litellm_picks import STRATEGIES
from bench.noop import AWAIT, await_case
from bench.peers import ROOT, peer_python
from bench.timing import Timed, measure
from paceline.balance import strategies
from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import Features, Request
from paceline.balance.strategy import LoadBalancingStrategy
from paceline.call import Tokens
from paceline.clock import SystemClock

__all__ = ["SIZES", "Figures", "main", "run"]

ROUNDS: Final = 15
SIZES: Final = (2, 8, 100)
_TURN: Final = 256
_REQUESTS: Final = 1_024
_SESSIONS: Final = 200
_TIMEOUT_S: Final = 300


class Figures(msgspec.Struct):
    """Times by strategy and by how many instances there are: of a pick, lease and release, and of
    the same with the first token and the tokens of the answer told; of a choice of the peers. All
    are beside an await of a no-op."""

    rounds: int
    plain: dict[str, dict[str, Timed]]
    told: dict[str, dict[str, Timed]]
    peers: dict[str, dict[str, Timed]]
    failed: dict[str, str]


def run(rounds: int = ROUNDS, *, peers: bool = True) -> dict[str, object]:
    """See `Figures`."""
    cases = [await_case(_TURN)]
    for size in SIZES:
        for name in LoadBalancingStrategy:
            cases.append((f"plain {size} {name}", _turn(_fleet(name, size), size), _TURN))
            cases.append((f"told {size} {name}", _told_turn(_fleet(name, size), size), _TURN))
    gc.freeze()  # so that what was built is not looked through before every turn
    try:
        times = measure(cases, rounds, clock=thread_time_ns)
    finally:
        gc.unfreeze()
    del times[AWAIT]
    figures = Figures(rounds, {}, {}, {}, {})
    for case, timed in times.items():
        how, count, strategy = case.split(" ")
        found = figures.plain if how == "plain" else figures.told
        found.setdefault(strategy, {})[count] = timed
    for peer in STRATEGIES if peers else ():
        try:
            figures.peers[peer] = _peer(peer, rounds)
        except (RuntimeError, subprocess.TimeoutExpired) as exc:
            figures.failed[peer] = str(exc)
    return msgspec.to_builtins(figures)  # type: ignore[no-any-return]


def _fleet(name: str, size: int) -> Fleet:
    clock = SystemClock()
    fleet = Fleet("model", strategies.make(name, clock=clock, rng=random.Random(1)), clock=clock)
    for number in range(size):
        features = Features(input_usd=1.0 + number % 3, output_usd=4.0)
        fleet.add(AgentInstance(f"i{number}", "model", max_capacity=1_000, features=features))
    return fleet


@cache
def _requests() -> tuple[Request, ...]:
    """Turns of sessions: prompts of twelve blocks, of which four are the same for all."""
    shared = (1, 2, 3, 4)
    own = [range(100 * number, 100 * number + 8) for number in range(1, 1 + _SESSIONS)]
    return tuple(
        Request(
            affinity=f"session {number % _SESSIONS}",
            blocks=(*shared, *own[number % _SESSIONS]),
            input_tokens=12 * 512 - 100,
        )
        for number in range(_REQUESTS)
    )


def _turn(fleet: Fleet, size: int) -> Callable[[], None]:
    """Two in flight at each instance, all the time."""
    requests, held = cycle(_requests()), _held(fleet, size)
    take, keep, oldest = fleet.lease, held.append, held.popleft

    def work() -> None:
        for request in islice(requests, _TURN):
            keep(take(request))
            oldest().release()

    return work


def _told_turn(fleet: Fleet, size: int) -> Callable[[], None]:
    requests, held = cycle(_requests()), _held(fleet, size)
    take, keep, oldest = fleet.lease, held.append, held.popleft
    tokens = Tokens(12 * 512 - 100, 100, cached_input=4 * 512)

    def work() -> None:
        for request in islice(requests, _TURN):
            lease = take(request)
            lease.first_token()
            keep(lease)
            lease = oldest()
            lease.used(tokens)
            lease.release()

    return work


def _held(fleet: Fleet, size: int) -> deque[Lease]:
    return deque(fleet.lease(request) for request in _requests()[: 2 * size])


def _peer(strategy: str, rounds: int) -> dict[str, Timed]:
    done = subprocess.run(
        [peer_python("router"), "-m", "bench.litellm_picks", strategy, str(rounds)],
        cwd=ROOT, capture_output=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{strategy}: {' '.join(last)[:200]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, Timed])


def main() -> None:
    """Prints the figures; with `--own` without the peers."""
    figures = run(peers="--own" not in sys.argv)
    print(msgspec.json.format(msgspec.json.encode(figures)).decode())


if __name__ == "__main__":
    main()
