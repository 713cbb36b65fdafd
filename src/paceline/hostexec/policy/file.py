"""A policy in a file that may change while it is in force."""

import os
import stat
from pathlib import Path
from typing import final

from paceline.errors import PolicyError
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.policy.loader import Look
from paceline.hostexec.policy.programs import look as look_at_host

__all__ = ["PolicyFile"]

_MOST_BYTES = 1024 * 1024


@final
class PolicyFile:
    """The last good policy of a file.

    A file that is just being written can be a valid policy without its end. So a new text is
    only taken up when two looks in a row found the same; a text that cannot be used never is.
    """

    __slots__ = ("_look", "_path", "_seen", "_taken", "_writes", "errors", "policy", "problem")

    def __init__(self, path: Path, *, writes: bool = False, look: Look = look_at_host) -> None:
        """Reads it. Raises PolicyError where it is missing or cannot be used."""
        self._path = path
        self._writes = writes
        self._look = look
        text: str = self._read()
        self.policy = self._load(text)
        self._taken: str = text
        self._seen: str = text
        self.errors = 0
        """Texts that could not be used."""
        self.problem = ""
        """What is wrong with the file as it is now; empty if nothing."""

    def refresh(self) -> bool:
        """Looks at the file; True when there is a new policy. To be called every few seconds."""
        try:
            text = self._read()
            if text != self._seen or text == self._taken:
                self._seen, self.problem = text, ""
                return False
        except PolicyError as exc:
            self._seen = ""
            return self._failed(exc)
        if self.problem:
            return False
        try:
            self.policy = self._load(text)
        except PolicyError as exc:
            return self._failed(exc)
        self._taken = text
        return True

    def _failed(self, exc: PolicyError) -> bool:
        self.errors += not self.problem
        self.problem = exc.message
        return False

    def _read(self) -> str:
        try:
            data = _content(self._path)
            if len(data) > _MOST_BYTES:
                raise PolicyError(f"{self._path} is larger than {_MOST_BYTES} bytes")
            return data.decode()
        except (OSError, UnicodeDecodeError) as exc:
            raise PolicyError(f"the policy {self._path} cannot be read: {exc}") from exc

    def _load(self, text: str) -> Policy:
        return Policy.load(text, name=str(self._path), writes=self._writes, look=self._look)


def _content(path: Path) -> bytes:
    """The first bytes of a regular file, one more than a policy may have. A pipe in its place does
    not hold us up."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise PolicyError(f"the policy {path} is not a regular file")
        with os.fdopen(file, "rb", closefd=False) as reader:
            return reader.read(_MOST_BYTES + 1)
    finally:
        os.close(file)
