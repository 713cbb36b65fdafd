"""Where the command line works: settings, state, agents."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from paceline.config import Settings, load
from paceline.errors import ConfigError
from paceline.home import Home

__all__ = ["Place"]


@final
class Place:
    """What a command needs to know of where it was started.

    Settings come from `config`, else `$PACELINE_CONFIG`, else `./paceline.toml` where that
    exists; then from the environment.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        cwd: Path,
        *,
        config: Path | None = None,
        home: Path | None = None,
    ) -> None:
        self.environ = environ
        self.cwd = cwd
        self.home = Home(home.absolute()) if home else Home.locate(environ, cwd)
        self.config = config or self._config()

    def _config(self) -> Path | None:
        if named := self.environ.get("PACELINE_CONFIG"):
            return Path(named)
        local = self.cwd / "paceline.toml"
        return local if local.exists() else None

    def settings(self, overrides: Mapping[str, Mapping[str, object]] | None = None) -> Settings:
        """All settings, with `overrides` as {section: {key: value}}. Raises ConfigError."""
        return load(file=self.config, environ=self.environ, overrides=overrides)

    def agent_dirs(self, settings: Settings, chosen: Sequence[Path] | None) -> list[Path]:
        """The directories of agent modules. Raises ConfigError for a chosen one that is none."""
        for directory in chosen or ():
            if not directory.is_dir():
                raise ConfigError(
                    f"--agents {directory} is not a directory", next_step="Name one that exists."
                )
        return list(chosen) if chosen else [Path(settings.agents.dir)]
