"""Goodput: what met a service level objective, and how it is written on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.metrics.requests import (
    e2e_s,
    e2e_sched_s,
    max_stall_s,
    tpot_s,
    ttft_s,
    ttft_sched_s,
)
from benchmarks.records import Goodput, RequestRecord, Slo

# MLPerf asks its two of 99 % of the requests (attainment >= 0.99).
# Source: mlcommons/inference_policies inference_rules.adoc (server and interactive constraints);
# chat and rag: guidellm's guide to service level objectives.
PRESETS = {
    "mlperf-llama3.1-8b-server": Slo(ttft_ms=2000, tpot_ms=100),
    "mlperf-llama3.1-8b-interactive": Slo(ttft_ms=500, tpot_ms=30),
    "mlperf-llama2-70b-server": Slo(ttft_ms=2000, tpot_ms=200),
    "mlperf-llama2-70b-interactive": Slo(ttft_ms=450, tpot_ms=40),
    "mlperf-llama3.1-405b-server": Slo(ttft_ms=6000, tpot_ms=175),
    "mlperf-llama3.1-405b-interactive": Slo(ttft_ms=4500, tpot_ms=80),
    "chat": Slo(ttft_ms=200, tpot_ms=50),
    "rag": Slo(ttft_ms=300, tpot_ms=100),
}


def is_good(record: RequestRecord, slo: Slo) -> bool:
    """
    Whether a request ended well and kept every limit of the SLO; a value at its limit keeps it.

    In an open loop ttft and e2e count from the scheduled sending (MLPerf LoadGen). A limit on
    something undefined is kept: with one token there is no tpot (vLLM 0.32 benchmarks/serve.py).
    """
    if record.error is not None:
        return False
    scheduled = record.sched_s is not None
    found_s = {
        "ttft_ms": ttft_sched_s(record) if scheduled else ttft_s(record),
        "tpot_ms": tpot_s(record),
        "e2e_ms": e2e_sched_s(record) if scheduled else e2e_s(record),
        "max_stall_ms": max_stall_s(record),
    }
    return all(
        value_s is None or value_s * 1000 <= limit_ms
        for name, value_s in found_s.items()
        if (limit_ms := getattr(slo, name)) is not None
    )


def goodput(records: Sequence[RequestRecord], slo: Slo, duration_s: float) -> Goodput:
    """
    Good requests and their tokens per second; attainment = good / (ok + failed).

    Failed and timed-out requests stay in attainment's denominator; there are none that the harness
    cut off, as it lets every request finish.
    Source: AIPerf (good_request_fraction), vllm-project/guidellm#1085, inference-perf.
    """
    good = [record for record in records if is_good(record, slo)]
    good_tokens = sum(record.num_output_tokens for record in good)
    return Goodput(
        slo=slo,
        num_good=len(good),
        num_counted=len(records),
        goodput_rps=len(good) / duration_s if duration_s > 0 else 0.0,
        goodput_tps=good_tokens / duration_s if duration_s > 0 else 0.0,
        attainment=len(good) / len(records) if records else 0.0,
    )


def parse_slo(text: str) -> Slo:
    """
    An SLO from 'ttft_ms=200,tpot_ms=50', or from a preset's name.

    Raises:
        ValueError: no such preset, no such limit, or no positive number.
    """
    name = text.strip()
    if "=" in name:
        return Slo(**dict(_limit(part.strip(), text) for part in name.split(",")))
    if name not in PRESETS:
        raise ValueError(
            f"no SLO named {name!r}; there are {', '.join(PRESETS)}, "
            "or write its limits, like ttft_ms=200,tpot_ms=50"
        )
    return PRESETS[name]


def _limit(part: str, text: str) -> tuple[str, float]:
    key, _, value = (word.strip() for word in part.partition("="))
    if key not in Slo.model_fields:
        raise ValueError(
            f"the SLO {text!r} limits {key!r}; allowed are {', '.join(Slo.model_fields)}, "
            "like ttft_ms=200,tpot_ms=50"
        )
    try:
        limit_ms = float(value)
    except ValueError:
        limit_ms = 0.0
    if not 0 < limit_ms < float("inf"):
        raise ValueError(
            f"the SLO {text!r} sets {key} to {value!r}; give milliseconds above 0, like {key}=200"
        )
    return key, limit_ms
