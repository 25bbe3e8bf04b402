"""
The metrics of a run over two windows: the whole measured part, and the part under full load.

The first compares with other tools; the second has neither the ramp nor the drain in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from benchmarks.metrics import requests as per_request
from benchmarks.metrics.distributions import describe
from benchmarks.metrics.goodput import goodput
from benchmarks.metrics.requests import completed, prompt_tokens, token_arrivals, ttft_s
from benchmarks.metrics.timeline import (
    Span,
    mean_concurrency,
    mean_open,
    open_requests,
    spans_at_least,
)
from benchmarks.records import Distribution, Load, Metrics, RequestRecord, Slo, Window

ONE_A_REQUEST: dict[str, tuple[Callable[[RequestRecord], float | None], str]] = {
    "ttft_s": (per_request.ttft_s, "s"),
    "ttft_sched_s": (per_request.ttft_sched_s, "s"),
    "ttfc_s": (per_request.ttfc_s, "s"),
    "e2e_s": (per_request.e2e_s, "s"),
    "e2e_sched_s": (per_request.e2e_sched_s, "s"),
    "tpot_s": (per_request.tpot_s, "s"),
    "max_stall_s": (per_request.max_stall_s, "s"),
    "ntpot_s": (per_request.ntpot_s, "s"),
    "speed_user_tps": (per_request.speed_user_tps, "tokens/s"),
    "prefill_tps": (per_request.prefill_tps, "tokens/s"),
}
MANY_A_REQUEST: dict[str, tuple[Callable[[RequestRecord], list[float]], str]] = {
    "icl_s": (per_request.icl_s, "s"),
    "itl_s": (per_request.itl_s, "s"),
}
# Only an open loop has a schedule: elsewhere these would be rows of nothing.
OPEN_LOOP_ONLY = ("ttft_sched_s", "e2e_sched_s")
# Elsewhere a request shares the server, and this would be no speed of it.
ONE_CLIENT_ONLY = ("prefill_tps",)

FULL_LOAD = 0.9
# Between the end of a client's request and the start of its next there is always a moment. A dip
# is not taken for less load while it is shorter than this, or than this part of a request.
BRIDGE_S = 0.005
BRIDGE_PART = 0.05


def summarise(records: Sequence[RequestRecord], load: Load, slo: Slo | None) -> Metrics:
    """
    Both windows of a run.

    Raises:
        ValueError: there is no measured request.
    """
    steady_window, reason = steady(records, load, slo)
    return Metrics(
        full_run=full_run(records, slo, one_client=_one_client(load)),
        steady=steady_window,
        steady_reason=reason,
    )


def _one_client(load: Load) -> bool:
    return load.mode == "closed" and load.concurrency == 1


def full_run(
    records: Sequence[RequestRecord], slo: Slo | None, *, one_client: bool = False
) -> Window:
    """
    All measured requests, D = first measured sending to the last end of one that completed.

    output_tps = sum(n) / D, total_tps = sum(prompt + n) / D, rps = ok / D, over completed requests;
    mean_concurrency = sum(e2e) / D.
    Source: vLLM 0.32 benchmarks/serve.py (ramp and drain are in it).
    """
    measured = _measured(records)
    ok = completed(measured)
    began_s = min(record.send_s for record in measured)
    span = Span(began_s, max((record.end_s for record in ok), default=began_s))
    return _window(
        span,
        measured,
        output_tokens=sum(record.num_output_tokens for record in ok),
        prefilled=ok,
        concurrency=mean_concurrency(ok, span.length_s),
        slo=slo,
        one_client=one_client,
    )


def steady(
    records: Sequence[RequestRecord], load: Load, slo: Slo | None
) -> tuple[Window | None, str | None]:
    """
    The window under full load, or why there is none.

    Closed loop: the longest span of the measured part in which at least 0.9 x concurrency requests
    are open, those of the warm-up included. Open loop: from the first measured scheduled sending,
    or the end of the ramp, to the last. Tokens count by their own arrival, prompts by their first
    token's, requests by their completion, whichever phase they belong to; failed requests' tokens
    do not count.
    Source: lmsys/sglang#30918 (longest span above a part of the peak concurrency).
    """
    span, reason = _steady_span(records, load)
    if span is None:
        return None, reason
    ended = [record for record in records if span.began_s <= record.end_s <= span.ended_s]
    ok = completed(ended)
    shortest_s = median_e2e_s(ok)
    if shortest_s is None or span.length_s < shortest_s:
        return None, (
            f"full load lasted {span.length_s:.2f} s, less than one request; send more requests"
        )
    arrivals = [pair for record in completed(records) for pair in token_arrivals(record)]
    tokens = sum(count for at_s, count in arrivals if span.began_s < at_s <= span.ended_s)
    window = _window(
        span,
        ended,
        output_tokens=round(tokens),
        prefilled=_prefilled_within(records, span),
        concurrency=mean_open(records, span),
        slo=slo,
        one_client=_one_client(load),
    )
    return window, None


def median_e2e_s(records: Sequence[RequestRecord]) -> float | None:
    """The median end-to-end latency, however few requests there are."""
    values = sorted(value for record in records if (value := per_request.e2e_s(record)) is not None)
    return values[len(values) // 2] if values else None


def distributions(
    ok: Sequence[RequestRecord], *, one_client: bool = False
) -> dict[str, Distribution]:
    """Every metric of `requests.py` over completed requests, by its function's name."""
    found: dict[str, Distribution] = {}
    scheduled = any(record.sched_s is not None for record in ok)
    left_out = [] if scheduled else [*OPEN_LOOP_ONLY]
    left_out += [] if one_client else ONE_CLIENT_ONLY
    for name, (metric, unit) in ONE_A_REQUEST.items():
        if name not in left_out:
            values = [value for record in ok if (value := metric(record)) is not None]
            found[name] = describe(values, unit)
    for name, (gaps, unit) in MANY_A_REQUEST.items():
        by_request = [values for record in ok if (values := gaps(record))]
        pooled = [value for values in by_request for value in values]
        found[name] = describe(pooled, unit, clusters=len(by_request))
    if any(record.queue_s > 0 for record in ok):
        found["client_queue_s"] = describe([record.queue_s for record in ok], "s")
    return found


