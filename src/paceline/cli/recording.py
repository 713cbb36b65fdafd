"""Whether calls can be recorded here: what tells a history that is empty from one that cannot be
written."""

import os
from tempfile import TemporaryFile
from typing import Final

from paceline.cli.output import note
from paceline.cli.place import Place
from paceline.disk_space import storage_error
from paceline.errors import StorageError
from paceline.home import Home

__all__ = ["empty_history", "unwritable", "warn_of_gaps"]

_ROOM: Final = 256 * 1024
"""Bytes that a new history needs, with the files beside it."""


def unwritable(home: Home) -> StorageError | None:
    """Why nothing can be kept in the state directory, or be made where it is to be; None if it can.
    Tried with a file that has no name and is gone at once: permissions do not tell."""
    existing = next(p for p in (home.path, *home.path.parents) if os.path.lexists(p))
    try:
        with TemporaryFile(dir=existing) as trial:
            trial.write(bytes(_ROOM))
    except OSError as exc:
        step = f"Make {existing} writable, or set PACELINE_HOME to a directory of your own."
        said = f"{home.path} cannot be written: {_why(exc)}"
        return storage_error(said, exc, home.path, next_step=step)
    return None


def empty_history(place: Place) -> str:
    """What to say of a history without any call. Raises StorageError where none can be recorded."""
    if not place.settings().history.enabled:
        return "calls are not recorded: history.enabled is false in the settings"
    trouble = unwritable(place.home)
    if trouble is not None:
        raise trouble
    return "no calls yet; make one with `paceline run`"


def warn_of_gaps(place: Place) -> None:
    """Notes that the calls of now are not among those that are shown, where that is so."""
    trouble = unwritable(place.home)
    if trouble is not None:
        note(f"note: calls are not recorded now: {trouble}. {trouble.next_step}")


def _why(exc: OSError) -> str:
    return exc.strerror or type(exc).__name__
