"""Numbers, units and names as a reader wants them."""

from __future__ import annotations

import math

from benchmarks.records import Load

METRIC_NAMES = {
    "ttft": "Time to first token",
    "ttft_sched": "Time to first token, from schedule",
    "ttfc": "Time to first event",
    "e2e": "End-to-end latency",
    "e2e_sched": "End-to-end latency, from schedule",
    "tpot": "Time per output token",
    "itl": "Inter-token latency",
    "icl": "Inter-chunk latency",
    "max_stall": "Longest pause of a request",
    "ntpot": "Normalised time per output token",
    "speed_user": "Tokens per second per user",
    "prefill": "Prompt tokens per second until the first token",
    "output_tps": "Output tokens per second",
    "total_tps": "Total tokens per second",
    "rps": "Requests per second",
    "goodput_rps": "Goodput, requests per second",
    "goodput_tps": "Goodput, tokens per second",
    "num_ok": "Requests completed",
    "num_failed": "Requests failed",
    "num_requests": "Requests",
    "overhead_ttft": "TTFT added by HTTP layer, network and client",
    "api_cpu": "CPU time of the API process",
    "tree_cpu": "CPU time of all its processes",
    "api_rss_mib": "Memory of the API process",
    "cpu_us_per_token": "CPU time per token, µs",
}
PERCENTILES = {"p50": "median", "p90": "p90", "p95": "p95", "p99": "p99", "mean": "mean"}
ACRONYMS = {"cpu": "CPU", "gpu": "GPU", "gib": "GiB", "mib": "MiB", "slo": "SLO", "ttft": "TTFT"}
ACRONYMS |= {"itl": "ITL", "tpot": "TPOT", "url": "URL", "rss": "RSS", "api": "API", "kv": "KV"}
UNIT_ENDINGS = ("_s", "_ms", "_tps")


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, and thin spaces between its thousands."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if float(value).is_integer():
        return tick(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}".replace(",", "\u2009").replace("-", "\u2212")


def heading(key: str) -> str:
    """`client_cpu` as 'Client CPU'."""
    parts = [ACRONYMS.get(part, part) for part in str(key).replace("_", " ").split(" ")]
    name = " ".join(parts)
    return name[:1].upper() + name[1:]


def tick(value: float) -> str:
    """A number on an axis: no more digits than it has."""
    plain = f"{value:,.10f}".rstrip("0").rstrip(".")
    return plain.replace(",", "\u2009").replace("-", "\u2212")


def seconds(value_s: float) -> str:
    """A duration in the unit that fits it: 1.24 s, 35.1 ms, 40 µs."""
    if value_s >= 1 or value_s == 0:
        return f"{number(value_s)}\u00a0s"
    if value_s >= 1e-3:
        return f"{number(value_s * 1e3)}\u00a0ms"
    return f"{number(value_s * 1e6)}\u00a0µs"


def seconds_tick(value_s: float) -> str:
    """A duration on a logarithmic axis, where units change on the way."""
    if value_s >= 1 or value_s == 0:
        return f"{tick(value_s)} s"
    if value_s >= 1e-3:
        return f"{tick(float(f'{value_s * 1e3:.6g}'))} ms"
    return f"{tick(float(f'{value_s * 1e6:.6g}'))} µs"


def percent(part: float, digits: int = 1) -> str:
    """0.123 as 12.3 %."""
    return f"{part * 100:.{digits}f}".rstrip("0").rstrip(".").replace("-", "\u2212") + "\u00a0%"


def signed_percent(ratio: float) -> str:
    """A ratio as its distance from 1: 1.034 as +3.4 %."""
    sign = "+" if ratio >= 1 else "\u2212"
    return f"{sign}{abs(ratio - 1) * 100:.1f}\u00a0%"


def ratio(value: float) -> str:
    """A ratio with the digits that paired measurements can carry."""
    return f"{value:.3f}" if value < 10 else number(value)


def quantity(value: float, unit: str) -> str:
    """A value in its unit, durations in the unit that fits."""
    if unit == "s":
        return seconds(value)
    if unit == "share":
        return percent(value)
    return number(value) if unit in ("", "ratio") else f"{number(value)}\u00a0{unit}"


def limit(value: float, unit: str) -> str:
    """A limit in its unit, as it was chosen: without zeros that promise a precision."""
    if unit == "s":
        return seconds_tick(value)
    if unit == "share":
        return percent(value)
    return tick(value) if unit in ("", "ratio") else f"{tick(value)}\u00a0{unit}"


def metric_name(metric: str) -> str:
    """`ttft_p50_s` as 'Time to first token, median'."""
    known = METRIC_NAMES.get(metric)
    if known:
        return known
    bare = next((metric[: -len(end)] for end in UNIT_ENDINGS if metric.endswith(end)), metric)
    stem, _, last = bare.rpartition("_")
    if last in PERCENTILES:
        return f"{METRIC_NAMES.get(stem, heading(stem))}, {PERCENTILES[last]}"
    return METRIC_NAMES.get(bare, heading(bare))


def load_words(load: Load) -> str:
    """A load as a sentence's part."""
    ramp = f", reached within {load.ramp_s:g} s" if load.ramp_s else ""
    if load.mode == "closed":
        return f"closed loop, {load.concurrency} requests at a time{ramp}"
    cap = f", at most {load.max_concurrency} open" if load.max_concurrency else ""
    if load.mode == "trace":
        return f"at the trace's own times{cap}"
    shape = load.arrivals or "constant"
    burst = f" (burstiness {load.burstiness:g})" if shape == "gamma" and load.burstiness else ""
    return f"open loop, {load.rate_rps:g} requests a second, {shape} arrivals{burst}{cap}{ramp}"
