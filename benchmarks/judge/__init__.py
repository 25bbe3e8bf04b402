"""Our figures beside those of tools that nobody here wrote, on the same requests."""

from __future__ import annotations

from benchmarks.judge.judge import Measure, chosen_tools, judge
from benchmarks.judge.replay import JudgeError, Replay, check_load, check_protocol
from benchmarks.judge.rows import exit_code, table

__all__ = [
    "JudgeError",
    "Measure",
    "Replay",
    "check_load",
    "check_protocol",
    "chosen_tools",
    "exit_code",
    "judge",
    "table",
]
