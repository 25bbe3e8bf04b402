"""What is wrong with a workload that was asked for, in one sentence."""

from __future__ import annotations


class WorkloadError(ValueError):
    """The workload cannot be made or read as asked."""
