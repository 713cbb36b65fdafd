"""What may not stand in any file of the repository."""

import re

from tests.rules.sources import Sources

__all__ = ["check_requirements", "check_tree"]

# Written so that this file does not break its own rule.
FOREIGN = {
    "a path of one machine": re.compile(r"(?<![\w~.])/[w]ork/"),
    "a package index": re.compile(r"(?i)py[p]i\.(org|python)|python[h]osted|/[s]imple/"),
}
PIN = re.compile(
    r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,_-]+\])?==[^\s;]+"
    r"( ; [^#]+?)?"
    r"( --hash=sha256:[0-9a-f]{64})+"
)
HOST = re.compile(r"(?i)://|--(extra-)?index|--find-links|py[p]i|python[h]osted")


def check_tree(files: Sources) -> list[str]:
    """Paths of the machine something was made on, and hosts of package indexes."""
    return [
        f"{path}:{line}: {what}: {match[0]}"
        for path, text in files.items()
        for line, row in enumerate(text.splitlines(), 1)
        for what, pattern in FOREIGN.items()
        if (match := pattern.search(row))
    ]


def check_requirements(files: Sources) -> list[str]:
    """Lines of requirement files that are no exact version with hashes, or that name a host."""
    found: list[str] = []
    for path, text in files.items():
        for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            if HOST.search(line):
                found.append(f"{path}: names a host: {line[:60]}")
            elif not PIN.fullmatch(line.strip()):
                found.append(f"{path}: not pinned with hashes: {line[:60]}")
    return found
