"""What a write costs that makes results stale, by how many others are known: it is to be the same."""

import itertools
from time import thread_time_ns
from typing import Final

from bench.timing import LIMIT, Case, measure
from paceline.cache.generations import Generations
from paceline.errors import StorageError

__all__ = ["FEW", "MANY", "main", "run"]

FEW: Final = f"{LIMIT}a write, 10 resources known"
MANY: Final = "a write, 10,000 resources known"
_TURN: Final = 2_000


def run(rounds: int = 9) -> dict[str, object]:
    """Nanoseconds a write, in each round."""
    cases = [_case(FEW, 10), _case(MANY, 10_000)]
    return {"rounds": rounds, "ns": measure(cases, rounds, clock=thread_time_ns)}


def _case(name: str, known: int) -> Case:
    generations = Generations(None, on_trouble=_unexpected)
    tags = [(f"file:/srv/{number}",) for number in range(known)]
    for tag in tags:
        generations.read(tag)

    def write() -> None:
        for tag in itertools.islice(itertools.cycle(tags), _TURN):
            generations.bump(tag)

    return name, write, _TURN


def _unexpected(exc: StorageError) -> None:
    raise exc


def main() -> None:
    """Prints the figures."""
    print(run())


if __name__ == "__main__":
    main()
