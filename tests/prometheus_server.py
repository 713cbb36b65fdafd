"""A Prometheus server of the tests' own, on a free loopback port, that scrapes one address."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["prometheus_scraping", "promtool"]

_READY: Final = "Server is ready to receive web requests"
_CONFIGURATION: Final = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: paceline
    static_configs:
      - targets: ["{target}"]
"""


def promtool(*arguments: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    """What Prometheus' own tool says to what it is given."""
    return subprocess.run(["promtool", *arguments], input=given, capture_output=True, check=False)


@contextmanager
def prometheus_scraping(target: str, directory: Path) -> Iterator[str]:
    """A server that scrapes `target` once a second, surely stopped after the block; the value is
    its address. Raises if there is no such program: tests that need it fail without it."""
    program = shutil.which("prometheus")
    if program is None:
        raise RuntimeError("no Prometheus server: install prometheus")
    configuration = directory / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(target=target))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [
            program, f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}", "--enable-feature=exemplar-storage",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:  # it logs a line when it is ready, and ends if it cannot be
            said.append(line)
            if _READY in line:
                break
        else:
            raise RuntimeError(f"the Prometheus server did not start: {said[-3:]}")
        yield f"http://{address}"
    finally:
        process.kill()
        process.communicate()
