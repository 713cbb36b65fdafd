"""Functions that another process can find: by the name of their module and their own."""

import operator
import sys
from collections.abc import Callable
from typing import Any, Final

from paceline.errors import AgentLoadError

__all__ = ["check_importable", "importable"]

_BEHIND: Final = ("", ".run", ".spec.run", ".__wrapped__")
"""Where the function is of what a decorator has put in its place."""
_ADVICE: Final = "Define it with `def` at the top level of a module that can be imported."


def check_importable(where: str, fn: Callable[..., object]) -> None:
    """Raises AgentLoadError for a function that no other process can import: a lambda, one inside
    another function, of an instance, or of the program itself."""
    module = str(getattr(fn, "__module__", None) or "")
    name = str(getattr(fn, "__qualname__", ""))
    if module == "__main__":
        raise AgentLoadError(
            f"{where} is part of the program itself, which another process does not import",
            next_step="Move the function to a module of its own, and import it.",
        )
    if not module or not all(part.isidentifier() for part in name.split(".")):
        raise AgentLoadError(
            f"{where} runs in a process of its own, which cannot find {name or fn!r}",
            next_step=_ADVICE,
        )


def importable(where: str, fn: Callable[..., object]) -> str:
    """The function as "module:name", where it is found once its module is imported.

    Raises AgentLoadError where something else is there.
    """
    check_importable(where, fn)
    module = sys.modules.get(fn.__module__)
    for behind in _BEHIND:
        name = f"{fn.__qualname__}{behind}"
        try:
            found: Any = operator.attrgetter(name)(module)
        except AttributeError:
            continue
        if found == fn:
            return f"{fn.__module__}:{name}"
    raise AgentLoadError(
        f"{where} runs in a process of its own, which finds something else as"
        f" {fn.__module__}.{fn.__qualname__}",
        next_step=_ADVICE,
    )
