"""No process that vLLM started may outlive ours: asked of real processes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from gemma_serve.engine import processes
from tests.commands import session_of

# A child that leaves on SIGTERM, one that ignores it, one below a child, and one that starts
# another when it is told to end and leaves it behind: end them all.
FAMILY = '''
import subprocess, sys
from multiprocessing import resource_tracker
from gemma_serve.engine.processes import adopt_orphans, end_children

WARNINGS = "-Wignore::UserWarning:multiprocessing.resource_tracker"
sleep = "import time; print(1, flush=True); time.sleep(600)"
ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + sleep
parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ignore!r}])"
leave = f"""
import os, signal, subprocess, sys
def end(*_):
    subprocess.Popen([sys.executable, '-c', {ignore!r}])
    os._exit(0)
signal.signal(signal.SIGTERM, end)
{sleep}
"""
adopt_orphans()
resource_tracker.ensure_running()
children = [
    subprocess.Popen([sys.executable, WARNINGS, "-c", code], stdout=subprocess.PIPE)
    for code in (sleep, ignore, parent, leave)
]
for child in children:
    child.stdout.readline()
print(resource_tracker._resource_tracker._pid, flush=True)
sys.stdin.readline()
end_children(0.5)
print("ended", flush=True)
sys.stdin.readline()
'''


@dataclass
class Family:
    """Pids of all that ran before and after, the resource tracker's, and what is left at last."""

    before: set[int]
    after: set[int]
    tracker: int
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def family() -> Family:
    """A process with children, told to end them; seen from outside."""
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        tracker = int(process.stdout.readline())
        before = {member.pid for member in session_of(process.pid)} - {process.pid}
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "ended\n"
        after = {member.pid for member in session_of(process.pid)} - {process.pid}
    psutil.wait_procs(session_of(process.pid), timeout=10)
    return Family(before, after, tracker, session_of(process.pid))


def test_processes_end_at_every_depth(family: Family) -> None:
    """Children, theirs and their orphans end, also those that ignore SIGTERM; the tracker stays."""
    assert len(family.before) == 6
    assert family.after == {family.tracker}


def test_resource_tracker_leaves_by_itself(family: Family) -> None:
    """Python's resource tracker, which cleans shared memory up, leaves once its parent is gone."""
    assert family.left == []


# Spawned as vLLM's are. The second finds its parent dead before it asks the kernel.
MORTAL = """
import os, time
from gemma_serve.engine.processes import die_with_parent
die_with_parent()
print("asked", flush=True)
time.sleep(600)
"""
LATE = """
import os, time
from gemma_serve.engine.processes import die_with_parent
parent = os.getppid()
print("waiting", flush=True)
while os.getppid() == parent:
    time.sleep(0.01)
die_with_parent()
time.sleep(600)
"""
PARENT = """
import multiprocessing, sys
multiprocessing.get_context("spawn").Process(target=exec, args=(sys.argv[1],)).start()
sys.stdin.read()
"""


@pytest.mark.parametrize(("code", "stopped"), [(MORTAL, False), (MORTAL, True), (LATE, False)])
def test_child_dies_with_its_parent(code: str, stopped: bool) -> None:
    """A killed parent takes its child along, also one that is stopped, or asks too late."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    below = psutil.Process(parent.pid).children()
    (child,) = (child for child in below if "spawn_main" in " ".join(child.cmdline()))
    if stopped:
        child.suspend()

    parent.kill()
    parent.wait(10)

    deadline_s = time.monotonic() + 5
    while session_of(parent.pid):
        assert time.monotonic() < deadline_s, session_of(parent.pid)
        time.sleep(0.02)


def test_memory_of_killed_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What no process maps any more is removed at the next start; what is new stays."""
    monkeypatch.setattr(processes, "WORKER_MEMORY", str(tmp_path / "vllm_dist_"))
    mapped, left, new = (tmp_path / f"vllm_dist_{name}" for name in ("mapped", "left", "new"))
    for file in (mapped, left, new):
        file.write_bytes(bytes(4096))
    for file in (mapped, left):
        os.utime(file, (0, 0))

    with mapped.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        processes.remove_abandoned_memory()

    assert sorted(tmp_path.iterdir()) == [mapped, new]
