"""Whether the client kept up: its CPU time, and how late its event loop rings a timer."""

from __future__ import annotations

import asyncio
import os
import time

from benchmarks.records import ClientHealth

SAMPLE_S = 0.05


class HealthMonitor:
    """Samples from `start` to `stop`."""

    def __init__(self) -> None:
        self._lags_s: list[float] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = self._began_s = self._began_cpu_s = 0.0

    def start(self) -> None:
        """Begin; a second call begins again."""
        self.cancel()
        self._lags_s.clear()
        self._began_s, self._began_cpu_s = time.perf_counter(), time.process_time()
        self._arm()

    def stop(self) -> ClientHealth:
        """The health since the start."""
        self.cancel()
        return ClientHealth(
            wall_s=time.perf_counter() - self._began_s,
            cpu_s=time.process_time() - self._began_cpu_s,
            loop_lag_s=list(self._lags_s),
            num_cores=len(os.sched_getaffinity(0)),
        )

    def cancel(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._due_s = time.perf_counter() + SAMPLE_S
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_S, self._ring)

    def _ring(self) -> None:
        self._lags_s.append(max(0.0, time.perf_counter() - self._due_s))
        self._arm()
