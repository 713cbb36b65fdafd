"""The recorded accesses that hit ratios are measured on, as lists of keys.

They lie outside the repository, in `../shared/data` beside it, with their licences; its README
says where each comes from. `load` reads at most the first 500,000 accesses of each.
"""

import array
import gzip
import lzma
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path

import msgspec

__all__ = ["AGENT", "DATA", "Trace", "load", "sizes"]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LIMIT = 500_000
AGENT = frozenset({"tau-reads", "bfcl-reads", "apibank-reads", "mooncake-conv"})
"""The traces of agents; all others are of file systems, databases and web servers."""

_LIRS = ("2_pools", "cs", "gli", "loop", "multi1", "multi3", "sprite")
_TAU_WRITES = ("update_", "cancel_", "book_", "send_", "think", "transfer_")
_BFCL_READS = (
    "get_", "displayCarStatus", "view_", "check_", "estimate_", "find", "list_", "compute_",
    "gallon_", "liter_", "retrieve_", "cat", "wc", "diff", "grep", "tail", "mean", "sort", "ls",
    "du", "logarithm", "standard_deviation", "verify_",
)  # fmt: skip
_APIBANK_READS = (
    "GetUserToken", "ToolSearcher", "EmergencyKnowledge", "Query", "SymptomSearch", "Calculator",
    "DocumentQA", "GetToday", "Dictionary", "Translate", "ImageCaption", "SearchEngine",
    "SpeechRecognition", "Wiki",
)  # fmt: skip


class Trace(msgspec.Struct, frozen=True):
    """Keys in the order in which they were asked for."""

    name: str
    keys: list[Hashable]


class _Call(msgspec.Struct):
    name: str
    args: dict[str, object] = {}


class _Event(msgspec.Struct):
    k: str
    calls: list[_Call] = []


class _Run(msgspec.Struct):
    events: list[_Event]


class _Request(msgspec.Struct):
    hash_ids: list[int]


def load() -> list[Trace]:
    """All traces, or none when the data is not there."""
    if not DATA.is_dir():
        return []
    return [Trace(name, keys[:LIMIT]) for name, keys in _all()]


def sizes(trace: Trace) -> list[int]:
    """Capacities to try: 1 %, 5 % and 20 % of the distinct keys, 20 at the least."""
    distinct = len(set(trace.keys))
    return sorted({max(20, distinct * share // 100) for share in (1, 5, 20)})


def _all() -> Iterator[tuple[str, list[Hashable]]]:
    yield "tau-reads", list(_reads("tau_airline_gpt4o", without=_TAU_WRITES))
    yield "bfcl-reads", list(_reads("bfcl_multi_turn", only=_BFCL_READS))
    yield "apibank-reads", list(_reads("apibank", only=_APIBANK_READS))
    yield "mooncake-conv", list(_mooncake())
    for name in _LIRS:
        with gzip.open(DATA / "cache_traces" / f"lirs_{name}.trace.gz", "rt") as lines:
            yield (
                f"lirs-{name}",
                [int(line) for line in lines if line.strip() and line[0] != "*"],
            )
    for name in ("web07", "web12"):
        numbers = array.array("i")
        with lzma.open(DATA / "cache_traces" / f"cache2k_{name}.trace.xz") as file:
            numbers.frombytes(file.read())
        if sys.byteorder == "little":
            numbers.byteswap()
        yield name, list(numbers)


def _mooncake() -> Iterator[int]:
    with lzma.open(DATA / "llm_traces" / "mooncake_conversation.jsonl.xz") as lines:
        for line in lines:
            yield from msgspec.json.decode(line, type=_Request).hash_ids


def _reads(
    name: str, *, only: tuple[str, ...] = ("",), without: tuple[str, ...] = ()
) -> Iterator[str]:
    """The calls that read, each as its name and arguments, runs one after another."""
    with gzip.open(DATA / "trajectories" / f"{name}.jsonl.gz") as lines:
        for line in lines:
            for event in msgspec.json.decode(line, type=_Run).events:
                for call in event.calls:
                    if call.name.startswith(only) and not (
                        without and call.name.startswith(without)
                    ):
                        args = msgspec.json.encode(call.args, order="deterministic").decode()
                        yield f"{call.name} {args}"
