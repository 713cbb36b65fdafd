"""Elements of a list that a model asks for together, run ahead together."""

import asyncio
import random
from typing import Any

import pytest

from paceline.call import Priority, Source
from tests.unit.sessions.quiet import seen
from tests.unit.speculation.worlds import GENEROUS, Follows, runs_clean, shop


@pytest.mark.parametrize(("at_once", "ahead"), [(3, 3), (6, 5)])
def test_a_list_is_opened_ahead(at_once: int, ahead: int) -> None:
    """Where a model reads all five documents of a list in one answer, as many as may run at once are run
    while it still thinks; each that it asks for is a hit of its own, and none is in vain.
    (S2-40, S2-50, P-01)"""
    chance = random.Random(3)
    ids: list[str] = []

    async def list_docs() -> list[dict[str, str]]:
        """All there are."""
        return [{"id": each} for each in ids]

    async def read_doc(id: str) -> str:  # noqa: A002 (what it is called by)
        """One of them."""
        await asyncio.sleep(1)
        return f"text of {id}"

    async def main() -> None:
        async with shop(**{**GENEROUS, "at_once": at_once}) as runtime:
            runtime.tool(effect="read")(list_docs)
            runtime.tool(effect="read", ttl_s=600)(read_doc)
            found = seen(runtime)
            sources: list[list[str | None]] = []
            launched: list[int] = []
            for _ in range(30):
                ids[:] = ["".join(chance.choices("ABCDEF2345", k=8)) for _ in range(5)]
                steps: list[list[tuple[str, dict[str, Any]]]]
                steps = [[("list_docs", {})], [("read_doc", {"id": each}) for each in ids]]
                async with runtime.session(model=Follows(steps), user="ada") as session:
                    turn = await session.send("open the docs")
                sources.append([call.source for call in turn.tool_calls])
                launched.append(sum(call.priority is Priority.SPECULATIVE for call, _ in found))
            assert sources[-1].count(Source.SPECULATED) == ahead
            assert launched[-1] - launched[-2] == ahead
            figures = dict((await runtime._parts.predictions()).figures())["read_doc"]
            assert figures.used == figures.launched == launched[-1]

    runs_clean(main())
