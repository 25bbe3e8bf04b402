"""The whole measured part, and the part under full load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.metrics.windows import full_run, steady, summarise
from benchmarks.records import Load, RequestRecord, Slo
from tests.benchmarks.metrics.made import CLOSED, OPEN, failed, few_examples, request, requests

TWO = Load(mode="closed", concurrency=2)


def every_tenth(send_s: float, num_tokens: int, **fields: object) -> RequestRecord:
    """A request with a token every 0.1 s after its sending."""
    return request([0.1 * (n + 1) for n in range(num_tokens)], send_s=send_s, **fields)


def test_full_run() -> None:
    """From the first measured sending to the last end; the warm-up is not in it."""
    records = [
        every_tenth(0.0, 20, phase="warm_up"),
        every_tenth(1.0, 10),
        every_tenth(2.0, 20),
    ]
    window = full_run(records, None)
    # D = 4 - 1 = 3 s; 30 tokens, 2 prompts of 10; e2e 1 s and 2 s
    assert (window.began_s, window.ended_s) == pytest.approx((1.0, 4.0))
    assert (window.num_ok, window.output_tokens, window.prompt_tokens) == (2, 30, 20)
    assert window.output_tps == pytest.approx(30 / 3)
    assert window.total_tps == pytest.approx((20 + 30) / 3)
    assert window.rps == pytest.approx(2 / 3)
    assert window.mean_concurrency == pytest.approx((1 + 2) / 3)


def test_failures_are_counted_and_not_timed() -> None:
    """A failure is named; neither its tokens nor its end are part of a figure."""
    broken = every_tenth(1.0, 5, error="early_close", end_s=60.0)
    window = full_run([every_tenth(1.0, 10), broken, failed("stall", send_s=1.0)], None)
    assert (window.num_ok, window.num_failed) == (1, 2)
    assert window.errors == {"early_close": 1, "stall": 1}
    assert (window.output_tokens, window.duration_s) == (10, pytest.approx(1.0))
    assert window.distributions["e2e_s"].n == 1


def test_all_failed() -> None:
    """With no completed request there is no rate, and every distribution says why."""
    window = full_run([failed(end_s=1.0)], Slo(ttft_ms=1))
    assert (window.output_tps, window.rps, window.duration_s) == (None, None, 0.0)
    assert window.distributions["ttft_s"].reason == "no request has a value"
    assert window.goodput is not None
    assert window.goodput.attainment == 0.0


def test_nothing_measured() -> None:
    """A run of warm-up alone has no metrics."""
    with pytest.raises(ValueError, match="no measured request; ask for at least one"):
        full_run([request(phase="warm_up")], None)


def test_unknown_prompts_have_no_total() -> None:
    """Where a prompt's length is not known, total tokens per second is not made up."""
    window = full_run([every_tenth(0.0, 5, prompt_tokens=None), every_tenth(0.0, 5)], None)
    assert window.total_tps is None
    assert window.output_tps == pytest.approx(10 / 0.5)


def test_cached_prompt_tokens() -> None:
    """Cached prompt tokens stand apart, and are null where the server does not tell."""
    assert full_run([request(cached_tokens=4), request()], None).cached_prompt_tokens == 4
    assert full_run([request()], None).cached_prompt_tokens is None


def test_distributions_by_name() -> None:
    """The schedule's metrics are there only where there is a schedule."""
    closed = full_run([request()], None).distributions
    scheduled = full_run([request(sched_s=0.0)], None).distributions
    assert set(scheduled) - set(closed) == {"ttft_sched_s", "e2e_sched_s"}
    assert {"ttft_s", "ttfc_s", "e2e_s", "tpot_s", "icl_s", "itl_s", "max_stall_s"} <= set(closed)
    assert closed["speed_user_tps"].unit == "tokens/s"


def test_gaps_are_held_to_the_number_of_requests() -> None:
    """63 requests of 100 tokens are 6237 gaps, and still too few for ITL's p90."""
    many = [every_tenth(0.0, 100) for _ in range(63)]
    assert full_run(many, None).distributions["itl_s"].n == 63 * 99
    assert full_run(many, None).distributions["itl_s"].p90 is None
    assert full_run([*many, many[0]], None).distributions["itl_s"].p90 is not None


def test_client_queue() -> None:
    """Time in the client's own queue is shown where there was any."""
    found = full_run([request(queue_s=0.5), request(queue_s=0.0)], None).distributions
    assert found["client_queue_s"].mean == pytest.approx(0.25)


def test_steady_window() -> None:
    """Under full load until the first client has nothing left to send; the drain is not in it."""
    records = [
        every_tenth(0.0, 20, phase="warm_up"),  # 0 to 2
        every_tenth(0.0, 10, phase="warm_up"),  # 0 to 1
        every_tenth(1.0, 20),  # 1 to 3
        every_tenth(2.0, 20),  # 2 to 4; from 3 on it is alone
    ]
    window, reason = steady(records, TWO, None)
    assert reason is None
    assert window is not None
    # Full load from the first measured sending at 1 to 3. In (1, 3] came 10 tokens of the first
    # warm-up, 20 of the first measured and 10 of the second.
    assert (window.began_s, window.ended_s) == pytest.approx((1.0, 3.0))
    assert window.output_tokens == 40
    assert window.output_tps == pytest.approx(40 / 2)
    assert window.mean_concurrency == pytest.approx(2.0)


