"""
What is measured and what is written down, a module a file; nothing here measures or computes.

    requests    workload.jsonl and requests.jsonl
    conditions  what all others share: server, load, what was sent, validity
    run sweep compare judge    the file of that name, and the schema that it keeps
"""

from __future__ import annotations

from benchmarks.records.compare import Comparison, MetricComparison, Pair, Quality
from benchmarks.records.conditions import Check, Load, Model, Slo, Target, Validity, WorkloadInfo
from benchmarks.records.judge import Judgement, JudgePair, JudgeRow
from benchmarks.records.requests import (
    TRITON_PROTOCOLS,
    Chunk,
    ClientHealth,
    ErrorKind,
    Item,
    Phase,
    Protocol,
    RequestRecord,
    TokenSource,
    TritonContract,
)
from benchmarks.records.run import (
    Distribution,
    Goodput,
    MachineUse,
    Metrics,
    PhaseSpan,
    Run,
    Second,
    ServerSide,
    Window,
)
from benchmarks.records.sweep import Sweep, SweepPoint

__all__ = [
    "TRITON_PROTOCOLS",
    "Check",
    "Chunk",
    "ClientHealth",
    "Comparison",
    "Distribution",
    "ErrorKind",
    "Goodput",
    "Item",
    "JudgePair",
    "JudgeRow",
    "Judgement",
    "Load",
    "MachineUse",
    "MetricComparison",
    "Metrics",
    "Model",
    "Pair",
    "Phase",
    "PhaseSpan",
    "Protocol",
    "Quality",
    "RequestRecord",
    "Run",
    "Second",
    "ServerSide",
    "Slo",
    "Sweep",
    "SweepPoint",
    "Target",
    "TokenSource",
    "TritonContract",
    "Validity",
    "Window",
    "WorkloadInfo",
]
