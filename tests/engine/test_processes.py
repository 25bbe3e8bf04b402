"""No process that vLLM started may outlive ours: asked of real processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import psutil
import pytest

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
