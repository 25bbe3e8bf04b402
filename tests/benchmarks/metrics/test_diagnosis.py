"""Sentences, each only where the figures carry it."""

from __future__ import annotations

from typing import Any

from benchmarks.metrics.diagnosis import diagnose
from benchmarks.records import Check, RequestRecord, ServerSide, Slo, Validity
from tests.benchmarks.metrics.made import failed, request, run


def many(count: int = 700, **fields: Any) -> list[RequestRecord]:
    """Even requests, enough of them for p99."""
    return [request(send_s=0.3 * n, index=n, **fields) for n in range(count)]


def red(name: str, value: float, status: str = "red") -> Validity:
    """A run with this one check."""
    check = Check.model_validate(
        {"name": name, "status": status, "value": value, "message": "said"}
    )
    return Validity(verdict="INVALID", checks=[check])


def test_nothing_stands_out() -> None:
    """An even run with enough requests needs no words."""
    assert diagnose(run(many())) == []


def test_queue_bound() -> None:
    """Where most of the engine's TTFT is queue time, more concurrency is only more waiting."""
    server = ServerSide(ttft_mean_s=0.1, queue_mean_s=0.071, prefill_mean_s=0.02)
    assert diagnose(run(many(), server=server)) == [
        "71 % of TTFT is queue time: more concurrency will not give more tokens, only longer waits."
    ]


def test_prefill_bound() -> None:
    """Where most of the engine's TTFT is prefill, prompts are what costs."""
    server = ServerSide(ttft_mean_s=0.1, queue_mean_s=0.001, prefill_mean_s=0.09)
    assert diagnose(run(many(), server=server)) == [
        "90 % of TTFT is prefill: shorter prompts, a shared prefix or more compute shorten it."
    ]


def test_overhead() -> None:
    """The HTTP layer's part of the client's TTFT, in milliseconds."""
    server = ServerSide(ttft_mean_s=0.0992, overhead_ttft_s=0.0008)
    # 0.8 of 100 ms
    assert diagnose(run(many(), server=server)) == [
        "HTTP layer, network and client cost 0.8 ms of TTFT (0.8 %)."
    ]
    assert diagnose(run(many(), server=ServerSide(overhead_ttft_s=-0.001))) == []


def test_saturated() -> None:
    """Saturation is said only where the check is red."""
    said = diagnose(run(many(), validity=red("saturation", 40)))
    assert said[0].startswith("The server is saturated, so latencies depend on how long")
    assert diagnose(run(many(), validity=red("saturation", 1, status="ok"))) == []


def test_failures_come_first() -> None:
    """What failed is in no figure, so it is said before them."""
    said = diagnose(run([*many(), failed("stall")], slo=Slo(ttft_ms=1000)))
    assert said[0] == "1 of 701 requests failed (stall 1); their times are in no figure."


def test_stalls() -> None:
    """A pause of 0.5 s in streams that take 0.1 s a token is seen by a reader."""
    at_s = (0.1, 0.11, 0.12, 0.62, 0.63, 0.64, 0.65, 0.66, 0.67, 0.68, 0.69)
    # tpot (0.69 - 0.1) / 10 = 0.059, longest pause 0.5: 8 times
    assert diagnose(run(many(at_s=at_s))) == [
        "Half of the streams stood still for 500 ms or more at least once, 8 times their usual "
        "gap: look for prefills of other requests, or preemption."
    ]


def test_long_tail() -> None:
    """Two per cent of requests with a TTFT five times the median make its p99."""
    slow = [request((0.5, 0.6, 0.7), send_s=205.8 + 0.7 * n) for n in range(14)]
    assert diagnose(run([*many(686), *slow])) == [
        "TTFT has a long tail: its 99th percentile, 500 ms, is 5.0 times its median."
    ]


def test_coalesced() -> None:
    """Coalesced reads touch ITL's tail, and are said from 2 % on."""
    said = diagnose(run(many(), validity=red("coalesced_reads", 0.05, status="ok")))
    assert said == [
        "5 % of the token events came out of one read with the one before: high percentiles of ITL "
        "are partly a matter of reading; TPOT is not."
    ]


def test_several_tokens_an_event() -> None:
    """A server that bundles tokens is told from one that does not."""
    said = diagnose(run(many(tokens=(1, 2, 3))))
    # 6 tokens in 3 events
    assert said[0].startswith("The server sends 2.0 tokens an event")


def test_warm_cache_and_preemptions() -> None:
    """A warm cell says what its cache gave; a preemption is always said."""
    server = ServerSide(preemptions=3)
    said = diagnose(run(many(cached_tokens=8), cache="warm", server=server))
    # 8 of 10 prompt tokens
    assert said == [
        "The engine preempted 3 times: its KV cache is too small for this load, and work was done "
        "twice.",
        "80 % of the prompt tokens came from the prefix cache.",
    ]


def test_slo() -> None:
    """Under an SLO its attainment is said, with its limits."""
    said = diagnose(run(many(), slo=Slo(ttft_ms=200, tpot_ms=50)))
    # tpot is 100 ms
    assert said == [
        "0 % of the requests met the SLO (ttft_ms 200, tpot_ms 50): 0.00 good requests/s."
    ]


def test_too_few_samples() -> None:
    """The first percentile that is missing, with what it would need."""
    assert diagnose(run(many(100))) == [
        "The 95th percentile over requests is not shown: p95 needs 130 samples, there are 100."
    ]


def test_ramp() -> None:
    """Where ramp and drain cost a tenth of the throughput, the steady figure is named too."""
    # 700 requests of 3 tokens in 210 s, then a pause, and one more that ends at 300.3
    said = diagnose(run([*many(), request(send_s=300.0)]))
    # 2100 / 210 = 10; 2103 / 300.3 = 7.0
    assert said == [
        "Under full load the server gave 10 tokens/s; with ramp and drain the run as a whole has "
        "7. Send more requests to bring them together."
    ]
