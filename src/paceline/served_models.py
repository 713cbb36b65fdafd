"""Models behind servers, which are fleets of one instance."""

from typing import Final

from msgspec.structs import replace

from paceline.errors import ConfigError
from paceline.session_settings import ModelSettings
from paceline.settings import FleetSettings, InstanceSettings, Settings

__all__ = ["with_served_models"]

_SERVED: Final = "openai"
_NEEDED: Final = ("url", "model")
_TIMEOUT_S: Final = 120.0


def with_served_models(settings: Settings) -> Settings:
    """The settings with a fleet of one instance for each model of kind openai. Raises ConfigError for
    one that says too little, or has the name of another fleet."""
    served = {
        name: _fleet(name, model)
        for name, model in settings.models.items()
        if model.kind == _SERVED
    }
    for name, fleet in served.items():
        if settings.fleets.get(name, fleet) != fleet:
            raise ConfigError(
                f"models.{name} is a server, and there is a fleet {name} too",
                next_step=f"Move its url and model into [[fleets.{name}.instances]].",
            )
    return replace(settings, fleets={**settings.fleets, **served}) if served else settings


def _fleet(name: str, model: ModelSettings) -> FleetSettings:
    for key in _NEEDED:
        if not getattr(model, key):
            raise ConfigError(
                f"models.{name} is of kind {_SERVED}, and has no {key}",
                next_step=f"Add {key} = ... to [models.{name}].",
            )
    return FleetSettings(
        instances=(
            InstanceSettings(
                kind=_SERVED,
                id=name,
                url=model.url,
                model=model.model,
                token_env=model.token_env,
                capacity=model.max_concurrency,
            ),
        ),
        description=f"The model {model.model}.",
        timeout_s=model.timeout_s or _TIMEOUT_S,
    )
