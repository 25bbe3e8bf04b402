"""How the kernel sees vLLM's processes: whether they run, were stopped, or compute."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gemma_serve.engine.plugin import stacks_file

# Of a core; a worker that waits takes next to nothing, one that computes at least one core.
COMPUTING_SHARE = 0.2
# Shorter, and the kernel's ticks of 10 ms blur the share.
MIN_SAMPLE_S = 1.0


def engine_processes(events: Path) -> list[psutil.Process]:
    """vLLM's processes below us that have loaded our plugin: engine cores and workers."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if stacks_file(events, process.pid).exists()]


def is_stopped(process: psutil.Process) -> bool:
    """Whether a signal (SIGSTOP), a debugger or the end keeps it from running."""
    held = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE)
    try:
        return process.status() in held
    except psutil.Error:
        return True


@dataclass
class Workers:
    """Whether the engine's processes compute, from one sample of their CPU time to the next."""

    events: Path
    computing: bool = False
    stopped: bool = False  # whether one of them is kept from running, at the last sample
    _sampled_s: float = field(default=float("-inf"))
    _cpu_s: dict[int, float] = field(default_factory=dict)

    def sample(self) -> None:
        """See whether every worker has computed since the last sample, and none was stopped."""
        now_s = time.monotonic()
        since_s = now_s - self._sampled_s
        if since_s < MIN_SAMPLE_S:
            return
        cpu_s: dict[int, float] = {}
        with contextlib.suppress(psutil.Error):  # one that ends meanwhile
            processes = engine_processes(self.events)
            self.stopped = any(map(is_stopped, processes))
            cpu_s = dict(_cpu_times(processes))
        known = bool(cpu_s) and cpu_s.keys() <= self._cpu_s.keys()
        self.computing = known and all(
            total_s - self._cpu_s[pid] >= COMPUTING_SHARE * since_s
            for pid, total_s in cpu_s.items()
        )
        self._sampled_s, self._cpu_s = now_s, cpu_s


def _cpu_times(processes: Sequence[psutil.Process]) -> Iterator[tuple[int, float]]:
    parents = {process.ppid() for process in processes}
    for process in processes:
        # An engine core that has workers only waits for them.
        if process.pid not in parents:
            yield process.pid, _cpu_s(process)
        elif is_stopped(process):
            yield process.pid, 0.0


def _cpu_s(process: psutil.Process) -> float:
    if is_stopped(process):
        return 0.0
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def describe(process: psutil.Process) -> dict[str, Any]:
    """One process, for who looks for a cause later."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            return {
                "pid": process.pid,
                "title": " ".join(process.cmdline())[:80].strip(),
                "status": process.status(),
                "cpu_s": round(times.user + times.system, 2),
                "rss_bytes": process.memory_info().rss,
                "threads": process.num_threads(),
            }
    except psutil.Error as error:
        return {"pid": process.pid, "gone": type(error).__name__}
