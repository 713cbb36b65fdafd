"""What a choice costs LiteLLM's Router; run in an environment that has it, by `bench.picks`.

One process measures one of its ways to choose: `python -m bench.litellm_picks simple-shuffle 5`.
Everything that it makes known to the whole process is then of that one.
"""

import asyncio
import importlib
import os
import sys
from time import thread_time_ns
from typing import Final

import msgspec

from bench.noop import AWAIT, await_case
from bench.timing import Case, measure

__all__ = ["SIZES", "STRATEGIES", "main"]

SIZES: Final = (2, 8, 100)
STRATEGIES: Final = (
    "simple-shuffle",
    "least-busy",
    "latency-based-routing",
    "usage-based-routing-v2",
    "cost-based-routing",
)
_TURN: Final = 100
_MODEL: Final = "m"


def _case(strategy: str, size: int, loop: asyncio.AbstractEventLoop) -> Case:
    deployments = [
        {
            "model_name": _MODEL,
            "litellm_params": {
                "model": "openai/gpt-4o",
                "api_key": "none",
                "api_base": f"http://127.0.0.1:9/{number}",
            },
        }
        for number in range(size)
    ]
    router = importlib.import_module("litellm").Router(
        model_list=deployments, routing_strategy=strategy
    )
    messages = [{"role": "user", "content": "hello"}]

    async def turn() -> None:
        for _ in range(_TURN):
            await router.async_get_available_deployment(
                model=_MODEL, messages=messages, request_kwargs={}
            )

    def work() -> None:
        loop.run_until_complete(turn())

    return str(size), work, _TURN


def main(arguments: list[str]) -> None:
    """Prints what a choice takes by how many there are to choose from."""
    strategy, rounds = arguments
    os.environ["LITELLM_LOG"] = "ERROR"
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no network
    loop = asyncio.new_event_loop()
    cases = [_case(strategy, size, loop) for size in SIZES]
    times = measure([await_case(_TURN), *cases], int(rounds), clock=thread_time_ns)
    del times[AWAIT]
    print(msgspec.json.encode(times).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