def test_steady_requests_by_completion() -> None:
    """A warm-up request that ends within the window is one of its requests."""
    records = [
        every_tenth(0.0, 20, phase="warm_up"),
        every_tenth(1.0, 20),
        every_tenth(2.0, 10),
        every_tenth(3.0, 30),
    ]
    window, _ = steady(records, TWO, None)
    assert window is not None
    # Two are open from 1 to 3, with ends at 2, 3 and 3; the last begins at 3 and is alone.
    assert (window.began_s, window.ended_s) == pytest.approx((1.0, 3.0))
    assert window.num_ok == 3
    assert window.rps == pytest.approx(3 / 2)
    # first tokens at 1.1 and 2.1: two prompts of 10 tokens were read
    assert window.prompt_tokens == 20


def test_turnaround_is_no_less_load() -> None:
    """One client that needs a millisecond between requests is at full load throughout."""
    records = [every_tenth(0.501 * number, 5) for number in range(10)]
    window, _ = steady(records, CLOSED, None)
    assert window is not None
    # from 0 to 9 * 0.501 + 0.5
    assert window.duration_s == pytest.approx(5.009)


def test_think_time_is_less_load() -> None:
    """A client that thinks for a second leaves the server alone: its spans stay apart."""
    records = [every_tenth(1.5 * number, 5) for number in range(4)]
    window, _ = steady(records, CLOSED, None)
    assert window is not None
    assert window.duration_s == pytest.approx(0.5)


def test_never_at_full_load() -> None:
    """Without the wanted concurrency there is no steady window, and a reason."""
    window, reason = steady([every_tenth(0.0, 5)], Load(mode="closed", concurrency=10), None)
    assert window is None
    assert reason is not None
    assert "never were 9 requests open at once" in reason


def test_full_load_too_short() -> None:
    """A moment of full load is no steady state."""
    records = [every_tenth(0.0, 20), every_tenth(1.9, 20)]
    window, reason = steady(records, TWO, None)
    assert window is None
    assert reason == "full load lasted 0.10 s, less than one request; send more requests"


def test_steady_of_an_open_loop() -> None:
    """An open loop is steady from its first scheduled sending to its last."""
    records = [every_tenth(0.1 * n, 3, index=n, sched_s=0.1 * n) for n in range(11)]
    window, reason = steady(records, OPEN, Slo(ttft_ms=150))
    assert reason is None
    assert window is not None
    # 0 to 1: tokens of request n at 0.1 (n + 1), (n + 2), (n + 3), of which up to 1.0:
    # 3 each of n = 0..7, 2 of n = 8, 1 of n = 9, 0 of n = 10
    assert (window.began_s, window.ended_s) == pytest.approx((0.0, 1.0))
    assert window.output_tokens == 3 * 8 + 2 + 1
    assert window.goodput is not None
    assert window.goodput.attainment == 1.0


def test_steady_after_a_ramp() -> None:
    """While the rate rises the load is not full: the window begins after it, or there is none."""
    records = [every_tenth(0.1 * n, 3, index=n, sched_s=0.1 * n) for n in range(11)]
    window, _ = steady(records, OPEN.model_copy(update={"ramp_s": 0.45}), None)
    assert window is not None
    # In (0.45, 1] came all 3 tokens of requests 4 to 7, 2 each of 3 and 8, 1 each of 2 and 9.
    assert (window.began_s, window.ended_s) == pytest.approx((0.45, 1.0))
    assert window.output_tokens == 3 * 4 + 2 * 2 + 1 * 2
    window, reason = steady(records, OPEN.model_copy(update={"ramp_s": 2.0}), None)
    assert window is None
    assert reason == "all was sent within the ramp of 2 s; send more requests"


def test_prefill_of_one_client() -> None:
    """Prompt tokens per second are told where a request has the server to itself, only there."""
    records = [every_tenth(0.0, 5), every_tenth(1.0, 5, cached_tokens=8)]
    alone = summarise(records, CLOSED, None).full_run.distributions
    # 10 tokens in 0.1 s; of the other, 8 were in the prefix cache
    assert (alone["prefill_tps"].n, alone["prefill_tps"].mean) == (1, pytest.approx(100.0))
    for load in (TWO, OPEN):
        assert "prefill_tps" not in summarise(records, load, None).full_run.distributions


def test_an_open_loop_without_a_schedule() -> None:
    """One scheduled sending has no duration."""
    window, reason = steady([every_tenth(0.0, 3, sched_s=0.0)], OPEN, None)
    assert window is None
    assert reason is not None
    assert "fewer than two requests had a scheduled sending" in reason


def test_summarise_has_both() -> None:
    """Both windows, and a reason in place of the second where there is none."""
    found = summarise([every_tenth(0.0, 5)], TWO, None)
    assert found.full_run.num_ok == 1
    assert found.steady is None
    assert found.steady_reason is not None


@few_examples
@given(st.lists(requests(), min_size=1, max_size=10), st.integers(1, 4))
def test_steady_lies_within_the_run(records: list[RequestRecord], concurrency: int) -> None:
    """The steady window lies between the first measured sending and the last end."""
    measured = [record for record in records if record.phase == "measured"]
    if not measured:
        return
    window, reason = steady(records, Load(mode="closed", concurrency=concurrency), None)
    assert (window is None) == (reason is not None)
    if window is not None:
        assert window.began_s >= min(record.send_s for record in measured)
        assert window.ended_s <= max(record.end_s for record in records)
        assert window.output_tokens <= sum(record.num_output_tokens for record in records)