def _measured(records: Sequence[RequestRecord]) -> list[RequestRecord]:
    measured = [record for record in records if record.phase == "measured"]
    if not measured:
        raise ValueError("the run has no measured request; ask for at least one")
    return measured


def _window(
    span: Span,
    ended: Sequence[RequestRecord],
    *,
    output_tokens: int,
    prefilled: Sequence[RequestRecord],
    concurrency: float | None,
    slo: Slo | None,
    one_client: bool,
) -> Window:
    ok = completed(ended)
    lasts = span.length_s > 0
    known = [count for record in prefilled if (count := prompt_tokens(record)) is not None]
    all_known = bool(known) and len(known) == len(prefilled)
    cached = [record.cached_tokens for record in prefilled if record.cached_tokens is not None]
    return Window(
        began_s=span.began_s,
        ended_s=span.ended_s,
        duration_s=span.length_s,
        num_ok=len(ok),
        num_failed=len(ended) - len(ok),
        errors=dict(Counter(record.error for record in ended if record.error is not None)),
        output_tokens=output_tokens,
        prompt_tokens=sum(known),
        cached_prompt_tokens=sum(cached) if cached else None,
        output_tps=output_tokens / span.length_s if lasts else None,
        total_tps=(sum(known) + output_tokens) / span.length_s if lasts and all_known else None,
        rps=len(ok) / span.length_s if lasts else None,
        mean_concurrency=concurrency,
        distributions=distributions(ok, one_client=one_client),
        goodput=None if slo is None else goodput(ended, slo, span.length_s),
    )


def _steady_span(records: Sequence[RequestRecord], load: Load) -> tuple[Span | None, str | None]:
    measured = _measured(records)
    if load.mode != "closed":
        due_s = [record.sched_s for record in measured if record.sched_s is not None]
        if len(due_s) < 2:
            return None, "fewer than two requests had a scheduled sending; send more requests"
        ramp_s = load.ramp_s or 0.0
        if max(due_s) <= ramp_s:
            return None, f"all was sent within the ramp of {ramp_s:g} s; send more requests"
        return Span(max(min(due_s), ramp_s), max(due_s)), None
    began_s = min(record.send_s for record in measured)
    wanted = FULL_LOAD * (load.concurrency or 1)
    usual_s = median_e2e_s(completed(records)) or 0.0
    bridge_s = max(BRIDGE_S, BRIDGE_PART * usual_s)
    spans = [
        Span(max(span.began_s, began_s), span.ended_s)
        for span in spans_at_least(open_requests(records), wanted, bridge_s)
        if span.ended_s > began_s
    ]
    if not spans:
        return None, (
            f"never were {wanted:g} requests open at once (0.9 x concurrency "
            f"{load.concurrency}); send more requests, or lower the concurrency"
        )
    return max(spans, key=lambda span: span.length_s), None


def _prefilled_within(records: Sequence[RequestRecord], span: Span) -> list[RequestRecord]:
    """Those whose first token came in the span: until then their prompt was being read."""
    return [
        record
        for record in completed(records)
        if (first_s := ttft_s(record)) is not None
        and span.began_s < record.send_s + first_s <= span.ended_s
    ]
