"""`paceline bench`: the benchmarks of a checkout.

They are no part of the package: they need the recorded traces, the tests' servers and, for the
libraries we are compared with, an environment of their own.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec

from paceline.cli.place import Place
from paceline.errors import UsageError

__all__ = ["bench", "is_checkout"]


def bench(place: Place, names: Sequence[str], *, quick: bool) -> int:
    """Runs the benchmarks of these names; lists them if there are none.

    They come from the checkout that the command is in, else from the one that this package runs
    from. Raises UsageError where there is neither.
    """
    candidates = [place.cwd, *place.cwd.parents, *Path(__file__).parents[3:4]]
    root = next(filter(is_checkout, candidates), None)
    if root is None:
        raise UsageError(
            "the benchmarks are not part of the installed package",
            next_step="Run the command in a checkout of Paceline's repository.",
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    main = importlib.import_module("bench.__main__").main
    return cast("int", main(list(names), quick=quick))


def is_checkout(directory: Path) -> bool:
    """Whether this is the root of our repository."""
    if not (directory / "bench" / "__main__.py").is_file():
        return False
    try:
        text = (directory / "pyproject.toml").read_text("utf-8")
        return msgspec.toml.decode(text, type=_PyProject).project.name == "paceline"
    except (OSError, ValueError, msgspec.MsgspecError):
        return False


class _Project(msgspec.Struct):
    name: str


class _PyProject(msgspec.Struct):
    project: _Project
