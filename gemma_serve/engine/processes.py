"""The processes that vLLM starts below ours: none may outlive us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import parent_process, resource_tracker
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

import psutil

# Source: linux/prctl.h.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_Started = TypeVar("_Started")
QUIET = (
    "ignore::UserWarning:multiprocessing.resource_tracker",
    # vLLM 0.32 looks at every attribute of torch there, and so at those that torch warns of.
    "ignore::FutureWarning:vllm.triton_utils.dispatcher",
)
# What follows `python -c`; a warning filter may name the module too.
RESOURCE_TRACKER = "from multiprocessing.resource_tracker"
# A process that is ending may start another one; those of one that was killed come to us.
PASSES = 5
# Source: vLLM 0.32, VLLM_DIST_IDENT in v1/worker/cpu_worker.py and its csrc/cpu/shm.cpp.
WORKER_MEMORY = "/dev/shm/vllm_dist_"  # noqa: S108
# Between making its memory and mapping it, a worker that starts looks like one that is gone.
ABANDONED_S = 60.0


def adopt_orphans() -> None:
    """Become the parent of what vLLM's processes leave behind when they die (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent_pid: int | None = None) -> None:
    """
    Have the kernel kill this process when the one that started it dies, however it dies (Linux).

    To the kernel the parent is a thread: the one that starts vLLM's processes has to outlive them.
    A process that hangs, or was stopped, can't watch its parent itself.

    Args:
        parent_pid: The one that started it. Default: as `multiprocessing` knows it, if at all.

    Source: prctl(2), PR_SET_PDEATHSIG
    """
    if parent_pid is None:
        parent = parent_process()
        if parent is None or parent.pid is None:
            return
        parent_pid = parent.pid
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        # It was dead before the kernel was asked, and nobody will tell.
        os.kill(os.getpid(), signal.SIGKILL)


def run_with_parent(name: str, *args: Any, **kwargs: Any) -> Any:
    """What a child runs in place of a function (`module:name`) that knows nothing of its parent."""
    die_with_parent()
    return resolve_name(name)(*args, **kwargs)


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


def quiet_children() -> None:
    """
    Keep warnings that help nobody out of the log, in all processes that are started from here on.

    Python's resource tracker frees the shared memory of vLLM's ended processes, and would warn of
    it below our last line.
    """
    os.environ["PYTHONWARNINGS"] = ",".join(
        filter(None, [os.environ.get("PYTHONWARNINGS"), *QUIET])
    )


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
    return _worker_memory_of(psutil.Process().children(recursive=True))


def remove_abandoned_memory() -> None:
    """Remove the shared memory of our user's CPU workers that were killed with their server."""
    old = [file for file in Path("/").glob(f"{WORKER_MEMORY[1:]}*") if _is_old_and_ours(file)]
    in_use = _worker_memory_of(psutil.process_iter()) if old else frozenset()
    for file in set(old) - in_use:
        with contextlib.suppress(OSError):
            file.unlink()


def _is_old_and_ours(file: Path) -> bool:
    try:
        found = file.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and time.time() - found.st_mtime > ABANDONED_S


def _worker_memory_of(processes: Iterable[psutil.Process]) -> frozenset[Path]:
    return frozenset(Path(path) for process in processes for path in _mapped(process))


def _mapped(process: psutil.Process) -> Iterator[str]:
    # psutil reads smaps, for which the kernel walks through all pages of a model.
    try:
        maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in maps.splitlines():
        _, memory, name = line.partition(WORKER_MEMORY)
        if memory:
            yield f"{memory}{name.removesuffix(' (deleted)')}"


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
