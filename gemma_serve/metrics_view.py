"""
What two readings of a server's `/metrics` say of the time between them: rates, percentiles, levels.

Arithmetic alone: no network, no clock, no terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

# The release whose names these are; another may have others. Source: v1/metrics/loggers.py
VLLM_RELEASE = "0.32"
# vLLM's histograms, by the field's words.
LATENCIES = {
    "ttft": "vllm:time_to_first_token_seconds",
    "tpot": "vllm:request_time_per_output_token_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
    "queue": "vllm:request_queue_time_seconds",
}
COUNTERS = {
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
    "prefix_hits": "vllm:prefix_cache_hits_total",
    "preemptions": "vllm:num_preemptions_total",
    "finished": "vllm:request_success_total",
}
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
QUEUED = "gemma_serve_admission_waiting_requests"  # before they reach the engine
KV_CACHE = "vllm:kv_cache_usage_perc"  # a share of 1, whatever its name says
REQUESTS = "gemma_serve_http_requests_total"
KEY_USE = {
    "requests": "gemma_serve_key_requests_total",
    "prompt_tokens": "gemma_serve_key_prompt_tokens_total",
    "generation_tokens": "gemma_serve_key_generation_tokens_total",
}
# A probe's 503 is an answer, no failure: while a server starts, there are many.
PROBES = ("/livez", "/readyz", "/startupz", "/health", "/live", "/ready")
INFO = "gemma_serve_info"
STARTED = "process_start_time_seconds"
PERCENTILES = (50, 90, 99)
BARS = "▁▂▃▄▅▆▇█"

Labels = frozenset[tuple[str, str]]
Buckets = Mapping[float, float]  # upper bound in seconds -> observations at or below it


class NotGemmaServeError(ValueError):
    """A text that is no exposition of gemma-serve's."""


@dataclass(frozen=True)
class Reading:
    """All samples of one exposition, and when it was read."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]

    @property
    def info(self) -> dict[str, str]:
        """The labels of gemma_serve_info: profile, model, dtype, versions."""
        return dict(next(iter(self.samples[INFO])))

    def total(self, name: str) -> float | None:
        """The sum of a series over its labels (engines, adapters); None where there is none."""
        found = self.samples.get(name)
        return sum(found.values()) if found else None

    def highest(self, name: str) -> float | None:
        """The largest value over the labels: of several engines, the one in the most need."""
        return max(self.samples.get(name, {}).values(), default=None)

    def by_label(self, name: str, label: str, skip: tuple[str, ...] = ()) -> dict[str, float]:
        """The sums of a series by one of its labels, without the routes that end in `skip`."""
        sums: dict[str, float] = {}
        for labels, value in self.samples.get(name, {}).items():
            named = dict(labels)
            if named.get("route", "").endswith(skip):
                continue
            key = named.get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums

    def buckets(self, histogram: str) -> Buckets:
        """A histogram's cumulative buckets, summed over its labels."""
        sums = self.by_label(f"{histogram}_bucket", "le")
        return {float(bound): count for bound, count in sums.items()}


def read(text: str, at_s: float) -> Reading:
    """
    Parse an exposition in Prometheus's text format.

    Raises:
        NotGemmaServeError: it can't be parsed, or gemma_serve_info is not in it.
    """
    try:
        samples = _samples(text_string_to_metric_families(text))
    except (ValueError, LookupError) as error:
        raise NotGemmaServeError(str(error)) from error
    if INFO not in samples:
        raise NotGemmaServeError(f"no series {INFO}")
    return Reading(at_s, samples)


def _samples(families: Iterable[Metric]) -> dict[str, dict[Labels, float]]:
    samples: dict[str, dict[Labels, float]] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


@dataclass(frozen=True)
class Latency:
    """One kind of latency of the requests in a window, in seconds; None: there were none."""

    count: int
    mean_s: float | None
    percentiles_s: Mapping[int, float | None]


