"""
A run as `vllm bench serve --save-result --save-detailed` writes it: its keys, its definitions.

They are not ours: TTFT ends at the first event with `choices`, ITL is a gap between events, and
the highest tokens per second counts events. Source: vLLM 0.32 benchmarks/serve.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.metrics.requests import completed, prompt_tokens
from benchmarks.records import RequestRecord, Run, Slo

BACKENDS = {"openai-chat": "openai-chat", "openai-completions": "openai"}


def vllm_bench(run: Run, records: Sequence[RequestRecord]) -> dict[str, Any]:
    """The result of the measured requests as vLLM's own tool would have saved it."""
    measured = [record for record in records if record.phase == "measured"]
    ok = [record for record in completed(measured) if _event_times_s(record)]
    return _conditions(run, len(measured)) | _totals(run, measured, ok) | _detail(measured, ok)


def _conditions(run: Run, num_prompts: int) -> dict[str, Any]:
    load = run.load
    backend = BACKENDS.get(run.target.protocol, run.target.protocol)
    return {
        "date": datetime.fromisoformat(run.started_at).strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": backend,
        "backend": backend,
        "label": run.target.label,
        "model_id": run.target.model,
        "tokenizer_id": run.target.model,
        "num_prompts": num_prompts,
        "request_rate": load.rate_rps or "inf",
        "burstiness": load.burstiness or 1.0,
        "max_concurrency": load.concurrency if load.mode == "closed" else load.max_concurrency,
    }


def _totals(
    run: Run, measured: Sequence[RequestRecord], ok: Sequence[RequestRecord]
) -> dict[str, Any]:
    duration_s = run.metrics.full_run.duration_s
    prompts = sum(prompt_tokens(record) or 0 for record in ok)
    outputs = sum(record.num_output_tokens for record in ok)
    good = sum(_is_good(record, run.slo) for record in ok) if run.slo else 0
    peak_tps, peak_requests = _peaks(ok)
    rates = {
        "request_throughput": len(ok),
        "request_goodput": good,
        "output_throughput": outputs,
        "total_token_throughput": prompts + outputs,
    }
    per_second = {key: count / duration_s if duration_s else 0.0 for key, count in rates.items()}
    return {
        "duration": duration_s,
        "completed": len(ok),
        "failed": len(measured) - len(ok),
        "total_input_tokens": prompts,
        "total_output_tokens": outputs,
        **per_second,
        **({} if run.slo else {"request_goodput": None}),
        "max_output_tokens_per_s": peak_tps,
        "max_concurrent_requests": peak_requests,
        "rtfx": 0.0,  # of audio only
        **_statistics("ttft", [_ttft_s(record) for record in ok]),
        **_statistics("tpot", [v for r in ok if (v := _tpot_s(r)) is not None]),
        **_statistics("itl", [gap for record in ok for gap in _itl_s(record)]),
        **_statistics("e2el", [_latency_s(record) for record in ok]),
    }


def _detail(measured: Sequence[RequestRecord], ok: Sequence[RequestRecord]) -> dict[str, Any]:
    """One entry a request; a failed one has zeros, as there."""
    succeeded = {id(record) for record in ok}
    good = [id(record) in succeeded for record in measured]
    both = list(zip(measured, good, strict=True))
    return {
        "input_lens": [prompt_tokens(record) or 0 for record in measured],
        "output_lens": [record.num_output_tokens if fine else 0 for record, fine in both],
        "ttfts": [_ttft_s(record) if fine else 0.0 for record, fine in both],
        "itls": [_itl_s(record) if fine else [] for record, fine in both],
        "latencies": [_latency_s(record) if fine else 0.0 for record, fine in both],
        "start_times": [record.send_s for record in measured],
        "queue_times": [record.queue_s for record in measured],
        "generated_texts": [record.text or "" for record in measured],
        "errors": [record.error_message or record.error or "" for record in measured],
    }


def _event_times_s(record: RequestRecord) -> list[float]:
    """Events with `choices` after the sending: the first, with tokens or not, then those with."""
    times_s = [chunk.at_s for chunk in record.chunks]
    if record.choice_s is not None and times_s and record.choice_s < times_s[0]:
        return [record.choice_s, *times_s]
    return times_s


def _ttft_s(record: RequestRecord) -> float:
    return _event_times_s(record)[0]


def _latency_s(record: RequestRecord) -> float:
    return _event_times_s(record)[-1]


def _itl_s(record: RequestRecord) -> list[float]:
    return [after - before for before, after in pairwise(_event_times_s(record))]


def _tpot_s(record: RequestRecord) -> float | None:
    if record.num_output_tokens < 2:
        return None
    return (_latency_s(record) - _ttft_s(record)) / (record.num_output_tokens - 1)


def _is_good(record: RequestRecord, slo: Slo) -> bool:
    """Their goodput: every time from the sending, and a tpot of 0 where there is one token."""
    found_s = (
        (_ttft_s(record), slo.ttft_ms),
        (_tpot_s(record) or 0.0, slo.tpot_ms),
        (_latency_s(record), slo.e2e_ms),
    )
    return all(limit is None or value_s <= limit / 1000 for value_s, limit in found_s)


def _statistics(name: str, values_s: Sequence[float]) -> dict[str, float]:
    """Mean, median, std and p99 in ms, 0 of nothing; std divides by n, p99 has no floor."""
    values_ms = np.asarray(values_s or [0.0]) * 1000
    return {
        f"mean_{name}_ms": float(np.mean(values_ms)),
        f"median_{name}_ms": float(np.median(values_ms)),
        f"std_{name}_ms": float(np.std(values_ms)),
        f"p99_{name}_ms": float(np.percentile(values_ms, 99)),
    }


def _peaks(ok: Sequence[RequestRecord]) -> tuple[float, int]:
    """Most events in a second, and most requests that touch one: a short one counts for all."""
    if not ok:
        return 0.0, 0
    began_s = min(record.send_s for record in ok)
    num_seconds = math.ceil(max(r.send_s + _latency_s(r) for r in ok) - began_s) + 1
    events, requests = np.zeros(num_seconds), np.zeros(num_seconds)
    for record in ok:
        for at_s in _event_times_s(record):
            events[int(record.send_s + at_s - began_s)] += 1
        first, last = record.send_s - began_s, record.send_s + _latency_s(record) - began_s
        requests[int(first) : int(last) + 1] += 1
    return float(events.max()), int(requests.max())
