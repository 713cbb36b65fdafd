"""Where state lives: one directory, and the names of the files in it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from paceline.errors import ConfigError

__all__ = ["Home"]


def _user_state() -> Path:
    import platformdirs  # noqa: PLC0415 (few starts get this far)

    try:
        return platformdirs.user_state_path("paceline", appauthor=False)
    except RuntimeError as exc:  # a user id that the system does not know
        raise ConfigError(
            "this user has no home directory to keep state in",
            next_step="Set PACELINE_HOME to a directory that can be written.",
        ) from exc


@final
class Home:
    """The state directory of one project or user, and what is where in it."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def locate(
        cls,
        environ: Mapping[str, str],
        cwd: Path,
        *,
        user_state: Callable[[], Path] = _user_state,
    ) -> "Home":
        """`$PACELINE_HOME`, else `./.paceline` where that exists, else the user's state directory
        as the platform has it (`user_state`).

        A relative path starts at `cwd`, one that begins with `~` at `$HOME`. Raises ConfigError
        when the user has no directory to keep state in.
        """
        if chosen := environ.get("PACELINE_HOME"):
            path = Path(chosen)
            if path.parts[:1] == ("~",) and "HOME" in environ:
                path = Path(environ["HOME"], *path.parts[1:])
            return cls(cwd / path)
        if (cwd / ".paceline").is_dir():
            return cls(cwd / ".paceline")
        return cls(user_state())

    @property
    def cache(self) -> Path:
        """The warm tier."""
        return self.path / "cache.db"

    @property
    def generations(self) -> Path:
        """Generations of tags, shared by all processes of this home."""
        return self.path / "generations"

    @property
    def leases(self) -> Path:
        """Locks of results that are being computed, shared by all processes of this home."""
        return self.path / "leases"

    @property
    def history(self) -> Path:
        """The record of every call."""
        return self.path / "history.db"

    @property
    def audit(self) -> Path:
        """The audit log of host commands."""
        return self.path / "audit.jsonl"

    @property
    def token(self) -> Path:
        """The token of the host command service."""
        return self.path / "token"

    @property
    def roster(self) -> Path:
        """How instances stand, and what operators want of them."""
        return self.path / "instances.sqlite"

    @property
    def sessions(self) -> Path:
        """The journals of sessions, from which they can be gone on with."""
        return self.path / "sessions.db"

    @property
    def predictions(self) -> Path:
        """What was learnt of sessions, to predict their next calls."""
        return self.path / "predictions"

    @property
    def typed(self) -> Path:
        """What was typed to `paceline chat`, to be had again."""
        return self.path / "typed.jsonl"

    @property
    def reload_stamp(self) -> Path:
        """Touched by `paceline reload`; running processes watch it."""
        return self.path / "reload"
