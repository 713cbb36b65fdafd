"""The models there are for sessions, each made and opened when it is first asked for."""

import asyncio
import contextlib
import difflib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from paceline.call import Kind
from paceline.errors import ConfigError
from paceline.sessions.around import Around
from paceline.sessions.asking import Asked
from paceline.sessions.catalogue import Catalogue, Offered
from paceline.sessions.jobs import SessionJobs
from paceline.sessions.models import DirectModel, FleetModel, Sampling
from paceline.settings import ModelSettings

if TYPE_CHECKING:
    from paceline.models.model import Model

__all__ = ["EMBEDDED", "KnownModels"]

EMBEDDED: Final = "embedded"
"""The model that runs here, which is there without any setting."""
_EMBEDDED: Final = ModelSettings(kind="embedded")


@final
class KnownModels:
    """Finds models by name: those that were registered, those of the settings, fleets of servers."""

    def __init__(self, catalogue: Catalogue, around: Around, jobs: SessionJobs) -> None:
        self._catalogue = catalogue
        self._around = around
        self._jobs = jobs
        self._known: dict[str, tuple[object, Asked]] = {}
        self._brought: dict[int, _Brought] = {}
        self._parts = contextlib.AsyncExitStack()
        self._one_at_a_time = asyncio.Lock()

    def names(self) -> list[str]:
        """All there are."""
        fleets = [name for name, spec in self._around.agents().items() if spec.kind is Kind.MODEL]
        registered, settings = self._catalogue.models, self._around.settings.models
        return sorted({EMBEDDED, *registered, *settings, *fleets})

    def default(self) -> str:
        """The model of a session that names none: that of the settings, else the only one there is.

        Raises ConfigError where there are several.
        """
        if chosen := self._around.settings.chat.model:
            return chosen
        names = [name for name in self.names() if name != EMBEDDED]
        if len(names) > 1:
            raise ConfigError(
                f"there are several models ({', '.join(names)}), and none is the default one",
                next_step="Name one, or set model in [chat].",
            )
        return names[0] if names else EMBEDDED

    def fallback(self, name: str) -> tuple[str, ...]:
        """The models that are asked in turn when this one cannot answer."""
        offered = self._catalogue.models.get(name)
        if offered is not None:
            return offered.fallback
        settings = self._around.settings.models.get(name)
        return () if settings is None else settings.fallback

    async def get(self, name: str) -> Asked:
        """The model of this name, made and opened if it is not yet. Raises ConfigError for one that
        is not there, and PacelineError for one that cannot be used."""
        async with self._one_at_a_time:
            offered = self._catalogue.models.get(name)
            source = self._source(name)
            known = self._known.get(name)
            if known is None or known[0] is not source:
                asked = (
                    self._fleet(name)
                    if offered is None
                    else await self._direct(name, offered, self._parts)
                )
                known = self._known[name] = source, asked or await self._made(name)
            return known[1]

    async def borrow(self, model: "Model") -> Asked:
        """A model that was not registered, opened until each session that asked for it has given it
        back. It shares no answers with others of its name."""
        async with self._one_at_a_time:
            kept = self._brought.get(id(model))
            if kept is None:
                async with contextlib.AsyncExitStack() as parts:
                    offered, version = Offered(model), secrets.token_hex(8)
                    asked = await self._direct(model.name, offered, parts, version=version)
                    kept = self._brought[id(model)] = _Brought(asked, parts.pop_all())
            kept.sessions += 1
            return kept.asked

    async def give_back(self, model: "Model") -> None:
        """One session less asks it; without any it is closed."""
        async with self._one_at_a_time:
            kept = self._brought[id(model)]
            kept.sessions -= 1
            if not kept.sessions:
                del self._brought[id(model)]
                await kept.parts.aclose()

    async def close(self) -> None:
        """Closes all of them."""
        await self._parts.aclose()

    def _source(self, name: str) -> object:
        """What a model is made of: another one is another model."""
        offered = self._catalogue.models.get(name)
        return offered or self._around.agents().get(name) or self._settings(name)

    def _settings(self, name: str) -> ModelSettings | None:
        return self._around.settings.models.get(name, _EMBEDDED if name == EMBEDDED else None)

    def _fleet(self, name: str) -> Asked | None:
        spec = self._around.agents().get(name)
        if spec is None or spec.kind is not Kind.MODEL:
            return None
        settings = self._around.settings.models.get(name, ModelSettings())
        return FleetModel(name, _sampling(settings), lambda: self._around.agent_job(spec))

    async def _made(self, name: str) -> Asked:
        settings = self._settings(name)
        if settings is None or settings.kind in {"", "openai"}:
            raise self._unknown(name)
        offered = Offered(
            self._model(name, settings),
            _sampling(settings),
            settings.max_concurrency,
            free=settings.kind == EMBEDDED,
        )
        return await self._direct(name, offered, self._parts)

    async def _direct(
        self, name: str, offered: Offered, parts: contextlib.AsyncExitStack, *, version: str = ""
    ) -> Asked:
        """The model as it is asked; `parts` are what it is closed with."""
        model = offered.model
        if isinstance(model, contextlib.AbstractAsyncContextManager):
            await parts.enter_async_context(model)
        return DirectModel(
            name,
            model,
            offered.sampling,
            version=version,
            free=offered.free,
            gate=self._around.gate(f"model {name}", offered.max_concurrency),
            circuit=self._jobs.circuit(f"model {name}"),
        )

    def _model(self, name: str, settings: ModelSettings) -> "Model":
        """Each kind loads what it needs only if it is wanted."""
        if settings.kind == "embedded":
            from paceline.models.embedded import EmbeddedModel  # noqa: PLC0415

            return EmbeddedModel(Path(settings.model) if settings.model else None)
        if settings.kind == "replay":
            from paceline.models.replay import ReplayModel  # noqa: PLC0415

            return ReplayModel(Path(_given(name, settings, "path")))
        from paceline.models.pydantic_ai import PydanticAIModel  # noqa: PLC0415

        return PydanticAIModel(_given(name, settings, "model"))

    def _unknown(self, name: str) -> ConfigError:
        names = self.names()
        near = difflib.get_close_matches(name, names, 1)
        meant = f"Did you mean {near[0]}? " if near else ""
        return ConfigError(
            f"there is no model {name!r}",
            next_step=f"{meant}There are: {', '.join(names)}. Add others in [models].",
        )


@final
class _Brought:
    """A model that sessions brought along, and how many of them ask it."""

    __slots__ = ("asked", "parts", "sessions")

    def __init__(self, asked: Asked, parts: contextlib.AsyncExitStack) -> None:
        self.asked = asked
        self.parts = parts
        self.sessions = 0


def _sampling(settings: ModelSettings) -> Sampling:
    return Sampling(
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
        cache=settings.cache,
        cache_ttl_s=settings.cache_ttl_s,
        timeout_s=settings.timeout_s,
    )


def _given(name: str, settings: ModelSettings, key: str) -> str:
    value: str = getattr(settings, key)
    if not value:
        raise ConfigError(
            f"models.{name} is of kind {settings.kind}, and has no {key}",
            next_step=f"Add {key} = ... to [models.{name}].",
        )
    return value
