"""What discord.py logs, without secrets."""

import contextlib
import logging
import re
from collections.abc import Callable, Generator
from typing import Final, final

from paceline.hostexec.result import visible
from paceline.redaction import MASK, Redactor

__all__ = ["redacted_logs"]

_LOGGERS: Final = ("discord", "paceline.discord")
_TOKEN_IN_ADDRESS: Final = re.compile(r"(/(?:webhooks|interactions)/\d+/)[^/\s'\"?]+")
"""Whoever has one may answer in the name of the bot for a quarter of an hour."""
_OF_NO_USE: Final = "voice will NOT be supported"


@contextlib.contextmanager
def redacted_logs(redactor: Redactor, write: Callable[[str], None]) -> Generator[None]:
    """While the block runs, warnings and errors of the bot go to `write`, each as one line with its
    secrets masked, and to no other handler."""
    handler = _Redacted(redactor, write)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(log, log.level, log.propagate) for log in loggers]
    for log in loggers:
        log.addHandler(handler)
        log.setLevel(logging.WARNING)  # below that there are contents of messages
        log.propagate = False
    try:
        yield
    finally:
        for log, level, propagate in before:
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate


@final
class _Redacted(logging.Handler):
    def __init__(self, redactor: Redactor, write: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._redactor = redactor
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Writes it; of an exception, what it is and not where it came from."""
        text = record.getMessage()
        if text.endswith(_OF_NO_USE):
            return
        cause = record.exc_info[1] if record.exc_info else None
        why = f": {type(cause).__name__}: {cause}" if cause is not None else ""
        masked = _TOKEN_IN_ADDRESS.sub(rf"\1{MASK}", self._redactor.text(text + why))
        self._write(visible(f"{record.levelname}: {masked}"))
