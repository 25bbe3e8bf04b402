"""What two expositions say of the time between them; the figures are worked out beside each."""

from __future__ import annotations

import math

import pytest

from gemma_serve.metrics_view import (
    NotGemmaServeError,
    Reading,
    is_restart,
    quantile,
    read,
    sparkline,
    view,
)

INF = math.inf

# Two engines, so that sums and the fullest cache differ from any one of them.
EXPOSITION = """
# TYPE gemma_serve_info gauge
gemma_serve_info{{profile="demo",dtype="bf16",vllm_version="0.32.0"}} 1.0
process_start_time_seconds {began}
vllm:prompt_tokens_total{{engine="0"}} {prompt}
vllm:prompt_tokens_total{{engine="1"}} 1000
vllm:generation_tokens_total{{engine="0"}} {generated}
vllm:num_requests_running{{engine="0"}} 3.0
vllm:num_requests_running{{engine="1"}} 4.0
vllm:num_requests_waiting{{engine="0"}} 2.0
gemma_serve_admission_waiting_requests 3.0
vllm:kv_cache_usage_perc{{engine="0"}} 0.25
vllm:kv_cache_usage_perc{{engine="1"}} 0.75
vllm:prefix_cache_queries_total{{engine="0"}} {queries}
vllm:prefix_cache_hits_total{{engine="0"}} {hits}
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{le="0.1"}} {fast}
vllm:time_to_first_token_seconds_bucket{{le="0.2"}} {slow}
vllm:time_to_first_token_seconds_bucket{{le="+Inf"}} {slow}
vllm:time_to_first_token_seconds_count {slow}
vllm:time_to_first_token_seconds_sum {sum_s}
gemma_serve_http_requests_total{{route="/v1/chat/completions",status="200"}} 50
gemma_serve_http_requests_total{{route="/v1/chat/completions",status="400"}} {refused}
gemma_serve_http_requests_total{{route="/v1/messages",status="401"}} 1
gemma_serve_http_requests_total{{route="/v1/messages",status="499"}} 6
gemma_serve_http_requests_total{{route="/v1/messages",status="503"}} {failed}
gemma_serve_key_requests_total{{key="a",outcome="taken"}} {refused}
gemma_serve_key_requests_total{{key="a",outcome="refused"}} 1
gemma_serve_key_requests_total{{key="b",outcome="taken"}} 7
gemma_serve_key_prompt_tokens_total{{key="a"}} {prompt}
gemma_serve_key_generation_tokens_total{{key="a"}} {generated}
gemma_serve_http_requests_total{{route="/readyz",status="503"}} 100
gemma_serve_http_requests_total{{route="/v2/health/ready",status="503"}} 100
"""
BEFORE = {
    "began": 1000,
    "prompt": 200,
    "generated": 100,
    "queries": 40,
    "hits": 10,
    "fast": 5,
    "slow": 5,
    "sum_s": 0.25,
    "refused": 2,
    "failed": 0,
}
AFTER = BEFORE | {
    "prompt": 700,
    "generated": 1300,
    "queries": 240,
    "hits": 60,
    "fast": 11,
    "slow": 15,
    "sum_s": 1.25,
    "refused": 5,
    "failed": 1,
}


def reading(values: dict[str, float], at_s: float = 2000.0) -> Reading:
    return read(EXPOSITION.format(**values), at_s)


def test_rates_are_growth_over_the_time_between() -> None:
    """Tokens of all engines, by second."""
    shown = view(reading(BEFORE, 2000), reading(AFTER, 2010))

    assert shown.window_s == 10
    assert shown.prompt_tokens_per_s == 50  # (700 + 1000 - 200 - 1000) / 10
    assert shown.generation_tokens_per_s == 120  # (1300 - 100) / 10
    assert shown.finished_per_s is None  # no such series yet


def test_levels_are_those_of_the_later_reading() -> None:
    """Requests add up over engines; of caches, the fullest counts."""
    shown = view(reading(BEFORE, 2000), reading(AFTER, 2010))

    assert (shown.running, shown.waiting) == (7, 5)  # 3 + 4, 2 + 3
    assert shown.kv_cache_usage == 0.75
    assert shown.uptime_s == 1010  # 2010 - 1000
    assert shown.server == {"profile": "demo", "dtype": "bf16", "vllm_version": "0.32.0"}


def test_prefix_hits_of_the_window() -> None:
    """Hits over queries since the earlier reading, not since the start."""
    assert view(reading(BEFORE), reading(AFTER, 2010)).prefix_cache_hit_rate == 0.25  # 50 / 200
    assert view(reading(AFTER), reading(AFTER, 2010)).prefix_cache_hit_rate is None  # 0 / 0


