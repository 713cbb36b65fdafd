"""Sessions whose model's servers say that they were shown too much: over real sockets."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from aiohttp import web

from paceline.errors import Category
from paceline.testing.virtual_time import run
from tests.contract.scripted_server import answer, answering, said, stream
from tests.contract.session_stage import BYE, stage
from tests.far_sides import Handler

WORDS: Final = '{"error": {"code": "context_length_exceeded", "message": "too long"}}'
TOO_LONG: Final = answer(400, WORDS)


def limited(characters: int) -> Handler:
    """Reads no more than so many characters."""

    async def handler(request: web.Request) -> web.StreamResponse:
        told: dict[str, Any] = await request.json()
        length = sum(len(message["content"] or "") for message in told["messages"])
        return await (TOO_LONG if length > characters else BYE)(request)

    return handler


@pytest.mark.parametrize(
    "refusal",
    [
        TOO_LONG,
        answer(413, "<html>Request Entity Too Large</html>", "text/html"),
        answer(500, '{"error": {"type": "exceed_context_size_error", "code": 500, "message": ""}}'),
        stream([{"error": {"message": "maximum context length is 9", "code": 400}}]),
    ],
)
def test_the_same_is_not_asked_again(refusal: Handler) -> None:
    """A request that is too long is not repeated, by no retry and no fallback: the next one is
    shorter, and is answered (S2-33, S2-42, S2-54)."""

    async def main() -> None:
        async with stage(BYE, BYE, BYE, refusal, BYE, BYE, model={"fallback": ["f"]}) as at:
            async with at.session() as session:
                for text in ("one", "two", "three", "four"):
                    await session.send(f"{text} {'w' * 500}")
                assert session.turns[-1].agent_response == "bye "
                lengths = [size(at.server.told(n)) for n in range(5)]
                assert lengths[4] < 0.75 * lengths[3]
                await session.send("five")
            assert len(at.server.requests) == 6
            assert at.other.requests == []
            at.expect_free()

    run(main())


def size(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["content"]) for message in messages)


def test_every_later_message_is_answered() -> None:
    """However long a session with a small model goes on, and whatever is said in it, each message
    that the model can read is answered, and one that it cannot ends its own turn alone (S2-42)."""

    async def main() -> None:
        async with stage(*[limited(3_000)] * 200) as at, at.session() as session:
            for number in range(40):
                text = f"message {number} " + "w" * 150
                if number % 15 == 14:
                    with pytest.raises(Exception, match="even shortened") as caught:
                        await session.send(text * 30)
                    assert getattr(caught.value, "category", None) is Category.TOO_LONG
                else:
                    assert (await session.send(text)).agent_response == "bye "

    run(main())


def instances(urls: list[str]) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "fleets": {
            "big": {
                "strategy": "round_robin",
                "instances": [
                    {"id": f"i{n}", "kind": "openai", "url": url, "model": "small"}
                    for n, url in enumerate(urls)
                ],
            }
        }
    }


def test_no_other_instance_is_asked_and_none_is_blamed() -> None:
    """Where one instance of a fleet is shown too much no other is asked the same, and none is left
    alone for it: all of them would say so (S2-33, S1-23)."""

    async def main() -> None:
        async with answering(*[TOO_LONG] * 30) as first, answering(*[TOO_LONG] * 30) as second:
            settings = instances([first.url, second.url])()
            async with stage(**settings) as at:
                for count in range(1, 21):
                    error = await at.failure(model="big")
                    assert error.category is Category.TOO_LONG
                    asked = len(first.requests) + len(second.requests)
                    assert asked == count
                for one in at.runtime.balancer.instances["big"]:
                    assert one.shortage is None

    run(main())


def test_a_fallback_that_reads_less_is_told_less() -> None:
    """Where the first model is down and the one in its place is shown too much, the conversation is
    shortened for that one (S2-42, S2-54)."""

    async def main() -> None:
        down = answer(401, "{}")
        async with stage(*[down] * 20, model={"fallback": ["f"]}) as at:
            fine = stream(said("fine"))
            at.other.answers = [fine, fine, TOO_LONG, fine]
            async with at.session() as session:
                for text in ("one", "two", "three"):
                    await session.send(f"{text} {'w' * 500}")
            assert session.turns[-1].agent_response == "fine "
            assert size(at.other.told(3)) < size(at.other.told(2))

    run(main())
