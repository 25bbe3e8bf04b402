"""The server's own view of a run: differences of two scrapes of its Prometheus metrics."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.metrics.requests import completed, ttft_s
from benchmarks.records import RequestRecord, ServerSide

# Source: vLLM 0.32 v1/metrics/loggers.py, v1/metrics/stats.py. Of several names the first that the
# server has is taken: older versions say time_per_output_token for the same.
HISTOGRAMS = {
    "ttft_mean_s": ("vllm:time_to_first_token_seconds",),
    "itl_mean_s": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "queue_mean_s": ("vllm:request_queue_time_seconds",),
    "prefill_mean_s": ("vllm:request_prefill_time_seconds",),
    "decode_mean_s": ("vllm:request_decode_time_seconds",),
}
COUNTERS = {
    "num_requests": "vllm:request_success_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "prefix_cache_queries": "vllm:prefix_cache_queries_total",
    "prefix_cache_hits": "vllm:prefix_cache_hits_total",
    "preemptions": "vllm:num_preemptions_total",
}


def server_side(
    before: str, after: str, records: Sequence[RequestRecord] = ()
) -> ServerSide | None:
    """
    What the server counted between two scrapes; None where it has no counters of vLLM's, or where
    they began anew in between.

    Means are delta(sum) / delta(count), over everything that ended in between: requests of the
    warm-up that were still running are in them. overhead_ttft = mean ttft of the client's measured
    requests - mean ttft of the engine: what HTTP, tokenizer, network and client add.
    """
    try:
        earlier, later = _totals(before), _totals(after)
    except ValueError:  # no Prometheus text: some other page lives at /metrics
        return None
    if any(later.get(name, 0.0) < earlier.get(name, 0.0) for name in COUNTERS.values()):
        return None
    found: dict[str, float | None] = {
        field: _mean(names, earlier, later) for field, names in HISTOGRAMS.items()
    }
    found |= {field: _delta(name, earlier, later) for field, name in COUNTERS.items()}
    if all(value is None for value in found.values()):
        return None
    found["overhead_ttft_s"] = _overhead_ttft_s(found["ttft_mean_s"], records)
    return ServerSide.model_validate(found)


def _totals(text: str) -> dict[str, float]:
    """Each series summed over its labels: engines, models, reasons."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def _delta(name: str, earlier: dict[str, float], later: dict[str, float]) -> float | None:
    """A series that appears only later began at 0."""
    return later[name] - earlier.get(name, 0.0) if name in later else None


def _mean(names: Sequence[str], earlier: dict[str, float], later: dict[str, float]) -> float | None:
    for name in names:
        count = _delta(f"{name}_count", earlier, later)
        total = _delta(f"{name}_sum", earlier, later)
        if count is not None and total is not None:
            return total / count if count else None
    return None


def _overhead_ttft_s(server_s: float | None, records: Sequence[RequestRecord]) -> float | None:
    measured = [record for record in completed(records) if record.phase == "measured"]
    client_s = [value for record in measured if (value := ttft_s(record)) is not None]
    if server_s is None or not client_s:
        return None
    return fmean(client_s) - server_s
