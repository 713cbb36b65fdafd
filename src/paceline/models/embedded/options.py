"""What can be asked of tools, and which of it a question asks. Pure.

A model of 135 million parameters cannot be trusted to name a tool: asked for the right one of 16
commands it is right half of the time. It does know what a text is about. So it is asked for keywords
of the question and of what each tool does, and of both only the chances of the first one are taken:
texts that mean the same have the same next words. (Next words as a sparse representation of a text:
Zhuang et al., "PromptReps", EMNLP 2024. How far two distributions are the same: Bhattacharyya 1943.)
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

import msgspec

from paceline.messages import ToolDefinition

__all__ = [
    "SMALL_TALK",
    "Option",
    "Words",
    "arguments_prompt",
    "arguments_schema",
    "choose",
    "found_in",
    "keywords_prompt",
    "likeness",
    "named",
    "options",
    "parts",
    "roots",
]

Words = Mapping[str, float]
"""The likeliest next words of a text, each with the square root of its chance."""

SMALL_TALK: Final = ("a greeting", "thanks", "a joke", "feelings")
"""What people say that is for no tool."""

_LEAST: Final = 0.4
"""Below this a text is like nothing: of about 40 questions those that were understood were above."""
_MOST_PARTS: Final = 8
_MOST_TEXT: Final = 500
"""Characters that it reads of a text: it has room for 2,048 tokens."""
_PHRASE: Final = re.compile(r"`([^`\n]{1,80})`")
_BETWEEN: Final = re.compile(
    r"[?!;\n]+|\.(?=\s|$)|,?\s+(?:and|then|also|as well as)\s+|,\s+", re.IGNORECASE
)
_WORD: Final = re.compile(r"\w+(?:\.\d+)?")
_KEYWORDS: Final = (
    "Text: how much space is left on the drive?\nKeywords: disk, free, storage\n\n"
    "Text: the person who is logged in\nKeywords: user, name, account\n\n"
    "Text: {}\nKeywords:"
)
_ARGUMENTS: Final = (
    "Tool: remind: Reminds a person of something.\n"
    "Request: remind Ann of the train at 5\n"
    'Arguments: {{"name": "Ann", "about": "the train", "hour": 5}}\n\n'
    "Tool: look_up: Looks a word up.\n"
    "Request: what does paceline mean?\n"
    'Arguments: {{"word": "paceline"}}\n\n'
    "Tool: {}: {}\nRequest: {}\nArguments:"
)


class Option(msgspec.Struct, frozen=True):
    """One thing that can be asked of a tool. `about` says what comes of it; `arguments` are JSON,
    None where they have to be written for each question. `query` is the name of an argument that
    takes the question as it is. `value` is the one text that it gives, if it does."""

    tool: ToolDefinition
    about: str
    arguments: str | None = None
    query: str | None = None
    value: str = ""


def options(tools: Iterable[ToolDefinition]) -> tuple[Option, ...]:
    """All that can be asked of them.

    A tool that needs one text, and says which there are, has an option for each: the `const`s of an
    `anyOf` or `oneOf`, told apart by their `description` (or `title`), an `enum`, `examples`, or
    what stands in backquotes in the tool's description. Others are one option.
    """
    return tuple(option for tool in tools for option in _options(tool))


def parts(question: str) -> tuple[str, ...]:
    """A question in the parts it can be answered in, at most 8: "what kernel is this and how much
    disk is free?" asks two things."""
    found = [part.strip(" \t,") for part in _BETWEEN.split(question)]
    return tuple(dict.fromkeys(part for part in found if part))[:_MOST_PARTS]


def keywords_prompt(text: str, *, asked: bool = False) -> str:
    """What is to be gone on with, to know what a text is about; `asked` for a question."""
    cut = text[:_MOST_TEXT]
    return _KEYWORDS.format(f"{cut}?" if asked else cut)


def arguments_prompt(tool: ToolDefinition, request: str) -> str:
    """What is to be gone on with, to have the arguments of a tool written."""
    return _ARGUMENTS.format(
        tool.name, _line(tool.description)[:_MOST_TEXT], request[: 2 * _MOST_TEXT]
    )


