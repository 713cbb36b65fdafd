"""Sessions opened and closed in a runtime: whose they are, what they find, what they leave."""

import asyncio
import contextlib
import gc
import logging
import tracemalloc
from pathlib import Path
from typing import Any, Self

import pytest

from paceline import Runtime
from paceline.call import Caller, current_call
from paceline.engine.states import AgentState, ResourceLimits, TurnStatus
from paceline.errors import (
    AgentError,
    AgentLoadError,
    CallCancelledError,
    Category,
    ConfigError,
    InvalidInputError,
    PacelineError,
    RuntimeClosedError,
    StorageError,
    UsageError,
)
from paceline.messages import Hear, ModelReply, ModelRequest, UserMessage
from paceline.session_settings import ModelSettings
from paceline.testing.virtual_time import VirtualClock, run
from paceline.tools.function import function_tool
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks, seen


async def spoken(runtime: Runtime, session_id: str, *texts: str, **options: Any) -> Said:
    """A session in which this was said; the model that was asked."""
    model = Said(BYE)
    async with runtime.session(session_id, model=model, **options) as session:
        for text in texts:
            await session.send(text)
    return model


def heard(model: Said) -> list[str]:
    """What the user said, as the model was told last."""
    return [one.text for one in model.requests[-1].messages if isinstance(one, UserMessage)]


def test_a_session_is_gone_on_with(tmp_path: Path) -> None:
    """A session that was kept goes on with what was said, in another runtime over the same home; each
    turn has an id of its own (S2-42, S2-45)."""

    async def main() -> None:
        async with a_runtime(tmp_path) as runtime:
            await spoken(runtime, "s1", "one", "two", user="ada")
        async with a_runtime(tmp_path) as runtime:
            found = seen(runtime)
            assert heard(await spoken(runtime, "s1", "three", user="ada", resume=True)) == [
                "one",
                "two",
                "three",
            ]
            assert [call.id for call, _ in found if call.name == "session"] == ["s1.3"]
            (kept,) = await runtime.sessions.stored(user="ada")
            assert (kept.id, kept.title) == ("s1", "one")

    asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"user": "eve"}, {"user": "ada", "tenant": "x"}], ids=str)
@pytest.mark.parametrize("resume", [False, True])
def test_nobody_hears_what_others_said(
    tmp_path: Path,
    options: dict[str, Any],
    resume: bool,
) -> None:
    """A session of another user is neither gone on with nor read nor written under its id (S2-38,
    S2-42)."""

    async def main() -> None:
        async with a_runtime(tmp_path) as runtime:
            await spoken(runtime, "s1", "my secret", user="ada")
            model = Said(BYE)

            async def listen() -> None:
                async with runtime.session("s1", model=model, resume=resume, **options) as session:
                    assert (session.turns, len(session.conversation.messages())) == ([], 0)
                    await session.send("and?")

            with pytest.raises(UsageError):
                await listen()
            assert model.requests == []
            assert heard(await spoken(runtime, "s1", "me", user="ada", resume=True)) == [
                "my secret",
                "me",
            ]

    asyncio.run(main())


def test_a_new_session_does_not_go_on_with_an_old_one(tmp_path: Path) -> None:
    """A session that is not resumed begins with nothing, and does not write into the journal of one
    that there is (S2-42)."""

    async def main() -> None:
        async with a_runtime(tmp_path) as runtime:
            await spoken(runtime, "s1", "one", user="ada")
            with pytest.raises(UsageError, match="already"):
                await spoken(runtime, "s1", "two", user="ada")
            assert heard(await spoken(runtime, "s1", "two", user="ada", keep=False)) == ["two"]
            assert heard(await spoken(runtime, "s1", "x", user="ada", resume=True)) == ["one", "x"]

    asyncio.run(main())


