"""What one command may use, and how many may run."""

import msgspec

from paceline.settings import HostExecSettings

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of host commands. Times in seconds, sizes in bytes."""

    wall_s: float = 15.0
    """First time limit of a command; later ones follow what its rule was seen to take."""
    slow_wall_s: float = 30.0
    """The same for rules marked slow."""
    cpu_s: int = 10
    memory_bytes: int = 1024**3
    """Address space of each process."""
    file_bytes: int = 16 * 1024**2
    """Size of each file written, and of the scratch directory as a whole."""
    disk_bytes: int = 256 * 1024**2
    """Added to the file system of the workspace by one command, seen within a few hundredths of
    a second."""
    open_files: int = 128
    processes: int = 64
    output_bytes: int = 256 * 1024
    """Kept of each output stream; a command that prints more is stopped."""
    concurrency: int = 4
    queue: int = 16
    """Commands waiting for their turn; one more is refused."""
    drain_s: float = 2.0
    """How long output is still read after the command has ended."""

    @classmethod
    def of(cls, settings: HostExecSettings) -> "Limits":
        """The limits that the settings ask for."""
        return cls(
            wall_s=settings.timeout_s,
            slow_wall_s=settings.slow_timeout_s,
            memory_bytes=settings.memory_bytes,
            processes=settings.processes,
            output_bytes=settings.output_bytes,
            concurrency=settings.concurrency,
            queue=settings.max_queue,
        )
