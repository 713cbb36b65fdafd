"""Models recorded and played again: the answers of a real model, without it.

A recording is a file of JSON lines, one an answer: what was asked, the parts that came and when. It
holds no secret that the redactor knows, and nothing that looks like one.
"""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final, cast, final

import msgspec

from paceline.clock import Clock
from paceline.disk_space import full
from paceline.errors import Category, CorruptStoreError, InvalidInputError, StorageError
from paceline.messages import Hear, ModelReply, ModelRequest, Part, TextPart, ToolUse, UsePart
from paceline.models.model import Model
from paceline.redaction import Redactor

__all__ = ["Recording", "ReplayModel"]

_VERSION: Final = 1
_NS: Final = 1_000_000_000
_COMPARED: Final = 500
"""Characters of a message of which it is seen how alike it is."""
_SHOWN: Final = 60
_PRIVATE: Final = 0o600


class _Heard(msgspec.Struct, omit_defaults=True):
    """One part, so long after the request."""

    at_ns: int
    text: str = ""
    use: ToolUse | None = None


class _Answer(msgspec.Struct):
    """A line of a recording."""

    v: int
    key: str
    model: str
    request: dict[str, object]
    parts: list[_Heard]
    reply: ModelReply
    total_ns: int


@final
class Recording:
    """Another model, each answer of which is added to a file.

    For tests and demonstrations: writing is waited for. An error of the model is not recorded.
    """

    def __init__(
        self, model: Model, path: Path, *, clock: Clock, redactor: Redactor | None = None
    ) -> None:
        """`redactor` takes the secrets out of what is written; without one only that goes which looks
        like a secret. The file is made when there is something in it, for its owner alone."""
        self._model = model
        self._path = path
        self._clock = clock
        self._redactor = redactor or Redactor()

    @property
    def name(self) -> str:
        """That of the model."""
        return self._model.name

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The model's answer. Raises what that raises, and StorageError if it cannot be written."""
        began_ns = self._clock.monotonic_ns()
        parts: list[_Heard] = []

        def listen(part: Part) -> None:
            at_ns = self._clock.monotonic_ns() - began_ns
            if isinstance(part, TextPart):
                parts.append(_Heard(at_ns, part.text))
            elif isinstance(part, UsePart):
                parts.append(_Heard(at_ns, use=part.use))
            hear(part)

        reply = await self._model.complete(request, listen)
        shown = _shown(request, self._redactor)
        self._add(
            _Answer(
                _VERSION,
                _key(shown),
                self._model.name,
                shown,
                _clean(parts, self._redactor),
                _clean_reply(reply, self._redactor),
                self._clock.monotonic_ns() - began_ns,
            )
        )
        return reply

    def _add(self, answer: _Answer) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self._path, flags, _PRIVATE), "ab") as file:
                file.write(msgspec.json.encode(answer) + b"\n")
        except OSError as exc:
            said = f"{self._path} cannot be written: {exc.strerror or exc}"
            step = "Record to another file."
            if full(exc):
                step = "Free some space there, or record to a file on another disk."
            raise StorageError(
                said, next_step=step, category=Category.EXHAUSTED if full(exc) else None
            ) from exc


@final
class ReplayModel:
    """Answers what was recorded with what was answered then, part by part.

    The same request asked again gets the next answer that was recorded for it; after the last, that.
    """

    def __init__(
        self,
        path: Path,
        *,
        pace: float = 0.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        redactor: Redactor | None = None,
    ) -> None:
        """`pace` is how long a recorded second takes: 1.0 is as it was, 0.0 at once. `redactor` knows
        the secrets that the one of the recording knew: a request is looked for without them.

        Raises StorageError for a file that cannot be read, CorruptStoreError for one that is no
        recording.
        """
        self._path = path
        self._pace = pace
        self._sleep = sleep
        self._redactor = redactor or Redactor()
        self._answers = _read(path)
        self._by_key: dict[str, list[_Answer]] = {}
        for answer in self._answers:
            self._by_key.setdefault(answer.key, []).append(answer)
        self._name = self._answers[0].model if self._answers else "replay"

    @property
    def name(self) -> str:
        """That of the model that was recorded."""
        return self._name

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """What was answered. Raises InvalidInputError for a request that is not in the recording,
        which says how the nearest one differs."""
        shown = _shown(request, self._redactor)
        waiting = self._by_key.get(_key(shown))
        if waiting is None:
            raise self._unknown(shown)
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        before_ns = 0
        for part in answer.parts:
            await self._sleep(self._pace * (part.at_ns - before_ns) / _NS)
            before_ns = part.at_ns
            hear(TextPart(part.text) if part.use is None else UsePart(part.use))
        await self._sleep(self._pace * (answer.total_ns - before_ns) / _NS)
        return answer.reply

    def _unknown(self, shown: dict[str, object]) -> InvalidInputError:
        what = f"{self._path} has no answer to this request"
        if not self._answers:
            return InvalidInputError(f"{what}, and to no other", next_step="Record it first.")
        place, answer = max(
            enumerate(self._answers, 1), key=lambda found: _likeness(found[1].request, shown)
        )
        return InvalidInputError(
            f"{what}; nearest is the one in line {place}, where {_difference(answer.request, shown)}",
            next_step="Record it anew, or ask as it was recorded.",
        )


