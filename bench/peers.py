"""An environment with the peers of our cache, apart from the one we are developed in."""

import hashlib
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "peer_python"]

ROOT = Path(__file__).parent.parent
_PEERS = ROOT / "bench" / "peers.txt"
_ALONE = ROOT / "bench" / "peers-alone.txt"  # of which nothing they depend on is used
_OURS = ROOT / "requirements" / "run.txt"


def peer_python(directory: Path = ROOT / ".venv-peers") -> Path:
    """The interpreter of that environment, with this checkout and the peers of `peers.txt`.

    It is made, or made anew when what is to be in it changed, which takes a minute. Run modules
    of ours in it with `-m`, in the folder `ROOT`.
    """
    python = directory / "bin" / "python"
    files = (_PEERS, _ALONE, _OURS)
    made_of = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
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
        ]
        subprocess.run([*pip, "--require-hashes", "-r", _OURS], check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
        subprocess.run([*pip, "-r", _PEERS], check=True)
        subprocess.run([*pip, "--no-deps", "-r", _ALONE], check=True)
        stamp.write_text(made_of)
    return python
