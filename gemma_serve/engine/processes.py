"""The processes that vLLM starts below ours: none may outlive us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

import psutil

# Source: linux/prctl.h.
PR_SET_CHILD_SUBREAPER = 36
_Started = TypeVar("_Started")
RESOURCE_TRACKER_WARNING = "ignore::UserWarning:multiprocessing.resource_tracker"
# What follows `python -c`; a warning filter may name the module too.
RESOURCE_TRACKER = "from multiprocessing.resource_tracker"
# A process that is ending may start another one; those of one that was killed come to us.
PASSES = 5
# Source: vLLM 0.32, VLLM_DIST_IDENT in v1/worker/cpu_worker.py and its csrc/cpu/shm.cpp.
WORKER_MEMORY = "/dev/shm/vllm_dist_"  # noqa: S108


def adopt_orphans() -> None:
    """Become the parent of what vLLM's processes leave behind when they die (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def deaf_to_ctrl_c(start: Callable[[], _Started]) -> _Started:
    """
    Call `start`, in a thread of its own, so that the processes it starts never see SIGINT.

    Ctrl-C goes to every process of the terminal. vLLM's would end at once, and with them the open
    requests that the drain waits for; they inherit this thread's mask, and we end them ourselves.
    """
    # Python would start its resource tracker with the first process, and unblock SIGINT after it.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return start()


def quiet_resource_tracker() -> None:
    """
    Let Python's resource tracker be silent, in all processes that are started from here on.

    It frees the shared memory of vLLM's ended processes, and would warn of it below our last line.
    """
    filters = [os.environ.get("PYTHONWARNINGS"), RESOURCE_TRACKER_WARNING]
    os.environ["PYTHONWARNINGS"] = ",".join(text for text in filters if text)


def end_children(grace_s: float) -> None:
    """Terminate every process below this one; kill what is left after `grace_s`."""
    for _ in range(PASSES):
        children = [child for child in psutil.Process().children(recursive=True) if _is_ours(child)]
        if not children:
            return
        for child in children:
            _quietly(child.terminate)
        _, alive = psutil.wait_procs(children, timeout=grace_s)
        for child in alive:
            _quietly(child.kill)
        psutil.wait_procs(alive, timeout=grace_s)


def shared_memory_below() -> frozenset[Path]:
    """
    The shared memory of vLLM's CPU workers, as long as they live.

    A worker removes it when it ends by itself; one that had to be killed leaves it in /dev/shm.
    """
    return frozenset(
        Path(mapped.path)
        for child in psutil.Process().children(recursive=True)
        for mapped in _memory_maps(child)
        if mapped.path.startswith(WORKER_MEMORY)
    )


def _memory_maps(process: psutil.Process) -> list[Any]:
    try:
        return list(process.memory_maps())
    except psutil.Error:
        return []


def _is_ours(process: psutil.Process) -> bool:
    # Python's resource tracker ignores signals by design, cleans shared memory up, and leaves by
    # itself as soon as we do.
    try:
        return not any(word.startswith(RESOURCE_TRACKER) for word in process.cmdline())
    except psutil.Error:
        return False


def _quietly(end: Callable[[], None]) -> None:
    try:
        end()
    except psutil.NoSuchProcess:
        return
