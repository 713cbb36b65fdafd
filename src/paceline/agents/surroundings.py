"""What importing a module did to the process beyond defining the module."""

import asyncio
import builtins
import io
import json
import logging
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Final, final

__all__ = ["AGENT_MODULES", "Surroundings"]

_EXECUTOR: Final = "asyncio_"
"""How the threads of an event loop's executor are called."""

AGENT_MODULES: Final = "paceline_agent_"
"""How the names of agents' own modules begin; versions that end meanwhile free theirs."""

_WATCHED: Final = (
    asyncio,
    builtins,
    io,
    json,
    logging,
    os,
    pathlib,
    random,
    re,
    socket,
    subprocess,
    tempfile,
    threading,
    time,
)
"""Modules that everything else in the process relies on."""


@final
class Surroundings:
    """The state of the process at one moment, to be compared with a later one.

    What other threads do in between cannot be told apart from what the import did.
    """

    __slots__ = ("_cwd", "_functions", "_loaded", "_search", "_threads")

    def __init__(self) -> None:
        self._cwd = _cwd()
        self._threads = frozenset(threading.enumerate())
        self._search = list(sys.path)
        self._loaded = {
            name: module
            for name, module in sys.modules.copy().items()
            if not name.startswith(AGENT_MODULES)
        }
        self._functions = [
            (
                module,
                [(name, value) for name, value in vars(module).copy().items() if callable(value)],
            )
            for module in _WATCHED
        ]

    def changes(self) -> Iterator[str]:
        """What is different now, in words."""
        if _cwd() != self._cwd:
            yield "importing it changed the working directory of the process"
        # Those of an event loop's executor are started by whatever else goes on.
        if started := sorted(
            thread.name
            for thread in threading.enumerate()
            if thread not in self._threads and not thread.name.startswith(_EXECUTOR)
        ):
            yield f"importing it started threads: {', '.join(started)}"
        if sys.path != self._search:
            yield "importing it changed sys.path"
        for name, module in self._loaded.items():
            if name in sys.modules and sys.modules[name] is not module:
                yield f"importing it replaced the module {name}"
        for module, functions in self._functions:
            for key, value in functions:
                if getattr(module, key, None) is not value:
                    yield f"importing it replaced {module.__name__}.{key} for the whole process"


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 (compared, not used)
    except FileNotFoundError:
        return ""
