"""Our figures beside those of tools that nobody here wrote, on the same requests."""

from __future__ import annotations

from benchmarks.judge.judge import Measure, judge
from benchmarks.judge.replay import JudgeError, Replay
from benchmarks.judge.rows import Judgement, JudgeRow, exit_code, table

__all__ = [
    "JudgeError",
    "JudgeRow",
    "Judgement",
    "Measure",
    "Replay",
    "exit_code",
    "judge",
    "table",
]