def test_a_session_goes_on_in_one_runtime(tmp_path: Path) -> None:
    """What is open in one runtime cannot be resumed in another until it is shut down there (S2-42)."""

    async def main() -> None:
        async with a_runtime(tmp_path) as one, a_runtime(tmp_path) as two:
            async with one.session("s1", model=Said(BYE)) as session:
                await session.send("one")
                with pytest.raises(UsageError, match="elsewhere"):
                    await spoken(two, "s1", "two", resume=True)
            assert heard(await spoken(two, "s1", "two", resume=True)) == ["one", "two"]
            assert heard(await spoken(one, "s1", "x", resume=True)) == ["one", "two", "x"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "http://127.0.0.1:1/v1", "token_env": "NOT_SET"}, "NOT_SET is not set"),
        ({"url": "nonsense"}, "nonsense"),
    ],
)
def test_a_server_that_cannot_be_asked_says_why(given: dict[str, str], said: str) -> None:
    """The turn of a model whose settings cannot be used ends at once with what is wrong with them, and
    a fallback is asked in its place (S2-41, S2-54)."""

    async def main() -> None:
        models = {"far": {"kind": "openai", "model": "m", **given}}
        async with a_runtime(models=models) as runtime:
            async with runtime.session(model="far") as session:
                with pytest.raises(ConfigError, match=said) as caught:
                    await session.send("go")
                assert caught.value.next_step in runtime.notices[0]
            runtime.add_model(Said(BYE))
            async with runtime.session(model="far", fallback=["said"]) as session:
                assert (await session.send("go")).agent_response == "bye"

    run(main())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": object()}, "the name of a model"),
        ({"model": Said}, "the name of a model"),
        ({"limits": {}}, "ResourceLimits"),
        ({"tools": "host_exec"}, "a list of names"),
        ({"fallback": ["a", 1]}, "a list of names"),
        ({"approve": "host_exec"}, "a list of names"),
        ({"user": 5}, "a text"),
        ({"session_id": 5}, "a text"),
        ({"keep": "yes"}, "True or False"),
        ({"pipeline": 1}, "a ToolPipeline"),
        ({"modle": "x"}, "Did you mean model?"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    """An option that there is not, or of another type, is refused with what is wanted, before anything
    is opened (S2-25)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            with pytest.raises(InvalidInputError) as caught:
                runtime.session(**options)
            assert said in caught.value.next_step

    run(main())


def test_a_session_is_opened_by_async_with() -> None:
    """A session that is used without `async with` says so (S2-25)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            asked: Any = runtime.session(model=Said(BYE))
            for use in (asked.send, asked.stream):
                with pytest.raises(UsageError, match="not open"):
                    use("go")
            with pytest.raises(UsageError, match="not open"):
                await asked
            with pytest.raises(UsageError, match="not open"), asked:
                pass
            async with asked as session:
                for text in (5, b"go", None):
                    with pytest.raises(InvalidInputError, match="of type"):
                        await session.send(text)
                assert (session.turns, len(session.machine.history)) == ([], 0)

    run(main())


def test_what_cannot_be_registered_is_refused() -> None:
    """What is no model, a tool declared without parentheses, and a word for no effect are refused with
    what is wanted (S2-25, S2-41)."""
    runtime: Any = a_runtime()
    for model in (object(), Said, "gpt"):
        with pytest.raises(InvalidInputError, match="a model is wanted"):
            runtime.add_model(model)
    with pytest.raises(UsageError, match="without parentheses"):
        runtime.tool(str.upper)
    with pytest.raises(AgentLoadError) as caught:
        runtime.tool(effect="reed")(asks)
    assert "Did you mean read?" in caught.value.next_step


def test_one_id_is_open_once() -> None:
    """Of several that open a session of one id at the same moment one does; the others are told, and
    leave it as it is, and free when it ends (S2-25)."""

    class SlowToOpen(Said):
        async def __aenter__(self) -> Self:
            await asyncio.sleep(5)
            return await super().__aenter__()

    async def main() -> None:
        async with a_runtime() as runtime:
            model = SlowToOpen(BYE)
            go = asyncio.Event()

            async def opened() -> str:
                async with runtime.session("s", model=model) as session:
                    await go.wait()
                    return (await session.send("go")).agent_response

            tasks = [asyncio.create_task(opened()) for _ in range(3)]
            await asyncio.sleep(10)
            go.set()
            first, *others = await asyncio.gather(*tasks, return_exceptions=True)
            assert first == "bye"
            assert [type(one) for one in others] == [UsageError] * 2
            await spoken(runtime, "s", "again")

    run(main())


@pytest.mark.parametrize("name", ["x" * 201, "a\nb", "\ud800", "\x1b[31m"], ids=ascii)
def test_names_that_cannot_be_are_refused(name: str) -> None:
    """What is too long, or cannot be shown, is no id, user or tenant of a session (S2-38)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            given: list[dict[str, Any]] = [{"session_id": name}, {"user": name}, {"tenant": name}]
            for options in given:
                with pytest.raises(InvalidInputError):
                    await runtime.session(model=Said(BYE), **options).__aenter__()
            assert runtime.sessions._sessions == {}

    run(main())


@pytest.mark.parametrize("name", ["a/b/../c", "x" * 200, "\u00e4 %s '; --"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    """Any other text is one (S2-38, S2-42)."""

    async def main() -> None:
        async with a_runtime(tmp_path) as runtime:
            await spoken(runtime, name, "one", user=name, tenant=name)
            model = await spoken(runtime, name, "two", user=name, tenant=name, resume=True)
            assert heard(model) == ["one", "two"]

    asyncio.run(main())


def test_a_session_without_an_id_gets_one() -> None:
    """No two sessions without an id have the same, an empty one counts as none, and so does a user
    without a name (S2-05, S2-38)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            found = seen(runtime)
            ids: set[str] = set()
            for name in (None, "", None):
                async with runtime.session(name, model=Said(BYE), user="") as session:
                    await session.send("go")
                    ids.add(session.id)
            assert (len(ids), all(ids)) == (3, True)
            assert {call.caller.user for call, _ in found} == {None}

    run(main())


def test_a_session_in_a_call_is_its_callers() -> None:
    """A session that names nobody, in the course of a call, is on behalf of that call's user; one that
    names somebody is on theirs (S2-38)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            found = seen(runtime)

            @runtime.agent(name="outer")
            async def outer(query: str) -> None:
                assert current_call.get() is not None
                await spoken(runtime, "mine", query)
                await spoken(runtime, "other", query, user="bob")

            caller = Caller("ada", "web", "acme")
            (await runtime.run("outer", "go", caller=caller)).unwrap()
            turns = {
                call.caller.session: call.caller for call, _ in found if call.name == "session"
            }
            assert turns == {"mine": Caller("ada", "mine", "acme"), "other": Caller("bob", "other")}

    run(main())


def test_closing_ends_turns() -> None:
    """A runtime that is closed lets turns end within its time, then cancels them, with all they run;
    afterwards there is no session to be had, and no task is left (S2-25, S2-48)."""

    class Slow(Said):
        async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
            await asyncio.sleep(float(request.messages[-1].text))
            return await super().complete(request, hear)

    async def main() -> None:
        before = asyncio.all_tasks()
        runtime = a_runtime(run={"drain_s": 10})
        turns: dict[str, asyncio.Task[Any]] = {}
        sessions: list[Any] = []

        async def use(seconds: str) -> str:
            async with runtime.session(model=Slow(BYE)) as session:
                sessions.append(session)
                return (await session.send(seconds)).agent_response

        async with runtime:
            turns = {name: asyncio.create_task(use(name)) for name in ("5", "500")}
            await asyncio.sleep(1)
        assert await turns["5"] == "bye"
        with pytest.raises(CallCancelledError):
            await turns["500"]
        assert {one.state for one in sessions} == {AgentState.SHUTDOWN}
        assert asyncio.all_tasks() == before
        with pytest.raises(RuntimeClosedError):
            await use("1")

    run(main())


def test_an_error_ends_turns_at_once() -> None:
    """A runtime that is left by an error cancels the turns that run without waiting for them
    (S2-25)."""

    class Slow(Said):
        async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
            await asyncio.sleep(5)
            return await super().complete(request, hear)

    async def main() -> None:
        runtime = a_runtime(run={"drain_s": 10})
        turns: list[asyncio.Task[Any]] = []
        with pytest.raises(ZeroDivisionError):
            await fail(runtime, turns)
        with pytest.raises(CallCancelledError):
            await turns[0]
        assert asyncio.get_running_loop().time() < 4

    async def fail(runtime: Runtime, turns: list[asyncio.Task[Any]]) -> None:
        async with runtime:
            turns.append(asyncio.create_task(use(runtime)))
            await asyncio.sleep(1)
            raise ZeroDivisionError

    async def use(runtime: Runtime) -> None:
        async with runtime.session(model=Slow(BYE)) as session:
            await session.send("go")

    run(main())


def test_a_state_that_lasts_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A session that stays in one state for too long, or fails again and again, is named in the log
    with that state and the seconds; its turn goes on (S2-33, S2-55)."""

    async def main() -> None:
        limited = AgentError("slow down", category=Category.RATE_LIMIT, retry_after_s=1)
        once: dict[str, Any] = {"run": {"max_attempts": 1}, "chat": {"max_execution_s": 2_000}}
        async with a_runtime(**once) as runtime:
            long, wait = Said(asks("wait"), BYE), ResourceLimits(max_execution_s=2_000)
            runtime.tool(timeout_s=1_000)(slow_tool)
            async with runtime.session("long", model=long, tools=["wait"], limits=wait) as session:
                await session.send("go")
            await spoken(runtime, "quick", "go")
            failing = Said(*[limited] * 5, BYE)
            limits = ResourceLimits(max_tool_retries=9)
            async with runtime.session("failing", model=failing, limits=limits) as session:
                for _ in range(2):
                    with contextlib.suppress(PacelineError):
                        await session.send("go")

    async def slow_tool() -> None:
        await asyncio.sleep(400)

    slow_tool.__name__ = "wait"
    with caplog.at_level(logging.WARNING, "paceline"):
        run(main())
    told = [line for line in caplog.messages if line.startswith("the session ")]
    assert told[0] == "the session long is in state executing_tools for 300 seconds"
    assert told[1:] == ["the session failing went into state error 5 times within 60 seconds"]


def test_a_session_that_opens_while_the_runtime_closes() -> None:
    """What is still being opened when the runtime closes is refused then, and leaves nothing open
    (S2-25)."""

    class SlowToOpen(Said):
        async def __aenter__(self) -> Self:
            await asyncio.sleep(5)
            return await super().__aenter__()

    async def main() -> None:
        model = SlowToOpen(BYE)
        async with a_runtime() as runtime:
            opening = asyncio.create_task(spoken_by(runtime, model))
            await asyncio.sleep(1)
        with pytest.raises(RuntimeClosedError):
            await opening
        assert model.open == 0

    async def spoken_by(runtime: Runtime, model: Said) -> None:
        async with runtime.session(model=model) as session:
            await session.send("go")

    run(main())


def test_a_turn_that_cannot_be_kept_ends(tmp_path: Path) -> None:
    """Where the journal cannot be written, no tool that must not run twice is run, the turn ends with
    an error that says what to do, and so does the next; the model is not asked for nothing (S2-42)."""

    async def main() -> None:
        async with a_runtime(tmp_path) as runtime:
            paid: list[str] = []

            async def pay() -> str:
                paid.append("x")
                return "paid"

            runtime.tool(effect="write")(pay)

            class Breaks(Said):
                async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
                    store = runtime.sessions._store
                    assert store is not None
                    store._writer.close()
                    return await super().complete(request, hear)

            model = Breaks(asks("pay"), BYE)
            async with runtime.session(model=model) as session:
                for _ in range(2):
                    with pytest.raises(StorageError, match="cannot be kept") as caught:
                        await session.send("go")
                    assert caught.value.next_step
                    assert session.turns[-1].status is TurnStatus.FAILED
            assert (paid, len(model.requests)) == ([], 1)

    asyncio.run(main())


def test_sessions_that_are_too_old_are_removed(tmp_path: Path) -> None:
    """When sessions are first wanted, those are removed in which nothing happened for as long as the
    history is kept (S2-42, S2-43)."""

    async def main() -> None:
        clock = VirtualClock()
        async with a_runtime(tmp_path, clock=clock) as runtime:
            await spoken(runtime, "old", "one")
            clock.advance(86_000)
            await spoken(runtime, "new", "one")
        clock.advance(86_000)
        history = {"retention_days": 1}
        async with a_runtime(tmp_path, clock=clock, history=history) as runtime:
            assert [one.id for one in await runtime.sessions.stored()] == ["new"]

    asyncio.run(main())


def test_sessions_are_removed_each_hour(tmp_path: Path) -> None:
    """In a runtime that stays open too old sessions are removed each hour, and a file that cannot be
    tidied is told of, and tried again (S2-42, S2-43)."""

    async def main() -> None:
        clock = VirtualClock()
        async with a_runtime(tmp_path, clock=clock, history={"retention_days": 1}) as runtime:
            await spoken(runtime, "old", "one")
            clock.advance(1_000 * 86_400)  # threads do not know the time of the loop
            await spoken(runtime, "new", "one")
            state, store = runtime._parts.state, runtime.sessions._store
            assert store is not None
            await state._do_hourly()
            assert [one.id for one in await runtime.sessions.stored()] == ["new"]
            path, store.path = store.path, tmp_path / "none" / "s.db"
            await state._do_hourly()
            assert "removing what is too old" in runtime.notices[-1]
            store.path = path
            await state._do_hourly()
            assert [len(runtime.notices), len(state._hourly)] == [1, 1]
        assert state._hourly == []
        assert store.prune(0) == 0

    asyncio.run(main())


@pytest.mark.parametrize("options", [{"resume": True}, {"model": "nope"}, {"model": None}], ids=str)
def test_what_cannot_be_opened_says_why(options: dict[str, Any]) -> None:
    """A session to resume where none are kept, a model that is not there, and none where there are
    several are errors that say what to do, and leave nothing open (S2-18)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            for name in ("a", "b"):
                runtime.add_model(Said(BYE, name=name))
            with pytest.raises((UsageError, ConfigError)) as caught:
                async with runtime.session("s", **options):
                    pass
            assert caught.value.next_step
            async with runtime.session("s", model="a") as session:
                await session.send("go")

    run(main())


def test_a_model_of_the_settings_is_made_once() -> None:
    """A model that the settings name, and the embedded one, are made when they are first asked for,
    and not again for each session (S2-18)."""

    async def main() -> None:
        path = __file__  # is not read before it is asked
        async with a_runtime(models={"r": {"kind": "replay", "path": path}}) as runtime:
            known = runtime.sessions._models
            made: list[str] = []
            model = known._model

            def counted(name: str, settings: ModelSettings) -> Any:
                made.append(name)
                return Said(BYE) if name == "embedded" else model(name, settings)

            known._model = counted  # type: ignore[method-assign]
            for _ in range(2):
                for name in ("embedded", "r"):
                    try:
                        await known.get(name)
                    except PacelineError:
                        continue
            assert made.count("embedded") == 1

    run(main())


def test_memory_is_given_back() -> None:
    """A process that takes more than it may has its caches emptied, and the turn goes on (S2-45,
    S2-53)."""

    async def main() -> None:
        async with a_runtime(chat={"max_memory_mb": 1}) as runtime:
            relieved: list[int] = []
            relieve = runtime._parts.state.relieve

            def counted() -> int:
                relieved.append(1)
                return relieve()

            object.__setattr__(runtime.sessions._around, "relieve", counted)
            await spoken(runtime, "s", "go")
            assert relieved

    run(main())


def test_what_was_entered_is_not_entered_again() -> None:
    """One `async with` opens one session, which is shut down once (S2-38)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            opening = runtime.session("s", model=Said(BYE))
            async with opening as session:
                with pytest.raises(UsageError):
                    await opening.__aenter__()
                await session.send("go")
            assert session.state is AgentState.SHUTDOWN
            assert runtime.sessions._sessions == {}
            await opening.__aexit__(None, None, None)
            with pytest.raises(UsageError):
                await opening.__aenter__()

    run(main())


def test_a_session_that_waits_takes_little() -> None:
    """A session that waits in a tool takes at most 17 KiB with all that it consists of (S2-53)."""

    async def main() -> None:
        count, most = 50, {"max_concurrency": 1_000}
        async with a_runtime(run=most, chat={"max_concurrent_tools": 1_000}) as runtime:
            full, go = asyncio.Event(), asyncio.Event()
            waiting: list[None] = []

            async def wait() -> str:
                waiting.append(None)
                if len(waiting) == 1 + count:
                    full.set()
                await go.wait()
                return "ok"

            async def spoken_once() -> None:
                async with runtime.session(model=model, tools=[tool]) as session:
                    await session.send("go")

            class Asks(Said):
                async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
                    return asks("wait") if isinstance(request.messages[-1], UserMessage) else BYE

            tool, model = function_tool(wait), Asks()
            first = asyncio.ensure_future(spoken_once())
            await asyncio.sleep(1)
            gc.collect()
            tracemalloc.start()
            try:
                sessions = [asyncio.ensure_future(spoken_once()) for _ in range(count)]
                await full.wait()
                gc.collect()
                each = tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()
            go.set()
            await asyncio.gather(first, *sessions)
            assert each < 17 * 1024

    run(main())