def _shown(request: ModelRequest, redactor: Redactor) -> dict[str, object]:
    """The request as plain data, without secrets, also in the arguments of tool uses."""
    told = cast("dict[str, object]", msgspec.to_builtins(request))
    messages = cast("list[dict[str, object]]", told["messages"])
    for message in messages:
        for use in cast("list[dict[str, object]]", message.get("uses", ())):
            use["arguments"] = _value(str(use["arguments"]))
    return cast("dict[str, object]", redactor.data(told))


def _key(shown: dict[str, object]) -> str:
    """The same for equal requests. Made without secrets, none can be guessed from it."""
    data = msgspec.json.encode(shown, order="sorted")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _clean(parts: list[_Heard], redactor: Redactor) -> list[_Heard]:
    """The parts without secrets. One that stands in several pieces of the text is only seen in the
    whole, and that takes the place of the first piece then."""
    text = "".join([part.text for part in parts])
    masked = redactor.text(text)
    found: list[_Heard] = []
    for part in parts:
        if part.use is not None:
            found.append(_Heard(part.at_ns, use=_clean_use(part.use, redactor)))
        elif masked == text:
            found.append(part)
        elif not any(other.use is None for other in found):
            found.append(_Heard(part.at_ns, masked))
    return found


def _clean_reply(reply: ModelReply, redactor: Redactor) -> ModelReply:
    return msgspec.structs.replace(
        reply,
        text=redactor.text(reply.text),
        uses=tuple(_clean_use(use, redactor) for use in reply.uses),
    )


def _clean_use(use: ToolUse, redactor: Redactor) -> ToolUse:
    return msgspec.structs.replace(use, arguments=_clean_json(use.arguments, redactor))


def _clean_json(arguments: str, redactor: Redactor) -> str:
    """JSON with nothing masked but values, so that it stays JSON; what is none, as text."""
    told = _value(arguments)
    masked = redactor.data(told)
    if masked == told:
        return arguments
    return masked if isinstance(masked, str) else msgspec.json.encode(masked).decode()


def _value(arguments: str) -> object:
    """What the arguments say: an object, or a text where they are none."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments


def _read(path: Path) -> list[_Answer]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc}", next_step="Record it first.") from exc
    found: list[_Answer] = []
    for place, line in enumerate(lines, 1):
        try:
            answer = msgspec.json.decode(line, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _damaged(path, place, str(exc)) from exc
        if answer.v != _VERSION:
            raise _damaged(path, place, f"version {answer.v}")
        found.append(answer)
    return found


def _damaged(path: Path, place: int, why: str) -> CorruptStoreError:
    return CorruptStoreError(
        f"line {place} of {path} is no recorded answer: {why}", next_step="Record it anew."
    )


def _likeness(recorded: dict[str, object], asked: dict[str, object]) -> tuple[int, float]:
    """How far two conversations are the same, and how alike what comes then is."""
    ours, theirs = _messages(recorded), _messages(asked)
    same = _same(ours, theirs)
    one, other = [
        str(told[same])[:_COMPARED] if same < len(told) else "" for told in (ours, theirs)
    ]
    return same, SequenceMatcher(None, one, other, autojunk=False).ratio()


def _difference(recorded: dict[str, object], asked: dict[str, object]) -> str:
    """Where a recorded request differs first, in words."""
    ours, theirs = _messages(recorded), _messages(asked)
    same = _same(ours, theirs)
    if same < max(len(ours), len(theirs)):
        pair = [_short(told[same]) if same < len(told) else "missing" for told in (ours, theirs)]
        return f"message {same + 1} is {pair[0]} and not {pair[1]}"
    names = [name for name in recorded if recorded[name] != asked.get(name)]
    return f"there is another {' and another '.join(names)}"


def _messages(shown: dict[str, object]) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", shown["messages"])


def _same(ours: list[dict[str, object]], theirs: list[dict[str, object]]) -> int:
    """How many messages they have in common at their beginning."""
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count


def _short(message: dict[str, object]) -> str:
    text = str(message.get("text") or message.get("uses") or "")
    return f"{message.get('role')} {text[:_SHOWN]!r}{'...' if len(text) > _SHOWN else ''}"