def arguments_schema(tool: ToolDefinition) -> dict[str, object]:
    """The JSON schema of its arguments without those it can do without: a small model makes them
    up."""
    needed = _needed(tool)
    properties = _properties(tool)
    return {
        **tool.parameters,
        "type": "object",
        "properties": {name: properties.get(name, {}) for name in needed},
        "required": needed,
        "additionalProperties": False,
    }


def found_in(arguments: Mapping[str, object], request: str, tool: ToolDefinition) -> bool:
    """Whether the words and numbers of all arguments stand in the request, so that none is made up.
    Those of an `enum`, and yes or no, need not."""
    said = frozenset(_WORD.findall(request.casefold()))
    known = _properties(tool)
    return all(
        "enum" in known.get(name, {}) or _said(value, said) for name, value in arguments.items()
    )


def roots(logarithms: Mapping[str, float]) -> Words:
    """Next words by the logarithms of their chances, as they are compared."""
    return {word: math.exp(logarithm / 2) for word, logarithm in logarithms.items()}


def named(part: str, known: Sequence[Option]) -> Option | None:
    """The option whose very text the part of a question begins with, or has in it where that is more
    than a word: "uname -a, please", "run `uname -a`". The longest, if several are."""
    words = f" {' '.join(part.casefold().replace('`', ' ').split())} "
    found = [
        (len(value), -at, option)
        for at, option in enumerate(known)
        if (value := option.value.casefold())
        and (words.startswith(f" {value} ") or (" " in value and f" {value} " in words))
    ]
    return max(found)[2] if found else None


def likeness(one: Words, other: Words) -> float:
    """How far two texts are about the same: 1.0 if their next words are the same, 0.0 if they have
    none in common."""
    return sum(root * other[word] for word, root in one.items() if word in other)


def choose(asked: Words, known: Sequence[Words], small_talk: Sequence[Words] = ()) -> int | None:
    """The number of the one of `known` that is most like what is asked; None where small talk is
    more like it, or nothing is like it."""
    best = max(range(len(known)), key=lambda n: likeness(asked, known[n]), default=None)
    if best is None:
        return None
    least = max([_LEAST, *(likeness(asked, one) for one in small_talk)])
    return best if likeness(asked, known[best]) >= least else None


def _said(value: object, words: frozenset[str]) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, dict):
        return all(_said(one, words) for one in cast("dict[str, object]", value).values())
    if isinstance(value, list):
        return all(_said(one, words) for one in cast("list[object]", value))
    return words.issuperset(_WORD.findall(str(value).casefold()))


def _options(tool: ToolDefinition) -> list[Option]:
    needed = _needed(tool)
    about = _line(tool.description) or tool.name
    if not needed:
        return [Option(tool, about, "{}")]
    schema = _properties(tool).get(needed[0], {})
    if len(needed) > 1 or schema.get("type", "string") != "string":
        return [Option(tool, about)]
    name = needed[0]
    known = _values(schema)
    if not known and name == "query":
        known = {phrase: phrase for phrase in _PHRASE.findall(tool.description)}
        if not known:
            return [Option(tool, about, query=name)]
    if not known:
        return [Option(tool, about)]
    return [
        Option(tool, said, msgspec.json.encode({name: value}).decode(), value=value)
        for value, said in known.items()
    ]


def _values(schema: Mapping[str, object]) -> dict[str, str]:
    """Texts that an argument can be, each with what it stands for."""
    found: dict[str, str] = {}
    for choice in (*_list(schema, "anyOf"), *_list(schema, "oneOf")):
        if isinstance(choice, dict):
            one = cast("dict[str, object]", choice)
            value = one.get("const")
            if isinstance(value, str):
                found[value] = str(one.get("description") or one.get("title") or value)
    if found:
        return found
    return {
        value: value
        for value in _list(schema, "enum") or _list(schema, "examples")
        if isinstance(value, str)
    }


def _needed(tool: ToolDefinition) -> list[str]:
    return [name for name in _list(tool.parameters, "required") if isinstance(name, str)]


def _properties(tool: ToolDefinition) -> Mapping[str, Mapping[str, object]]:
    return cast("Mapping[str, Mapping[str, object]]", tool.parameters.get("properties") or {})


def _list(schema: Mapping[str, object], name: str) -> list[object]:
    found = schema.get(name)
    return cast("list[object]", found) if isinstance(found, list) else []


def _line(text: str) -> str:
    """The first line, in one."""
    return " ".join(text.strip().split("\n\n")[0].split())
