"""What is sent: from a spec to requests and workload.jsonl, before anything is measured."""

from __future__ import annotations

from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.lengths import parse_lengths
from benchmarks.workload.materialise import materialise
from benchmarks.workload.replay import check_texts, write_guidellm, write_vllm_custom
from benchmarks.workload.spec import WorkloadSpec, parse_spec
from benchmarks.workload.stored import (
    Workload,
    is_stored,
    read_workload,
    replay_stored,
    write_workload,
)

__all__ = [
    "Workload",
    "WorkloadError",
    "WorkloadSpec",
    "check_texts",
    "is_stored",
    "materialise",
    "parse_lengths",
    "parse_spec",
    "read_workload",
    "replay_stored",
    "write_guidellm",
    "write_vllm_custom",
    "write_workload",
]
