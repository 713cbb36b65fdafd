"""The recorded requests to language models that balancing is measured on.

They lie outside the repository, in `../shared/data` beside it, with their licences.
"""

import csv
import io
import lzma
from datetime import datetime

import msgspec

from bench.traces import DATA
from paceline.testing.simulation import Recorded

__all__ = ["FOLDER", "azure_code", "conversation"]

FOLDER = DATA / "llm_traces"


class _Request(msgspec.Struct):
    timestamp: int
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


def conversation() -> list[Recorded]:
    """An hour of a chat service (Mooncake). All prompts begin alike, so a conversation is told by
    its second block."""
    with lzma.open(FOLDER / "mooncake_conversation.jsonl.xz") as lines:
        requests = [msgspec.json.decode(line, type=_Request) for line in lines]
    return [
        Recorded(
            each.timestamp / 1e3,
            each.input_length,
            each.output_length,
            each.hash_ids,
            str(each.hash_ids[1]) if len(each.hash_ids) > 1 else "",
        )
        for each in requests
    ]


def azure_code() -> list[Recorded]:
    """An hour of a service that completes code (Azure, 2023); nothing is known of prefixes."""
    with lzma.open(FOLDER / "azure2023_code.csv.xz") as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8")))
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    return [
        Recorded(time - times[0], int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for time, row in zip(times, rows, strict=True)
    ]