@dataclass(frozen=True)
class View:
    """A server over a window; rates are per second, None is what can't be told."""

    server: Mapping[str, str]
    window_s: float
    uptime_s: float | None
    prompt_tokens_per_s: float | None
    generation_tokens_per_s: float | None
    finished_per_s: float | None
    running: int | None
    waiting: int | None
    kv_cache_usage: float | None
    prefix_cache_hit_rate: float | None
    preemptions: int | None
    latencies: Mapping[str, Latency]
    # HTTP answers in the window and since the start: 4xx, 5xx, and 499 (the client left first).
    errors: Mapping[str, int] = field(default_factory=dict)
    errors_since_start: Mapping[str, int] = field(default_factory=dict)
    # By the key's name: requests, prompt and generated tokens in the window.
    keys: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: percentiles by p50, p90, p99."""
        shown = asdict(self)
        for latency in shown["latencies"].values():
            percentiles = latency.pop("percentiles_s")
            latency |= {f"p{number}_s": value for number, value in percentiles.items()}
        return shown


def is_restart(before: Reading, after: Reading) -> bool:
    """Whether the server was started anew in between, so that counters began at 0 again."""
    return before.total(STARTED) != after.total(STARTED)


def view(before: Reading, after: Reading) -> View:
    """What happened between two readings of one run of a server, and how it stands at the later."""
    window_s = after.at_s - before.at_s
    grown = {name: _grown(before, after, series) for name, series in COUNTERS.items()}
    began_s = after.total(STARTED)

    def per_second(name: str) -> float | None:
        count = grown[name]
        return None if count is None or window_s <= 0 else count / window_s

    return View(
        server=after.info,
        window_s=window_s,
        uptime_s=None if began_s is None else max(0.0, after.at_s - began_s),
        prompt_tokens_per_s=per_second("prompt_tokens"),
        generation_tokens_per_s=per_second("generation_tokens"),
        finished_per_s=per_second("finished"),
        running=_whole(after.total(RUNNING)),
        waiting=_whole(_sum(after.total(WAITING), after.total(QUEUED))),
        kv_cache_usage=after.highest(KV_CACHE),
        prefix_cache_hit_rate=_share(grown["prefix_hits"], grown["prefix_queries"]),
        preemptions=_whole(grown["preemptions"]),
        latencies={name: latency(before, after, series) for name, series in LATENCIES.items()},
        errors=_errors(before, after),
        errors_since_start=_errors(None, after),
        keys=_key_use(before, after),
    )


def _grown(before: Reading, after: Reading, name: str) -> float | None:
    total = after.total(name)
    return None if total is None else total - (before.total(name) or 0.0)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _errors(before: Reading | None, after: Reading) -> dict[str, int]:
    counts = {"4xx": 0, "5xx": 0, "499": 0}
    earlier = before.by_label(REQUESTS, "status", PROBES) if before else {}
    for status, total in after.by_label(REQUESTS, "status", PROBES).items():
        kind = status if status == "499" else f"{status[:1]}xx"
        if kind in counts:
            counts[kind] += int(total - earlier.get(status, 0.0))
    return counts


def _key_use(before: Reading, after: Reading) -> dict[str, dict[str, int]]:
    use: dict[str, dict[str, int]] = {}
    for what, series in KEY_USE.items():
        earlier = before.by_label(series, "key")
        for key, total in after.by_label(series, "key").items():
            counts = use.setdefault(key, dict.fromkeys(KEY_USE, 0))
            counts[what] = int(total - earlier.get(key, 0.0))
    return use


def latency(before: Reading, after: Reading, histogram: str) -> Latency:
    """A histogram's growth between two readings, as a distribution."""
    earlier = before.buckets(histogram)
    buckets = {
        bound: count - earlier.get(bound, 0.0) for bound, count in after.buckets(histogram).items()
    }
    count = max(buckets.values(), default=0.0)
    seconds = _grown(before, after, f"{histogram}_sum")
    return Latency(
        count=int(count),
        mean_s=_share(seconds, count),
        percentiles_s={number: quantile(number / 100, buckets) for number in PERCENTILES},
    )


def quantile(share: float, buckets: Buckets) -> float | None:
    """
    The quantile of a histogram, in its unit; None where nothing was observed.

    Between two bounds the observations are taken as evenly spread; beyond the last finite bound,
    that bound is all that is known. Source: histogram_quantile of Prometheus.

    Args:
        share: 0.5 for the median.
        buckets: Cumulative, with a bucket for infinity.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = share * buckets[bounds[-1]]
    place = next(i for i, bound in enumerate(bounds) if buckets[bound] >= rank and buckets[bound])
    bound = bounds[place]
    lower, below = (bounds[place - 1], buckets[bounds[place - 1]]) if place else (0.0, 0.0)
    if math.isinf(bound):
        return lower
    return lower + (bound - lower) * (rank - below) / (buckets[bound] - below)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars, the largest of them a whole one; 0 is a space."""
    shown = values[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return ""
    bars = len(BARS)
    return "".join(BARS[min(bars - 1, int(v / highest * bars))] if v > 0 else " " for v in shown)
