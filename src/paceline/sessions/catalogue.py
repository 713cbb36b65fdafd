"""What sessions can be given: tools and models that were registered, by name."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Unpack, final

import msgspec

from paceline.errors import ConfigError, UsageError
from paceline.sessions.models import Sampling
from paceline.tools.function import ToolOptions, declared_tool
from paceline.tools.spec import ToolSpec

if TYPE_CHECKING:
    from paceline.models.model import Model

__all__ = ["Catalogue", "Offered"]


class Offered(msgspec.Struct, frozen=True):
    """A model that was registered, and how it is asked."""

    model: "Model"
    sampling: Sampling = Sampling()
    max_concurrency: int = 64
    fallback: tuple[str, ...] = ()
    free: bool = False
    """Whether it runs here, and costs nothing."""


@final
class Catalogue:
    """Tools and models; the latest of a name counts."""

    __slots__ = ("_models", "_tools")

    def __init__(self) -> None:
        self._tools: dict[str, ToolSpec] = {}
        self._models: dict[str, Offered] = {}

    @property
    def tools(self) -> Mapping[str, ToolSpec]:
        """The tools, by name."""
        return self._tools

    @property
    def models(self) -> Mapping[str, Offered]:
        """The models, by name."""
        return self._models

    def add_tool(
        self, tool: Callable[..., object] | ToolSpec, **options: Unpack[ToolOptions]
    ) -> ToolSpec:
        """Adds a function, which carries its `options` from now on, or a tool as it is.

        Raises AgentLoadError for a function that cannot be a tool, UsageError for options of what is
        a tool already.
        """
        if isinstance(tool, ToolSpec):
            if options:
                raise UsageError(
                    f"{tool.name} is a tool already, and takes no options",
                    next_step="Give the options where the tool is made.",
                )
            spec = tool
        else:
            spec = declared_tool(tool, **options)
        self._tools[spec.name] = spec
        return spec

    def add_model(self, name: str, offered: Offered) -> None:
        """Adds a model under this name. Raises ConfigError for an empty one."""
        if not name:
            raise ConfigError("a model needs a name", next_step="Give name=.")
        self._models[name] = offered
