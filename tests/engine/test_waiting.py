"""A process of vLLM's sleeps where it would yield, unless it has a GPU."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from gemma_serve.engine import waiting


@pytest.mark.parametrize(
    ("version", "sleeps"),
    [
        ({"cuda": None, "hip": None}, True),
        ({"cuda": "13.0", "hip": None}, False),
        ({"cuda": None, "hip": "6.4"}, False),
    ],
    ids=["cpu", "cuda", "rocm"],
)
def test_only_builds_for_a_cpu_sleep(
    monkeypatch: pytest.MonkeyPatch, version: dict[str, str | None], sleeps: bool
) -> None:
    """Beside a GPU it stays what vLLM made it."""
    slept: list[float] = []
    monkeypatch.setattr(os, "sched_yield", yields := lambda: None)
    monkeypatch.setattr(time, "sleep", slept.append)
    torch = SimpleNamespace(version=SimpleNamespace(**version))
    monkeypatch.setattr(waiting, "import_module", {"torch": torch}.__getitem__)

    waiting.sleep_instead_of_yielding()
    os.sched_yield()

    assert slept == ([waiting.WAIT_S] if sleeps else [])
    assert (os.sched_yield is yields) is not sleeps
