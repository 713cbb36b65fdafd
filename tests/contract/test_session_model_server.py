"""Sessions whose model is behind a server that is slow, broken or hostile: over real sockets, in
virtual time."""

import asyncio
import json
from typing import Final

import pytest

from paceline.call import Tokens
from paceline.engine.events import TextDelta, TextRestarted
from paceline.engine.states import ToolStatus, TurnStatus
from paceline.errors import BudgetExceededError, Category
from paceline.testing.virtual_time import run
from tests.contract.scripted_server import DONE, End, Event, answer, called, calling, said, stream
from tests.contract.session_stage import BYE, LOOK, NOTE, stage
from tests.far_sides import Handler

TOO_MANY: Final = answer(429, "{}")
HTML: Final = "<!doctype html><title>Sign in</title>"
FAR: Final = "Sat, 01 Jan 2050 00:00:00 GMT"
PAST: Final = "Tue, 14 Nov 2023 22:13:00 GMT"
SOON: Final = "Tue, 14 Nov 2023 22:13:27 GMT"
"""Seven seconds after the virtual clock's beginning."""


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def second() -> None:
    await asyncio.sleep(1)


@pytest.mark.parametrize("size", [1, 4, 1_000])
def test_tool_calls_come_in_pieces(size: int) -> None:
    """However small the pieces are in which two tool calls come, each is run once, and the model is
    told the results in the order of its calls, after the calls as it made them (S2-28, S2-31, S2-35)."""

    async def main() -> None:
        async with stage(stream(calling(LOOK, NOTE, text="Well, ", size=size)), BYE) as at:
            turn = await at.turn()
            assert (turn.status, turn.agent_response) == (TurnStatus.COMPLETED, "bye ")
            assert [c.result for c in turn.tool_calls] == ["bolt is there", "nut noted"]
            assert sorted(at.shop.begun) == ["look bolt", "note nut"]
            _, made, *results = at.server.told(1)
            assert (made["content"], called(made)) == ("Well, ", [LOOK[1:], NOTE[1:]])
            assert [one["tool_call_id"] for one in results] == ["c1", "c2"]
            assert at.results(1) == ["bolt is there", "nut noted"]

    run(main())


def test_a_read_begins_while_the_answer_comes() -> None:
    """A read starts once its arguments are complete, though the answer waits until it has, and a write
    does not before the answer is complete (S2-29, S2-31)."""

    async def main() -> None:
        async with stage() as at:
            begun: list[str] = []

            async def half() -> None:
                await at.shop.looked.wait()
                await asyncio.sleep(5)
                begun.extend(at.shop.begun)

            events = calling(LOOK, NOTE)
            at.server.answers = [stream([*events[:4], half, *events[4:]]), BYE]
            assert (await at.turn()).status is TurnStatus.COMPLETED
            assert begun == ["look bolt"]
            assert at.shop.begun == ["look bolt", "note nut"]

    run(main())


@pytest.mark.parametrize(
    "arguments", ['{"item": bolt}', '{"item": "bo', "[1]", '{"part": "x"}', "x"]
)
def test_arguments_that_are_none_are_told_to_the_model(arguments: str) -> None:
    """A tool call whose arguments are no JSON or not those of the tool is not run; the model is told
    why, in a request that servers can read, and may correct itself (S2-35, V-31)."""

    async def main() -> None:
        async with stage(
            stream(calling(("c1", "look", arguments))), stream(calling(LOOK)), BYE
        ) as at:
            turn = await at.turn()
            assert [c.status for c in turn.tool_calls] == [
                ToolStatus.REJECTED,
                ToolStatus.COMPLETED,
            ]
            assert at.shop.begun == ["look bolt"]
            [why] = at.results(1)
            assert "look" in why
            for _, sent in called(at.server.told(1)[1]):
                assert isinstance(json.loads(sent), dict)

    run(main())


