"""What `import paceline` costs over a bare interpreter.

Whole processes are timed, so that nothing is missed; bare and loaded ones take turns, so that
a busy machine slows both alike.
"""

import statistics
import subprocess
import sys
from operator import truediv
from time import perf_counter

__all__ = ["main", "run"]

ROUNDS = 20


def run(rounds: int = ROUNDS) -> dict[str, object]:
    """Medians in milliseconds, their difference, and the median of the ratio within a round.

    The first process of each kind is not counted: it may have to compile and to read the disk.
    """
    programs = {"bare": "pass", "paceline": "import paceline"}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name, program in programs.items():
            elapsed_ms = _time_ms(program)
            if turn:
                times[name].append(elapsed_ms)
    bare, loaded = (statistics.median(times[name]) for name in programs)
    return {
        "rounds": rounds,
        "bare_ms": bare,
        "paceline_ms": loaded,
        "cost_ms": loaded - bare,
        "ratio": statistics.median(map(truediv, times["paceline"], times["bare"])),
    }


def _time_ms(program: str) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (perf_counter() - start) * 1e3


def main() -> None:
    """Prints the figures."""
    figures = run()
    print(
        "import paceline: {cost_ms:.1f} ms over a bare interpreter "
        "({paceline_ms:.1f} ms against {bare_ms:.1f} ms, {ratio:.2f} times; "
        "medians of {rounds})".format_map(figures)
    )


if __name__ == "__main__":
    main()
