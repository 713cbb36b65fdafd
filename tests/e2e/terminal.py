"""A command that runs on a terminal of its own, as one that a person has started."""

import contextlib
import os
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

__all__ = ["HOME", "LEFT", "PROMPT", "Session"]

# The program becomes the leader of a session with its terminal, as one that a shell has started.
LEADER = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "paceline", *sys.argv[1:]])
"""
HOME = "\x1b[H"
LEFT = "\x1b[?25h\x1b[?1049l"
PROMPT = ">\b\x1b[2C"
"""That of the editor of lines, which leaves out the space."""
ESCAPES = re.compile(r"\x1b\[[?\d;]*[a-zA-Z]")


class Session:
    """A command that runs on a terminal of its own."""

    def __init__(self, place: Path, *arguments: str, **environ: str) -> None:
        self._terminal, self._theirs = os.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEADER, *arguments],
            cwd=place,
            env={**os.environ, "TERM": "xterm", **environ},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
        )
        self.said = ""

    def resize(self, columns: int, lines: int) -> None:
        termios.tcsetwinsize(self._terminal, (lines, columns))

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def read(self) -> bool:
        """Reads what has come; False once no more will."""
        if select.select([self._terminal], [], [], 0.05)[0]:
            try:
                self.said += os.read(self._terminal, 65_536).decode(errors="replace")
            except OSError:
                return False
        return True

    @property
    def screen(self) -> str:
        """What was drawn last."""
        return ESCAPES.sub("", self.said.rpartition(HOME)[2])

    def until(self, *words: str) -> str:
        """Reads until the screen has all these words."""
        deadline = time.monotonic() + 60
        while not all(word in self.screen for word in words):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            self.read()
        return self.screen

    def heard(self, *words: str) -> str:
        """Reads until all these words were said one after the other, and returns what was said; what
        comes next is heard from there on."""
        deadline = time.monotonic() + 30
        while not (found := re.search(".*?".join(map(re.escape, words)), self.said, re.DOTALL)):
            assert time.monotonic() < deadline, self.said
            ended = self.process.poll() is not None
            before = len(self.said)
            self.read()
            assert not ended or len(self.said) > before, self.said
        said, self.said = self.said[: found.end()], self.said[found.end() :]
        return said

    def ended(self) -> int:
        """The exit code, once all that was said is read."""
        while self.process.poll() is None:
            self.read()
        while select.select([self._terminal], [], [], 0)[0] and self.read():
            pass
        return self.process.returncode

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, its cursor, and what was on it."""
        return termios.tcgetattr(self._theirs) == self.before and self.said.rstrip().endswith(LEFT)

    @property
    def restored_modes(self) -> bool:
        """Whether the terminal is in the modes in which it was."""
        return termios.tcgetattr(self._theirs) == self.before

    def hang_up(self) -> None:
        os.close(self._theirs)
        os.close(self._terminal)
        self._terminal = self._theirs = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for end in (self._terminal, self._theirs):
            with contextlib.suppress(OSError):
                os.close(end)