@pytest.mark.parametrize("end", ["cut", "reset", "orderly"])
@pytest.mark.parametrize(
    ("events", "begun"),
    [
        (said("one two three")[:2], []),
        (calling(LOOK, size=3, ended=False)[:3], []),
        (calling(LOOK, NOTE, ended=False), ["look bolt"]),
        (calling(NOTE, LOOK, ended=False)[:3], []),
    ],
)
def test_an_answer_that_breaks_off_is_asked_for_again(
    end: End, events: list[Event], begun: list[str]
) -> None:
    """Wherever the connection ends in the middle of an answer, it is asked for anew: a read that was
    started is not run again, no write was, and what the user saw is taken back (case 94, S2-41, V-31)."""

    async def main() -> None:
        async with stage() as at:
            before: list[str] = []

            async def look_on() -> None:
                before.extend(at.shop.begun)

            whole = stream([look_on, *calling(LOOK, NOTE)])
            pause = [second] if begun else []  # so that the read is under way
            cut = [*events[:-1], *pause, events[-1]]
            at.server.answers = [stream(cut, end=end), whole, BYE]
            async with at.session() as session:
                heard = [event async for event in session.stream("go")]
            turn = session.turns[-1]
            assert turn.status is TurnStatus.COMPLETED
            assert sorted(at.shop.begun) == sorted(at.shop.ended) == ["look bolt", "note nut"]
            assert (before, len(at.server.requests)) == (begun, 3)
            at.expect_free()
            texts = [e.text for e in heard if isinstance(e, TextDelta)]
            taken_back = sum(isinstance(e, TextRestarted) for e in heard)
            assert texts[-1] == "bye "
            assert taken_back == (len(texts) > 1)

    run(main())


def test_events_that_come_twice_count_once() -> None:
    """Tool calls, ends and usage that a server repeats count once (V-31)."""

    async def main() -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        events = [*calling(LOOK, NOTE)[:-1], *said("", usage=usage)[1:]]
        async with stage(stream([e for e in events for _ in range(2)]), BYE) as at:
            turn = await at.turn()
            assert [c.tool_name for c in turn.tool_calls] == ["look", "note"]
            assert sorted(at.shop.begun) == ["look bolt", "note nut"]
            assert turn.tokens == Tokens(10, 5)

    run(main())


@pytest.mark.parametrize(
    ("reply", "category"),
    [
        (answer(200, HTML, "text/html"), Category.EXECUTION),
        (answer(200, "", "application/json"), Category.EXECUTION),
        (answer(200, "null", "application/json"), Category.EXECUTION),
        (answer(200, "{}", "application/json"), Category.NETWORK),
        (answer(200, HTML, "text/event-stream"), Category.NETWORK),
        (answer(200, "", "text/event-stream"), Category.NETWORK),
        (answer(500, "{}"), Category.UNAVAILABLE),
        (answer(503, HTML, "text/html"), Category.UNAVAILABLE),
        (answer(401, "{}"), Category.AUTHENTICATION),
        (answer(302, "", Location="http://127.0.0.1:1/"), Category.INVALID),
    ],
)
def test_what_is_no_answer_ends_the_turn_in_time(reply: Handler, category: Category) -> None:
    """A page, nothing, a refusal or a failure in place of an answer ends the turn with an error of
    ours after a bounded number of tries, and the session goes on (case 94, S2-33, V-31)."""

    async def main() -> None:
        soon_again = {"circuit_longest_wait_s": 5}
        async with stage(reply, chat={"max_execution_s": 60}, balance=soon_again) as at:
            error = await at.failure()
            passes = category in {Category.NETWORK, Category.UNAVAILABLE}
            assert error.category is category or (passes and error.category is Category.UNAVAILABLE)
            assert (len(at.server.requests) > 1) == passes
            assert now_s() < 65
            at.server.answers = [BYE]
            await asyncio.sleep(10)  # what was left alone is asked again
            assert (await at.turn()).agent_response == "bye "

    run(main())


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_a_failure_that_passes_is_survived(status: int) -> None:
    """A server that fails once is asked again (case 94, V-31)."""

    async def main() -> None:
        async with stage(answer(status, "{}"), BYE) as at:
            assert (await at.turn()).agent_response == "bye "
            assert len(at.server.requests) == 2

    run(main())


