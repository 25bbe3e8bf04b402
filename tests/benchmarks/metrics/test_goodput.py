"""What meets an SLO, and how one is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.metrics.goodput import PRESETS, goodput, is_good, parse_slo
from benchmarks.records import RequestRecord, Slo
from tests.benchmarks.metrics.made import failed, few_examples, request, requests

# ttft 125 ms, tpot (0.625 - 0.125) / 2 = 250 ms, e2e 625 ms, longest pause 375 ms
ONE = request((0.125, 0.25, 0.625))


@pytest.mark.parametrize(
    ("limit", "value"),
    [("ttft_ms", 125), ("tpot_ms", 250), ("e2e_ms", 625), ("max_stall_ms", 375)],
)
def test_at_the_limit_is_good(limit: str, value: float) -> None:
    """A value at its limit keeps it; a limit just below is broken."""
    assert is_good(ONE, Slo(**{limit: value}))
    assert not is_good(ONE, Slo(**{limit: value - 0.01}))


def test_all_limits_together() -> None:
    """One broken limit is enough."""
    assert is_good(ONE, Slo(ttft_ms=200, tpot_ms=300))
    assert not is_good(ONE, Slo(ttft_ms=200, tpot_ms=200))


def test_open_loop_counts_from_the_schedule() -> None:
    """A request that was sent late by the client's cap waited all the same."""
    late = request((0.1, 0.2), send_s=5.0, sched_s=4.0)
    # ttft 100 ms from its sending, 1100 ms from its schedule
    assert not is_good(late, Slo(ttft_ms=200))
    assert is_good(late, Slo(ttft_ms=1101))


def test_one_token_keeps_any_tpot() -> None:
    """What has no time per output token cannot break its limit."""
    assert is_good(request((0.1,)), Slo(tpot_ms=1))


def test_errors_in_the_denominator() -> None:
    """Attainment is of all requests; what failed was good for nobody."""
    found = goodput([ONE, request((0.5, 0.6)), failed()], Slo(ttft_ms=200), duration_s=2.0)
    # of three, the first alone is good, with 3 tokens in 2 s
    assert (found.num_good, found.num_counted) == (1, 3)
    assert found.attainment == pytest.approx(1 / 3)
    assert (found.goodput_rps, found.goodput_tps) == (0.5, 1.5)


def test_nothing_to_count() -> None:
    """No request in no time is no division by 0."""
    found = goodput([], Slo(ttft_ms=200), duration_s=0.0)
    assert (found.goodput_rps, found.attainment) == (0.0, 0.0)


@few_examples
@given(st.lists(requests(), min_size=1, max_size=6), st.floats(1, 500), st.floats(1, 500))
def test_a_looser_slo_is_met_more_often(
    records: list[RequestRecord], ttft_ms: float, more_ms: float
) -> None:
    """Raising a limit never costs attainment, which lies between 0 and 1."""
    tight = goodput(records, Slo(ttft_ms=ttft_ms), 1.0)
    loose = goodput(records, Slo(ttft_ms=ttft_ms + more_ms), 1.0)
    assert 0 <= tight.attainment <= loose.attainment <= 1


def test_parse_limits() -> None:
    """Limits are written as in the records, in milliseconds."""
    assert parse_slo("ttft_ms=200, tpot_ms=50") == Slo(ttft_ms=200, tpot_ms=50)


def test_parse_preset() -> None:
    """MLPerf's limits have names."""
    assert parse_slo("mlperf-llama3.1-8b-interactive") == Slo(ttft_ms=500, tpot_ms=30)
    assert all(parse_slo(name) == slo for name, slo in PRESETS.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chatt", r"no SLO named 'chatt'; there are .*chat, rag, or write its limits"),
        ("ttft=200", r"limits 'ttft'; allowed are ttft_ms, tpot_ms, e2e_ms, max_stall_ms"),
        ("ttft_ms=fast", r"sets ttft_ms to 'fast'; give milliseconds above 0"),
        ("ttft_ms=-1", r"sets ttft_ms to '-1'; give milliseconds above 0"),
        ("ttft_ms=nan", r"sets ttft_ms to 'nan'; give milliseconds above 0"),
        ("", r"no SLO named ''"),
    ],
)
def test_a_wrong_slo(text: str, message: str) -> None:
    """What is wrong, and what is allowed."""
    with pytest.raises(ValueError, match=message):
        parse_slo(text)
