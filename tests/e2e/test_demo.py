"""`make demo`."""

import asyncio
import io
from pathlib import Path

import pytest

from examples.demo import __main__ as program
from examples.demo import show as demo
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
    results that come from disk. The numbers of where results came from add up to the calls."""
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
    for text in shown:
        sources = text.split("Where results came from")[1].split("What that saved")[0]
        assert sum(int(row.split()[0]) for row in sources.splitlines() if row.strip()) == 60


def test_the_demo_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the demo with 130 and a word, not a traceback."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "main", interrupted)
    assert program.main() == 130
    assert "stopped" in capsys.readouterr().err
