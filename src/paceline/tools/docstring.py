"""What the docstring of a function says of it and of its parameters."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Described", "described"]


class Described(NamedTuple):
    """`text` is all but what is said of parameters, results and errors."""

    text: str
    parameters: Mapping[str, str]


def described(fn: Callable[..., object]) -> Described:
    """Reads Google, numpy and Sphinx style, whichever it is; of what cannot be read it is the first
    paragraph."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    written = (inspect.getdoc(fn) if hasattr(fn, "__name__") else inspect.getdoc(type(fn))) or ""
    if not written.strip():
        return Described("", {})
    # Imported at first use: most of what imports tools makes none.
    from docstring_parser import ParseError, parse  # noqa: PLC0415

    try:
        read = parse(written)
    except ParseError:
        return Described(" ".join(written.strip().split("\n\n")[0].split()), {})
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in read.params}
    parts = [part.strip() for part in (read.short_description, read.long_description) if part]
    return Described("\n\n".join(parts), {name: text for name, text in texts.items() if text})
