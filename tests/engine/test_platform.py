"""What the machine is said to be."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from gemma_serve.engine import platform
from gemma_serve.engine.platform import allowed_cores, available_memory_bytes, simulated
from gemma_serve.errors import StartupError

# What nvidia-smi prints for this query on a machine with two GPUs of different kinds.
TWO_GPUS = """\
GPU-1111aaaa-0000-0000-0000-000000000000, NVIDIA H100 80GB HBM3, 9.0, 81559
GPU-2222bbbb-0000-0000-0000-000000000000, NVIDIA A100-SXM4-80GB, 8.0, 81920
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver's answer, as the command on PATH prints it."""
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{TWO_GPUS}END\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return command


def test_cpu_is_this_machine() -> None:
    """The CPU platform has the cores that this process may use, and no more memory than exists."""
    found = platform.detect_cpu()
    assert found.kind == "cpu"
    assert found.cores == allowed_cores()
    assert set(found.cores) <= os.sched_getaffinity(0)
    assert 0 < found.memory_gib <= psutil.virtual_memory().total / 2**30 + 0.1
    assert 0 < available_memory_bytes() <= psutil.virtual_memory().total


def test_affinity_limits_the_cores() -> None:
    """A process that is bound to one core sees one."""
    before = os.sched_getaffinity(0)
    one = min(before)
    os.sched_setaffinity(0, {one})
    try:
        assert allowed_cores() == (one,)
    finally:
        os.sched_setaffinity(0, before)


def test_least_gpu_decides(driver: Path) -> None:
    """Among unlike GPUs the oldest and the smallest decide, because vLLM treats them as equals."""
    found = platform._detect_cuda()
    assert found is not None
    assert (found.kind, found.device_count) == ("cuda", 2)
    assert found.compute_capability == (8, 0)
    assert found.memory_gib == round(81559 / 1024, 1)


@pytest.mark.parametrize(
    ("visible", "count", "capability"),
    [("0", 1, (9, 0)), ("1", 1, (8, 0)), ("1,0", 2, (8, 0)), ("GPU-1111", 1, (9, 0))],
)
def test_visible_devices_are_counted(
    driver: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str,
    count: int,
    capability: tuple[int, int],
) -> None:
    """CUDA_VISIBLE_DEVICES hides GPUs, by index or by UUID."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = platform._detect_cuda()
    assert found is not None
    assert (found.device_count, found.compute_capability) == (count, capability)


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_no_visible_device_is_no_gpu(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    """With every GPU hidden there is none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert platform._detect_cuda() is None


def test_driver_that_fails_is_no_gpu(driver: Path) -> None:
    """A driver that is installed and broken is the same as none."""
    driver.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert platform._detect_cuda() is None


def test_simulated_gpu_says_so() -> None:
    """A report for a GPU that is not here says that nothing ran on it."""
    found = simulated("h100")
    assert found.simulated
    assert found.compute_capability == (9, 0)
    assert found.label == "simulated NVIDIA H100: not run on a GPU"


def test_simulating_no_gpu_is_this_cpu() -> None:
    """`none` resolves for this machine's CPU, whatever GPUs it has."""
    assert simulated("none") == platform.detect_cpu()


def test_unknown_gpu_is_refused() -> None:
    """A kind of GPU that is not known is refused with those that are."""
    with pytest.raises(StartupError) as caught:
        simulated("h1000")
    assert caught.value.message == (
        "GPU 'h1000' is not known; use h100, h200, a100, a100-40, a100-80, l4, b200 or none."
    )
