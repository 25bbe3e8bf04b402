"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import psutil
from gemma_serve.engine.heap import give_back_freed_memory
process = psutil.Process()
# Small blocks, the last of which is kept: glibc can't shrink its heap from the top.
blocks = [bytes(1000) for _ in range(200_000)]
kept = blocks[-1]
del blocks
before = process.memory_info().rss
assert give_back_freed_memory()
print((before - process.memory_info().rss) // 2**20)
"""


def test_freed_memory_is_returned() -> None:
    """What was freed below a block that is still in use leaves the process all the same."""
    environ = {"PYTHONMALLOC": "malloc"}
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environ
    )
    assert int(told.stdout) > 100
