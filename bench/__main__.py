"""`make bench`: runs every benchmark, prints it, and keeps the figures in bench/results."""

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench import cache, call_path, import_cost, metrics, registry

RESULTS = Path(__file__).parent / "results" / "latest.json"
BENCHMARKS: dict[str, Callable[[], dict[str, object]]] = {
    "call_path": call_path.run,
    "cache": cache.run,
    "metrics": metrics.run,
    "registry": registry.run,
    "import_cost": import_cost.run,
}


def main(names: list[str]) -> int:
    """Runs those that are named, else all."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
        return 2
    figures: dict[str, object] = {}
    for name in names or BENCHMARKS:
        print(f"{name} ...", flush=True)
        figures[name] = BENCHMARKS[name]()
        print(msgspec.json.format(msgspec.json.encode(figures[name])).decode())
    if not names:
        machine = {"python": platform.python_version(), "system": platform.system()}
        RESULTS.parent.mkdir(exist_ok=True)
        content = msgspec.json.encode({"machine": machine, **figures}, order="sorted")
        RESULTS.write_bytes(msgspec.json.format(content) + b"\n")
        print(f"written to {RESULTS.relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
