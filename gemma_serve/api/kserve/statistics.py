"""
What Triton's statistics extension and its `nv_inference_*` counters say, from one record.

Source: https://github.com/triton-inference-server/server (docs/protocol/extension_statistics.md,
docs/user_guide/metrics.md). Queue and compute times are the engine's own; what of a request's
time is in neither is input before it and output after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Duration:
    """A count, and the nanoseconds of all that was counted."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.ns += max(round(seconds * 1e9), 0)


@dataclass(frozen=True)
class Took:
    """The seconds of one request, by stage."""

    total_s: float
    queue_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0

    @property
    def output_s(self) -> float:
        """What is left."""
        return max(self.total_s - self.queue_s - self.input_s - self.infer_s, 0.0)


@dataclass
class ModelStatistics:
    """The record of one model since the server started."""

    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    stages: dict[str, Duration] = field(
        default_factory=lambda: {stage: Duration() for stage in STAGES}
    )

    def succeeded(self, took: Took, num_prompts: int) -> None:
        """Count a request that was answered."""
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.inference_count += num_prompts
        self.execution_count += 1
        seconds = {
            "success": took.total_s,
            "queue": took.queue_s,
            "compute_input": took.input_s,
            "compute_infer": took.infer_s,
            "compute_output": took.output_s,
        }
        for stage, value in seconds.items():
            self.stages[stage].add(value)

    def failed(self, total_s: float) -> None:
        """Count a request that was refused, failed or left."""
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.stages["fail"].add(total_s)

    def as_dict(self, model: str, version: str) -> dict[str, Any]:
        """As the statistics extension has it."""
        stages = {name: {"count": one.count, "ns": one.ns} for name, one in self.stages.items()}
        nothing = {"count": 0, "ns": 0}
        # A request is one execution, and to Triton a batch of 1, as no contract has a larger one.
        batch = {name: stages[name] for name in stages if name.startswith("compute")}
        return {
            "name": model,
            "version": version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {**stages, "cache_hit": nothing, "cache_miss": nothing},
            "batch_stats": [{"batch_size": 1, **batch}] if self.execution_count else [],
            "response_stats": {},  # by the place of a response in a stream; not counted here
            "memory_usage": [],
        }


# Triton's name -> its help, and the figure.
COUNTERS = {
    "nv_inference_request_success": ("Inference requests that succeeded.", "success"),
    "nv_inference_request_failure": ("Inference requests that failed.", "fail"),
    "nv_inference_count": ("Prompts answered.", None),
    "nv_inference_exec_count": ("Requests answered.", None),
    "nv_inference_request_duration_us": ("Microseconds of all requests.", "success"),
    "nv_inference_queue_duration_us": ("Microseconds in the engine's queue.", "queue"),
    "nv_inference_compute_input_duration_us": (
        "Microseconds before the engine: tensors, template, tokens.",
        "compute_input",
    ),
    "nv_inference_compute_infer_duration_us": (
        "Microseconds from the first step to the last token.",
        "compute_infer",
    ),
    "nv_inference_compute_output_duration_us": (
        "Microseconds after the engine: text, tensors.",
        "compute_output",
    ),
}


class TritonCounters(Collector):
    """The counters that Triton's dashboards read, by Triton's names, which lack `_total`."""

    def __init__(
        self, models: dict[str, ModelStatistics], version: str, served: Callable[[], list[str]]
    ) -> None:
        self._models, self._version, self._served = models, version, served

    def collect(self) -> Iterator[Metric]:
        """Every series of every model, from 0 on: a rate needs a first value."""
        for name in self._served():
            self._models.setdefault(name, ModelStatistics())
        for name, (text, stage) in COUNTERS.items():
            # Declared as a counter, the client library would add _total to the name.
            metric = Metric(name, text, "unknown")
            for model, statistics in self._models.items():
                labels = {"model": model, "version": self._version}
                metric.add_sample(name, labels, _value(name, statistics, stage))
            yield metric


def _value(name: str, statistics: ModelStatistics, stage: str | None) -> float:
    if stage is None:
        is_count = name == "nv_inference_count"
        return statistics.inference_count if is_count else statistics.execution_count
    duration = statistics.stages[stage]
    return duration.ns / 1000 if name.endswith("_us") else duration.count
