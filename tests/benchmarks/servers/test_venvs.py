"""Environments on demand: made once, made anew for another recipe, and told when they fail."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from benchmarks.servers import ServerError, venvs


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venvs, "cache_dir", lambda: tmp_path)
    # Without pip an environment takes a moment and not seconds; what calls pip then fails.
    monkeypatch.setattr(venvs, "VENV", [*venvs.VENV, "--without-pip"])


def test_environment_is_made_once() -> None:
    """The second call finds what the first has made."""
    python = asyncio.run(venvs.environment("tool", []))
    (python.parent / "kept").touch()

    again = asyncio.run(venvs.environment("tool", []))

    assert again == python
    assert (python.parent / "kept").exists()
    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True)
    assert Path(prefix.stdout.decode().strip()).name == "tool"


def test_failed_installation_shows_its_log_and_is_tried_again(tmp_path: Path) -> None:
    """The log's end is in the error, and a half-made environment is not taken for a made one."""
    with pytest.raises(ServerError, match=r"(?s)ended with code 1:.*No module named pip"):
        asyncio.run(venvs.environment("tool", [["a-package"]]))

    assert not (tmp_path / "tool" / venvs.MADE).exists()


def test_progress_and_priority(tmp_path: Path) -> None:
    """A command runs with the lowest priority, its output in the log, and progress is told."""
    told: list[str] = []
    log = tmp_path / "log"

    asyncio.run(venvs.run_logged(["nice"], log, "asking", lambda phase, _s: told.append(phase)))

    # nice without words prints the niceness that it runs with.
    assert log.read_text() == "19\n"
    assert set(told) == {"asking"}
