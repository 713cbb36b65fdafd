"""Models recorded and played again."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from paceline.errors import CorruptStoreError, InvalidInputError, OverloadedError, StorageError
from paceline.messages import (
    AssistantMessage,
    ModelReply,
    ModelRequest,
    Part,
    Restarted,
    TextPart,
    ToolMessage,
    ToolUse,
    UsePart,
    UserMessage,
)
from paceline.models.replay import Recording, ReplayModel
from paceline.models.scripted import ScriptedModel
from paceline.redaction import Redactor, Secret
from paceline.testing.virtual_time import VirtualClock, run

SECRET = "correct-horse-battery"
REDACTOR = Redactor([Secret(SECRET)])
HELLO = ModelRequest((UserMessage("Hello"),), temperature=0.0)
USE = ToolUse("c1", "weather", '{"city": "Oslo"}')


def nobody(_: Part) -> None:
    """Hears nothing."""


class Timed:
    """A model that takes its time: each part comes a second after the one before, and the end two."""

    name = "timed"

    def __init__(self, reply: ModelReply, parts: list[Part], *, second: float = 1.0) -> None:
        self.reply, self.parts, self.second = reply, parts, second

    async def complete(self, request: ModelRequest, hear: object) -> ModelReply:
        assert callable(hear)
        for part in self.parts:
            await asyncio.sleep(self.second)
            hear(part)
        await asyncio.sleep(2 * self.second)
        return self.reply


async def recorded(path: Path, *replies: ModelReply, request: ModelRequest = HELLO) -> None:
    """Records these answers to one request."""
    recording = Recording(ScriptedModel(replies), path, clock=VirtualClock(), redactor=REDACTOR)
    for _ in replies:
        await recording.complete(request, nobody)


async def test_a_replay_is_the_answer_as_it_came(tmp_path: Path) -> None:
    """What was heard while it was recorded is heard again, part by part, and so is the whole reply
    (S2-41)."""
    reply = ModelReply("Let me look.", (USE,), finish="tools", model="small-1")
    path = tmp_path / "said.jsonl"
    first: list[Part] = []
    recording = Recording(ScriptedModel([reply]), path, clock=VirtualClock())
    assert await recording.complete(HELLO, first.append) == reply
    second: list[Part] = []
    model = ReplayModel(path)
    assert model.name == recording.name == "scripted"
    assert await model.complete(HELLO, second.append) == reply
    assert second == first == [*map(TextPart, ("Let ", "me ", "look.")), UsePart(USE)]


@pytest.mark.parametrize("pace", [0.0, 1.0, 0.5])
def test_a_replay_takes_as_long_as_is_wanted(tmp_path: Path, pace: float) -> None:
    """Parts come as far apart as they did, times the pace, and so does the end (S2-41)."""
    path = tmp_path / "said.jsonl"

    async def main() -> list[float]:
        clock, at_s = VirtualClock(), list[float]()
        model = Timed(ModelReply("ab"), [TextPart("a"), TextPart("b")])
        await Recording(model, path, clock=clock).complete(HELLO, nobody)
        began_ns = clock.monotonic_ns()

        def hear(_: Part) -> None:
            at_s.append((clock.monotonic_ns() - began_ns) / 1e9)

        await ReplayModel(path, pace=pace).complete(HELLO, hear)
        hear(TextPart(""))
        return at_s

    assert run(main()) == pytest.approx([pace, 2 * pace, 4 * pace])


async def test_the_same_request_gets_its_answers_in_order(tmp_path: Path) -> None:
    """Answers to one request come in the order in which they were recorded, and then the last again
    (S2-41)."""
    path = tmp_path / "said.jsonl"
    await recorded(path, ModelReply("one"), ModelReply("two"))
    model = ReplayModel(path)
    texts = [(await model.complete(HELLO, nobody)).text for _ in range(3)]
    assert texts == ["one", "two", "two"]


async def test_an_unknown_request_names_the_nearest(tmp_path: Path) -> None:
    """A request that was not recorded is an error that says which line is nearest, and where that
    differs (S2-41)."""
    path = tmp_path / "said.jsonl"
    before = (UserMessage("Weather?"), AssistantMessage("Where?"))
    await recorded(path, ModelReply("x"), request=ModelRequest((*before, UserMessage("In Rome"))))
    await recorded(path, ModelReply("y"), request=ModelRequest((*before, UserMessage("In Oslo"))))
    await recorded(path, ModelReply("z"))
    model = ReplayModel(path)
    for request, said in (
        (ModelRequest((*before, UserMessage("In Osla"))), "line 2.*message 3 is user 'In Oslo'"),
        (ModelRequest(before), "line 1.*message 3 is user 'In Rome' and not missing"),
        (ModelRequest((UserMessage("Hello"),), temperature=0.5), "line 3.*another temperature"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            await model.complete(request, nobody)


async def test_an_empty_recording_answers_nothing(tmp_path: Path) -> None:
    """A recording without an answer says so."""
    (tmp_path / "said.jsonl").touch()
    with pytest.raises(InvalidInputError, match="no other"):
        await ReplayModel(tmp_path / "said.jsonl").complete(HELLO, nobody)


async def test_no_secret_is_recorded(tmp_path: Path) -> None:
    """No secret is in the file, be it in a message, in the arguments of a tool, in the answer, or cut
    in two by the stream; and the request is found again without it (S2-41)."""
    path = tmp_path / "said.jsonl"
    use = ToolUse("c1", "login", json.dumps({"password": "hunter2", "say": SECRET, "n": 1}))
    asked = ModelRequest(
        (
            UserMessage(f"I am {SECRET} password=hunter2"),
            AssistantMessage("", (use,)),
            ToolMessage("c1", "login", f"token: {SECRET}"),
        )
    )
    half = len(SECRET) // 2
    parts: list[Part] = [
        TextPart(f"You are {SECRET[:half]}"),
        TextPart(f"{SECRET[half:]}."),
        UsePart(use),
        TextPart(" Bye."),
    ]
    reply = ModelReply(f"You are {SECRET}. Bye.", (use,))
    model = Timed(reply, parts, second=0)
    recording = Recording(model, path, clock=VirtualClock(), redactor=REDACTOR)
    assert await recording.complete(asked, nobody) == reply
    text = path.read_text()
    for secret in (SECRET, "hunter2", SECRET[:half], SECRET[half:]):
        assert secret not in text
    told = json.loads(text)["request"]["messages"][1]["uses"][0]["arguments"]
    assert told["n"] == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    heard: list[Part] = []
    got = await ReplayModel(path, redactor=REDACTOR).complete(asked, heard.append)
    assert got.text == "".join(p.text for p in heard if isinstance(p, TextPart))
    assert got.text == "You are [redacted]. Bye."
    assert json.loads(got.uses[0].arguments)["n"] == 1
    assert [part for part in heard if isinstance(part, UsePart)] == [UsePart(got.uses[0])]


async def test_errors_are_raised_and_not_recorded(tmp_path: Path) -> None:
    """What the model raises goes on to who asked, and nothing is written (S2-41)."""
    path = tmp_path / "said.jsonl"
    recording = Recording(ScriptedModel([OverloadedError("busy")]), path, clock=VirtualClock())
    with pytest.raises(OverloadedError):
        await recording.complete(HELLO, nobody)
    assert not path.exists()


async def test_a_recording_listens_to_what_it_records_only(tmp_path: Path) -> None:
    """A part that is neither text nor a tool use is handed on and not recorded."""
    heard: list[Part] = []
    model = Timed(ModelReply("a"), [Restarted(), TextPart("a")], second=0)
    await Recording(model, tmp_path / "x", clock=VirtualClock()).complete(HELLO, heard.append)
    assert heard == [Restarted(), TextPart("a")]
    again: list[Part] = []
    await ReplayModel(tmp_path / "x").complete(HELLO, again.append)
    assert again == [TextPart("a")]


async def test_files_that_cannot_be_used_are_typed_errors(tmp_path: Path) -> None:
    """A file that is not there, cannot be written, is damaged or of another version is an error that
    says which, and in which line (S2-41)."""
    with pytest.raises(StorageError):
        ReplayModel(tmp_path / "none")
    with pytest.raises(StorageError):
        await recorded(tmp_path, ModelReply("x"))
    path = tmp_path / "said.jsonl"
    await recorded(path, ModelReply("x"))
    good = path.read_text()
    for bad in ("{", '{"v": 1}', "\xff", good.replace('"v":1', '"v":2').strip()):
        path.write_text(f"{good}{bad}\n", encoding="latin-1")
        with pytest.raises(CorruptStoreError, match="line 2"):
            ReplayModel(path)
