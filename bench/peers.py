"""Environments with the peers that we are compared with, apart from the one we are developed in."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ENGINES", "ROOT", "peer_python"]

ROOT = Path(__file__).parent.parent
_OURS = ROOT / "requirements" / "run.txt"


class _Environment(NamedTuple):
    """Its folder, what is installed, and of what nothing it depends on is used."""

    folder: str
    whole: str
    alone: str | None


ENGINES: Final = ("agent-framework", "agno", "langgraph", "openai-agents", "pydantic-ai")
_ENVIRONMENTS: Final = {
    "cache": _Environment(".venv-peers", "peers.txt", "peers-alone.txt"),
    **{
        kind: _Environment(f".venv-peers-{kind}", f"peers-{kind}.txt", None)
        for kind in ("router", *ENGINES)
    },
}


def peer_python(kind: str = "cache") -> Path:
    """The interpreter of the environment with this checkout and the peers of this kind: "cache"
    of the cache and the metrics, "router" of the balancer, those of `ENGINES` each of the engine.

    It is made, or made anew when what is to be in it changed, which takes a minute. Run modules
    of ours in it with `-m`, in the folder `ROOT`.
    """
    environment = _ENVIRONMENTS[kind]
    directory = ROOT / environment.folder
    whole = ROOT / "bench" / environment.whole
    alone = [ROOT / "bench" / environment.alone] if environment.alone else []
    python = directory / "bin" / "python"
    made_of = hashlib.sha256(
        b"".join(file.read_bytes() for file in (whole, *alone, _OURS))
    ).hexdigest()
    stamp = directory / "made-of"
    if not stamp.exists() or stamp.read_text() != made_of:
        print(f"setting up {directory.name} with the peers (once, about a minute)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        pip: list[str | Path] = [
            python,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "install",
            "--no-compile",  # what is imported compiles itself, and most of it never is
        ]
        subprocess.run([*pip, "--require-hashes", "-r", _OURS], check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
        subprocess.run([*pip, "-r", whole], check=True)
        for file in alone:
            subprocess.run([*pip, "--no-deps", "-r", file], check=True)
        stamp.write_text(made_of)
    return python
