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

    assert slept == ([waiting.SHORTEST_S] if sleeps else [])
    assert (os.sched_yield is yields) is not sleeps


class Clock:
    """A time that only sleeps take, and what passes between two calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.slept_s = 100.0, list[float]()
        monkeypatch.setattr(waiting, "time", self)

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """As long as asked for."""
        self.slept_s.append(seconds)
        self.now_s += seconds


def test_sleep_grows_with_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 us at first, then an eighth of the wait so far, never more than 500 us."""
    clock, sleep = Clock(monkeypatch), waiting.Sleep()
    while clock.now_s < 100.008:
        waited_s = clock.now_s - 100
        sleep()
        assert clock.slept_s[-1] == pytest.approx(min(max(waited_s / 8, 50e-6), 500e-6))
    assert clock.slept_s[-1] == 500e-6
    assert len(clock.slept_s) < 50  # where it would be 160 of 50 us


def test_next_wait_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """After work, the first sleep is a short one again."""
    clock, sleep = Clock(monkeypatch), waiting.Sleep()
    for _ in range(100):
        sleep()
    clock.now_s += 0.001
    sleep()
    assert clock.slept_s[-2:] == [500e-6, 50e-6]
