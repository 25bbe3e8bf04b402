"""Which figure of a run is compared."""

from __future__ import annotations

import pytest

from benchmarks.compare.metrics import REQUEST_METRICS, RUN_METRICS, ttft_p50_s
from benchmarks.records import Distribution, ServerSide
from tests.benchmarks.compare.made_up import made_up_run, record

BY_NAME = {metric.name: metric for metric in RUN_METRICS}


def test_primary_metrics() -> None:
    """At most five metrics are primary: Holm's correction is over them."""
    primary = [metric.name for metric in RUN_METRICS if metric.primary]
    assert primary == ["output_tps", "ttft_p50_s", "tpot_p50_s", "itl_p95_s", "goodput_rps"]


def test_values() -> None:
    """A metric is read from the full run; what was not measured is None."""
    run = made_up_run(100.0, ttft_s=0.2)
    found = {name: metric.value(run) for name, metric in BY_NAME.items()}
    assert found["output_tps"] == 100.0
    assert found["ttft_p50_s"] == 0.2
    absent = {name for name, value in found.items() if value is None}
    assert absent == set(BY_NAME) - {"output_tps", "ttft_p50_s"}


def test_itl_of_a_block() -> None:
    """A block's p95 of ITL is its sample's, however few its requests, which are counted."""
    run = made_up_run(itl_p95_s=0.03, itl_requests=32)
    itl = BY_NAME["itl_p95_s"]
    assert (itl.value(run), itl.requests and itl.requests(run)) == (0.03, 32)
    assert itl.floor == 130


def test_ttft_of_an_open_loop() -> None:
    """In an open loop TTFT counts from the scheduled sending."""
    run = made_up_run(ttft_s=0.2)
    scheduled = Distribution(unit="s", n=10, p50=0.5)
    run.metrics.full_run.distributions["ttft_sched_s"] = scheduled
    assert ttft_p50_s(run) == 0.5


def test_server_side() -> None:
    """CPU time is per output token, in microseconds."""
    run = made_up_run(server=ServerSide(tree_cpu_s=2.5, api_rss_mib=900))
    # 2.5 s over 1000 tokens
    assert BY_NAME["cpu_us_per_token"].value(run) == pytest.approx(2500)
    assert BY_NAME["api_rss_mib"].value(run) == 900


def test_request_metrics() -> None:
    """Ping-pong compares ttft, tpot and e2e of a request."""
    found = {
        metric.name: metric.value(record(ttft_s=0.1, tpot_s=0.01)) for metric in REQUEST_METRICS
    }
    assert found == pytest.approx({"ttft_s": 0.1, "tpot_s": 0.01, "e2e_s": 0.12})