@pytest.mark.parametrize(
    ("wish", "least_s", "most_s"),
    [
        ("5", 5, 8),
        ("0", 0, 3),
        (SOON, 6, 10),
        (PAST, 0, 3),
        ("-3", 0, 3),
        ("soon", 0, 4),
        ("", 0, 4),
        ("60", 60, 70),
    ],
)
def test_a_rate_limit_is_waited_for(wish: str, least_s: float, most_s: float) -> None:
    """After a 429 the model is asked again as soon as its Retry-After allows, in seconds or as a date,
    and soon where that says nothing (case 94, S2-54)."""

    async def main() -> None:
        headers = {"Retry_After": wish} if wish else {}
        async with stage(answer(429, "{}", **headers), BYE) as at:
            began_s = now_s()
            assert (await at.turn()).agent_response == "bye "
            assert least_s <= now_s() - began_s <= most_s
            assert len(at.server.requests) == 2

    run(main())


@pytest.mark.parametrize("wish", ["99999999999999", FAR, "400"])
def test_a_wait_that_outlasts_the_turn_is_not_begun(wish: str) -> None:
    """A Retry-After beyond the turn's own limit ends the turn at once, with the wish in the error, or
    has the fallback asked (case 94, S2-54)."""

    async def main() -> None:
        async with stage(answer(429, "{}", Retry_After=wish)) as at:
            error = await at.failure()
            assert error.category is Category.RATE_LIMIT
            assert error.retry_after_s is not None
            assert 400 <= error.retry_after_s <= 86_400
            assert (len(at.server.requests), now_s() < 10) == (1, True)
            turn = await at.turn(fallback=["f"])
            assert (turn.agent_response, turn.models) == ("from afar ", ("f",))

    run(main())


def test_a_storm_of_refusals_has_a_bound() -> None:
    """A server that answers 429 to everything is asked a bounded number of times within the turn's
    limit; one that comes back in time is recovered from; and with a fallback the turn does not wait
    for it (S2-54)."""

    async def main() -> None:
        async with stage(TOO_MANY, chat={"max_execution_s": 120}) as at:
            await at.failure()
            assert len(at.server.requests) > 3
            assert now_s() <= 125
        storm = [answer(429, "{}", Retry_After="2")] * 8
        async with stage(*storm, BYE) as at:
            assert (await at.turn()).agent_response == "bye "
            assert len(at.server.requests) == 9
        async with stage(TOO_MANY, model={"fallback": ["f"]}) as at:
            began_s = now_s()
            assert (await at.turn()).agent_response == "from afar "
            assert (len(at.server.requests), len(at.other.requests)) == (3, 1)
            assert now_s() - began_s < 10
            at.expect_free()

    run(main())


def test_a_fallback_says_it_all() -> None:
    """Where a fallback answers after the first model broke off again and again, what was heard of that
    is taken back, a read it asked for was run once, and the answer is the fallback's (S2-41, S2-54)."""

    async def main() -> None:
        events = [*said("one two")[:2], *calling(LOOK, ended=False), second, second]
        async with stage(stream(events, end="reset"), model={"fallback": ["f"]}) as at:
            async with at.session() as session:
                heard = [event async for event in session.stream("go")]
            [turn] = session.turns
            assert (turn.agent_response, turn.models) == ("from afar ", ("f",))
            assert turn.tool_calls == ()
            assert (at.shop.begun, len(at.server.requests)) == (["look bolt"], 3)
            last = max(n for n, event in enumerate(heard) if isinstance(event, TextRestarted))
            assert [e.text for e in heard[last:] if isinstance(e, TextDelta)] == ["from ", "afar "]
            at.expect_free()

    run(main())


