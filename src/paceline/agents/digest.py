"""A digest of the code an object is made of, so that results of other code are not found."""

import functools
import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final, cast

__all__ = ["DIGEST_CHARS", "bytes_digest", "code_digest"]

DIGEST_CHARS: Final = 16


def bytes_digest(*parts: bytes) -> str:
    """Of these parts in this order; ("a", "bc") and ("ab", "c") differ."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.hexdigest()[:DIGEST_CHARS]


def code_digest(obj: object) -> str:
    """Of the file a function, module or an object's class is written in.

    So it also changes with whatever else is in that file. Code that was typed in, and is in no
    file, is taken by itself; of objects that are not Python code only the name counts.
    """
    while isinstance(obj, functools.partial):
        obj = cast("functools.partial[object]", obj).func
    code: Any = inspect.unwrap(obj) if callable(obj) else obj
    if not isinstance(code, ModuleType) and not hasattr(code, "__code__"):
        code = cast("object", type(code))
    name = str(getattr(code, "__qualname__", getattr(code, "__name__", "")))
    compiled = getattr(code, "__code__", None)
    parts = (
        _file(code) or tuple(_code(compiled)) or (str(getattr(code, "__module__", "")).encode(),)
    )
    return bytes_digest(name.encode(), *parts)


def _file(code: Any) -> tuple[bytes, ...]:
    try:
        file = inspect.getsourcefile(code)
        return (Path(file).read_bytes(),) if file is not None else ()
    except (OSError, TypeError):
        return ()


def _code(code: object) -> Iterator[bytes]:
    if not isinstance(code, CodeType):
        return
    yield code.co_code
    yield repr((code.co_names, code.co_varnames)).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(constant).encode()