def test_errors_of_the_window_and_since_the_start() -> None:
    """By their first digit; a client that left is none of the 4xx, a probe's 503 no failure."""
    shown = view(reading(BEFORE), reading(AFTER, 2010))

    assert shown.errors == {"4xx": 3, "5xx": 1, "499": 0}  # 5 - 2, 1 - 0, 6 - 6
    assert shown.errors_since_start == {"4xx": 6, "5xx": 1, "499": 6}  # 5 + 1


def test_use_by_key_in_the_window() -> None:
    """Requests of any outcome and tokens, by the key's name."""
    shown = view(reading(BEFORE), reading(AFTER, 2010))

    a = {"requests": 3, "prompt_tokens": 500, "generation_tokens": 1200}  # 6 - 3, 700 - 200, ...
    b = {"requests": 0, "prompt_tokens": 0, "generation_tokens": 0}  # 7 - 7
    assert shown.keys == {"a": a, "b": b}


def test_latency_of_the_window() -> None:
    """Percentiles and mean of what was observed since the earlier reading."""
    # 10 observations: 11 - 5 = 6 up to 0.1 s, 4 between 0.1 and 0.2 s.
    ttft = view(reading(BEFORE), reading(AFTER, 2010)).latencies["ttft"]

    assert ttft.count == 10
    assert ttft.mean_s == pytest.approx(0.1)  # (1.25 - 0.25) / 10
    assert ttft.percentiles_s[50] == pytest.approx(0.1 * 5 / 6)  # the 5th of 6 up to 0.1 s
    assert ttft.percentiles_s[90] == pytest.approx(0.175)  # the 9th: 3 of the 4 above 0.1 s
    assert ttft.percentiles_s[99] == pytest.approx(0.1975)  # 9.9: 3.9 of 4


def test_no_requests_have_no_latency() -> None:
    """An idle window, and a histogram that is not there."""
    shown = view(reading(AFTER), reading(AFTER, 2010))

    for name in ("ttft", "e2e"):
        assert shown.latencies[name].count == 0
        assert shown.latencies[name].mean_s is None
        assert set(shown.latencies[name].percentiles_s.values()) == {None}


def test_one_reading_has_levels_and_no_rates() -> None:
    """Between a reading and itself there is no time."""
    shown = view(reading(AFTER), reading(AFTER))

    assert (shown.generation_tokens_per_s, shown.running) == (None, 7)


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, {1.0: 0, 2.0: 10, INF: 10}, 1.5),  # half way from 1 to 2
        (1.0, {1.0: 0, 2.0: 10, INF: 10}, 2.0),
        (0.5, {1.0: 10, INF: 10}, 0.5),  # the first bucket begins at 0
        (0.25, {1.0: 10, 2.0: 20, 4.0: 40, INF: 40}, 1.0),  # the 10th of 40
        (0.75, {1.0: 10, 2.0: 20, 4.0: 40, INF: 40}, 3.0),  # the 30th: 10 of 20 from 2 to 4
        (0.99, {1.0: 10, INF: 100}, 1.0),  # beyond the last bound, it is all that is known
        (0.5, {1.0: 0, 2.0: 0, INF: 7}, 2.0),
        (0.5, {1.0: 0, INF: 0}, None),
        (0.5, {}, None),
    ],
    ids=str,
)
def test_quantile(share: float, buckets: dict[float, float], expected: float | None) -> None:
    """As Prometheus's histogram_quantile."""
    assert quantile(share, buckets) == expected


def test_restart() -> None:
    """A process that began at another time counts from 0 again."""
    assert is_restart(reading(BEFORE), reading(AFTER | {"began": 1500}))
    assert not is_restart(reading(BEFORE), reading(AFTER))


@pytest.mark.parametrize(
    "text",
    ["", "<html>hello</html>", '{"status": "ok"}', "vllm:num_requests_running 1.0\n", 'a{b="c'],
)
def test_other_texts_are_refused(text: str) -> None:
    """A page, JSON, vLLM's own server, a cut exposition: none is gemma-serve's."""
    with pytest.raises(NotGemmaServeError):
        read(text, 0.0)


def test_json_names_the_percentiles() -> None:
    """Machines find p50, p90 and p99 by name."""
    shown = view(reading(BEFORE), reading(AFTER, 2010)).as_dict()

    assert set(shown["latencies"]["ttft"]) == {"count", "mean_s", "p50_s", "p90_s", "p99_s"}


def test_sparkline() -> None:
    """The largest value is a whole bar, nothing is a space, and the oldest go first."""
    assert sparkline([0, 1, 4, 8], 10) == " ▂▅█"  # of eight bars: 1/8 more than one, 4/8, 8/8
    assert sparkline([5, 0, 8], 2) == " █"
    assert sparkline([0, 0], 10) == ""
    assert sparkline([], 10) == ""
