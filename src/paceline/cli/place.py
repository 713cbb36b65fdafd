"""Where the command line works: settings, state, agents."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from paceline.config import Given, given, load
from paceline.errors import ConfigError
from paceline.home import Home
from paceline.settings import AgentSettings, Settings

if TYPE_CHECKING:
    from paceline.runtime import Runtime

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

    def given(self) -> dict[str, Given]:
        """The settings that are not left at their defaults. Raises ConfigError."""
        return given(file=self.config, environ=self.environ)

    def runtime(
        self, settings: Settings, dirs: Sequence[Path] | None, *, persist: bool = True
    ) -> "Runtime":
        """A runtime with the agents of these directories, else of the settings, not open yet. Raises
        ConfigError for a directory that is none."""
        from paceline.runtime import Runtime  # noqa: PLC0415 (many commands need none)

        return Runtime(
            settings,
            agents=self.agent_dirs(settings, dirs),
            home=self.home.path,
            persist=persist,
            config=self.config,
            environ=self.environ,
        )

    def agent_dirs(self, settings: Settings, chosen: Sequence[Path] | None) -> list[Path]:
        """The directories of agent modules. Raises ConfigError for one that was chosen, here or in
        the settings, and is none."""
        for directory in chosen or ():
            if not directory.is_dir():
                raise ConfigError(
                    f"--agents {directory} is not a directory", next_step="Name one that exists."
                )
        if chosen:
            return list(chosen)
        directory = Path(settings.agents.dir)
        if settings.agents.dir != AgentSettings().dir and not directory.is_dir():
            raise ConfigError(
                f"agents.dir = {settings.agents.dir!r} is not a directory",
                next_step="Correct the setting, or make the directory.",
            )
        return [directory]
