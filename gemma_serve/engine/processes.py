"""The processes that vLLM starts below ours: none may outlive us."""

from __future__ import annotations

from collections.abc import Callable

import psutil


def end_children(grace_s: float) -> None:
    """Terminate every process below this one; kill what is left after `grace_s`."""
    children = [child for child in psutil.Process().children(recursive=True) if _is_ours(child)]
    for child in children:
        _quietly(child.terminate)
    _, alive = psutil.wait_procs(children, timeout=grace_s)
    for child in alive:
        _quietly(child.kill)
    psutil.wait_procs(alive, timeout=grace_s)


def _is_ours(process: psutil.Process) -> bool:
    # Python's resource tracker ignores signals by design, cleans shared memory up, and leaves by
    # itself as soon as we do.
    try:
        return not any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _quietly(end: Callable[[], None]) -> None:
    try:
        end()
    except psutil.NoSuchProcess:
        return
