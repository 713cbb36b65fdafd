"""Where state lives: one directory, and the names of the files in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

__all__ = ["Home"]


@final
class Home:
    """The state directory of one project or user, and what is where in it."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def locate(cls, environ: Mapping[str, str], cwd: Path) -> "Home":
        """`$PACELINE_HOME`, else `./.paceline` where that exists, else the user's state directory."""
        if chosen := environ.get("PACELINE_HOME"):
            return cls(Path(chosen).expanduser().absolute())
        if (cwd / ".paceline").is_dir():
            return cls(cwd / ".paceline")
        import platformdirs  # noqa: PLC0415 (only this branch needs it)

        return cls(Path(platformdirs.user_state_dir("paceline", appauthor=False)))

    @property
    def cache(self) -> Path:
        """The warm tier."""
        return self.path / "cache.db"

    @property
    def generations(self) -> Path:
        """Generations of tags, shared by all processes of this home."""
        return self.path / "generations"

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
    def reload_stamp(self) -> Path:
        """Touched by `paceline reload`; running processes watch it."""
        return self.path / "reload"
