"""`make demo`."""

import asyncio
import io
from pathlib import Path

import pytest

from examples.demo import __main__ as demo
from examples.demo.screen import Screen


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What two runs of a small demo show, with state of their own."""
    monkeypatch.setattr(demo, "STATE", tmp_path)
    monkeypatch.setattr(demo, "CALLS", 60)
    monkeypatch.chdir(demo.ROOT)
    texts: list[str] = []
    for _ in range(2):
        out = io.StringIO()
        assert asyncio.run(demo.demo(Screen(out))) == 0
        texts.append(out.getvalue())
    return texts


def test_the_demo_shows_what_paceline_does(shown: list[str]) -> None:
    """It shows the statistics of at least four agents, where results came from, the measured
    saving, one refusal, one time-out, one broken module, and what to try next; a second run shows
    results that come from disk."""
    first, second = shown
    for word in (
        "**Agent Performance Statistics**",
        *("**catalog**", "**code_search**", "**host_exec**", "**notes**", "**system_info**"),
        "really run",
        "from memory",
        "without a cache",
        "'rm -rf /'",
        "deadline",
        "broken.py:3",
        "Try next",
    ):
        assert word in first
    assert "from disk" not in first.split("Try next")[0]
    assert "from disk" in second.split("Try next")[0]
