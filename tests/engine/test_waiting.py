"""A process of vLLM's sleeps where it would yield."""

from __future__ import annotations

import os
import time

import pytest

from gemma_serve.engine import waiting


def test_who_would_yield_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's loop calls `os.sched_yield`, and gets the shortest sleep."""
    slept: list[float] = []
    monkeypatch.setattr(os, "sched_yield", None)
    monkeypatch.setattr(time, "sleep", slept.append)

    waiting.sleep_instead_of_yielding()
    os.sched_yield()

    assert slept == [waiting.SHORTEST_S]


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
