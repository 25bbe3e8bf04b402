"""
Lets others run while vLLM's processes wait for one another.

The engine and its workers hand each step over through shared memory, and wait for it in a loop of
sched_yield(2). Since Linux 6.18 a task that yields forfeits its turn; where each session or
container has its share of the processor (autogroup, cgroups), the others then did not run for up to
8 s at a time: a client that had been sent its tokens, nginx, Prometheus. A short sleep does not do
that. But whoever wakes interrupts a thread that computes, and the others of its step wait for it:
so the sleep grows with the wait (docs/operations.md has the figures).
"""

from __future__ import annotations

import os
import threading
import time

# Measured on two cores. At 50 us each, the 270M lost 16 % of its tokens/s with 8 clients; at 500 us
# the tiny model, whose steps take 3 ms, lost 11 % with 4.
SHORTEST_S, LONGEST_S = 50e-6, 500e-6
SHARE = 1 / 8  # of the wait so far: what comes is found that much too late, at most
# Between two calls of one wait vLLM looks at a flag; between two waits there is work.
NEW_WAIT_S = 400e-6


def sleep_instead_of_yielding() -> None:
    """Have this process sleep where it would yield; vLLM calls it as `os.sched_yield`."""
    os.sched_yield = Sleep()


class Sleep(threading.local):
    """A sleep that is called again and again until a wait is over: the longer, the longer."""

    def __init__(self) -> None:
        self._began_s = self._woke_s = -NEW_WAIT_S

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s - self._woke_s >= NEW_WAIT_S:
            self._began_s = now_s
        time.sleep(min(max((now_s - self._began_s) * SHARE, SHORTEST_S), LONGEST_S))
        self._woke_s = time.monotonic()