def test_a_server_that_is_not_there_is_given_up() -> None:
    """Where nobody listens the turn ends with an error that says where, and a fallback answers
    (V-31)."""

    async def main() -> None:
        nowhere = {"url": "http://127.0.0.1:9/v1"}
        async with stage(BYE, model=nowhere, balance={"circuit_failures": 0}) as at:
            error = await at.failure()
            assert error.category is Category.NETWORK
            assert "127.0.0.1:9" in error.message
            assert (await at.turn(fallback=["f"])).agent_response == "from afar "

    run(main())


@pytest.mark.parametrize("pause_s", [1, 25, 1_000])
def test_a_stream_that_never_ends_ends_with_the_turn(pause_s: float) -> None:
    """However slowly words come without end, the turn is over at its limit, has what was heard, and the
    server is left alone (case 94, S2-21)."""

    async def main() -> None:
        async def pause() -> None:
            await asyncio.sleep(pause_s)

        events = [part for _ in range(1_000) for part in (said("word")[0], pause)]
        async with stage(stream(events), chat={"max_execution_s": 40}) as at:
            error = await at.failure()
            assert isinstance(error, BudgetExceededError) or error.category is Category.TIMEOUT
            assert 39 <= now_s() <= 45
            await asyncio.sleep(0.1)
            assert at.server.busy == 0

    run(main())


def test_an_answer_has_a_largest_size() -> None:
    """Words without end that come at once end the turn when they are more than is read (case 94, V-31)."""

    async def main() -> None:
        flood = [said("w" * 1_000_000)[0]] * 40
        async with stage(stream(flood), chat={"max_execution_s": 60}) as at:
            error = await at.failure()
            assert "larger than is read" in error.message
            assert len(at.server.requests) == 1

    run(main())


def test_an_answer_that_was_cut_short_is_what_there_is() -> None:
    """Of an answer that ends at its limit of tokens the words are the turn's, and a tool call that was
    cut in the middle is not run: the model is told, and goes on (V-31)."""

    async def main() -> None:
        async with stage(stream(said("half of", finish="length"))) as at:
            turn = await at.turn()
            assert (turn.status, turn.agent_response) == (TurnStatus.COMPLETED, "half of ")
        half = [*calling(LOOK, NOTE, size=3, ended=False)[:-2], *said("", finish="length")]
        async with stage(stream(half), BYE) as at:
            turn = await at.turn()
            looked, noted = turn.tool_calls
            assert (looked.status, noted.status) == (ToolStatus.COMPLETED, ToolStatus.REJECTED)
            assert at.shop.begun == ["look bolt"]
            assert "not valid JSON" in at.results(1)[1]

    run(main())


def test_what_a_turn_used_is_counted_and_priced() -> None:
    """A turn's tokens and cost are those of all its answers, those that broke off included, by the
    prices of the server's model; and money has a limit (S2-57, V-37)."""

    async def main() -> None:
        usage = {"prompt_tokens": 1_000, "completion_tokens": 100}
        prices = {"small": {"from": "2020-01-01", "input": 3, "output": 10}}
        first = [*calling(LOOK)[:-1], *said("", usage=usage)[-2:]]
        last = said("bye", usage=usage)
        async with stage(stream(first), stream(last), prices=prices) as at:
            turn = await at.turn()
            assert turn.tokens == Tokens(2_000, 200)
            assert turn.cost_usd == pytest.approx(2 * (0.003 + 0.001))
        broken = [event for event in last if event != DONE]
        broken = [*broken[:1], *broken[2:]]  # it does not say that this was all
        async with stage(*[stream(broken)] * 4, stream(last), prices=prices) as at:
            turn = await at.turn()
            assert (turn.agent_response, turn.tokens) == ("bye ", Tokens(5_000, 500))
            assert turn.cost_usd == pytest.approx(5 * (0.003 + 0.001))
        one_is_enough = {"max_turn_usd": 0.004}
        async with stage(stream(first), stream(last), prices=prices, chat=one_is_enough) as at:
            error = await at.failure()
            assert isinstance(error, BudgetExceededError)
            assert (error.budget, len(at.server.requests)) == ("max_turn_usd", 1)

    run(main())
