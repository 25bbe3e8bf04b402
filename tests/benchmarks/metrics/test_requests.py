"""The metrics of one request, each by its arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given

from benchmarks.metrics.requests import (
    completed,
    e2e_s,
    e2e_sched_s,
    icl_s,
    itl_s,
    max_stall_s,
    ntpot_s,
    num_coalesced_chunks,
    num_first_chunk_extra_tokens,
    prefill_tps,
    prompt_tokens,
    speed_user_tps,
    token_arrivals,
    tpot_s,
    ttfc_s,
    ttft_s,
    ttft_sched_s,
)
from benchmarks.records import RequestRecord
from tests.benchmarks.metrics.made import failed, few_examples, request, requests

# Sent at 5.0, due at 4.8; a role at 0.05, then 1, 2 and 1 tokens.
ONE = request((0.1, 0.2, 0.5), (1, 2, 1), send_s=5.0, sched_s=4.8, choice_s=0.05)


def test_ttft() -> None:
    """TTFT ends at the first chunk with tokens; TTFC at the first event with choices."""
    assert ttft_s(ONE) == 0.1
    assert ttfc_s(ONE) == 0.05


def test_times_from_the_schedule() -> None:
    """In an open loop, times also count from when the request was due."""
    # 5.0 + 0.1 - 4.8 and 5.0 + 0.5 - 4.8
    assert ttft_sched_s(ONE) == pytest.approx(0.3)
    assert e2e_sched_s(ONE) == pytest.approx(0.7)


def test_no_schedule_no_times_from_it() -> None:
    """A closed loop has no schedule to count from."""
    assert ttft_sched_s(request()) is None
    assert e2e_sched_s(request()) is None


def test_e2e_ends_with_the_last_token() -> None:
    """A usage event after the last token is not waited for."""
    assert e2e_s(request((0.1, 0.4), send_s=1.0, end_s=9.0)) == 0.4


def test_prefill() -> None:
    """Prompt tokens over TTFT; none of a prompt that the prefix cache had a part of."""
    # 10 / 0.1
    assert prefill_tps(ONE) == pytest.approx(100.0)
    assert prefill_tps(request(cached_tokens=1)) is None
    assert prefill_tps(request(prompt_tokens=None)) is None
    assert prefill_tps(failed()) is None


def test_tpot() -> None:
    """TPOT leaves the first token out of both the time and the count."""
    # (0.5 - 0.1) / (4 - 1)
    assert tpot_s(ONE) == pytest.approx(0.4 / 3)


def test_tpot_by_usage() -> None:
    """Where events hide tokens, the usage's count is the divisor."""
    hidden = request((0.1, 0.5), token_source="usage", num_output_tokens=5)
    # (0.5 - 0.1) / (5 - 1)
    assert tpot_s(hidden) == pytest.approx(0.1)


def test_one_token_has_no_tpot() -> None:
    """Below two tokens nothing is between tokens."""
    single = request((0.1,))
    assert (tpot_s(single), speed_user_tps(single), max_stall_s(single)) == (None, None, None)
    assert icl_s(single) == itl_s(single) == []


def test_icl_and_itl() -> None:
    """A gap between chunks is one ICL, and is shared by the tokens of its chunk as ITL."""
    # gaps 0.1 and 0.3; the first is of two tokens
    assert icl_s(ONE) == pytest.approx([0.1, 0.3])
    assert itl_s(ONE) == pytest.approx([0.05, 0.05, 0.3])


def test_first_chunk_of_several_tokens() -> None:
    """What a first chunk brings beyond one token came with no gap, and is counted as such."""
    burst = request((0.1, 0.4), (3, 1))
    assert num_first_chunk_extra_tokens(burst) == 2
    assert itl_s(burst) == pytest.approx([0.0, 0.0, 0.3])


def test_itl_unknown_by_usage() -> None:
    """Two events and a usage of five: which tokens came when is not known, so no ITL."""
    assert itl_s(request((0.1, 0.5), token_source="usage", num_output_tokens=5)) == []


def test_itl_known_by_usage() -> None:
    """Where the usage names as many tokens as there were events, each event was a token."""
    assert itl_s(request((0.1, 0.5), token_source="usage")) == pytest.approx([0.4])


def test_max_stall() -> None:
    """The longest pause, which TPOT's mean would hide."""
    assert max_stall_s(ONE) == pytest.approx(0.3)


def test_ntpot() -> None:
    """The whole latency over all tokens."""
    # 0.5 / 4
    assert ntpot_s(ONE) == 0.125


def test_speed_of_a_user() -> None:
    """Tokens a second that one user sees: 1 / tpot."""
    # 3 / 0.4
    assert speed_user_tps(ONE) == pytest.approx(7.5)


def test_an_answer_at_once_has_no_speed() -> None:
    """All tokens at one moment: a TPOT of 0, and no division by it."""
    at_once = request((0.5, 0.5))
    assert tpot_s(at_once) == 0
    assert speed_user_tps(at_once) is None


def test_a_failure_has_no_times() -> None:
    """Without a chunk every metric is undefined."""
    nothing = failed()
    for metric in (ttft_s, e2e_s, tpot_s, max_stall_s, ntpot_s, speed_user_tps, ttft_sched_s):
        assert metric(nothing) is None
    assert itl_s(nothing) == []
    assert completed([nothing, ONE]) == [ONE]


def test_coalesced_chunks() -> None:
    """An event counts as coalesced when the one before came out of the same read."""
    # reads 0 | 1 1 1 | 2: two events came with one before
    assert num_coalesced_chunks(request([0.1] * 5, reads=(0, 1, 1, 1, 2))) == 2


def test_prompt_tokens() -> None:
    """The server's count goes before the length asked for."""
    assert prompt_tokens(request(prompt_tokens=12, input_len_tokens=10)) == 12
    assert prompt_tokens(request(prompt_tokens=None, input_len_tokens=10)) == 10


def test_arrivals_of_hidden_tokens() -> None:
    """Where only the total is known, each event gets the same part of it."""
    hidden = request((0.1, 0.5), send_s=2.0, token_source="usage", num_output_tokens=5)
    assert list(token_arrivals(hidden)) == [(2.1, 2.5), (2.5, 2.5)]


@few_examples
@given(requests())
def test_gaps_add_up(record: RequestRecord) -> None:
    """ICL and ITL both add up to the time from the first token to the last."""
    decode_s = (e2e_s(record) or 0.0) - (ttft_s(record) or 0.0)
    assert sum(icl_s(record)) == pytest.approx(decode_s, abs=1e-9)
    assert sum(itl_s(record)) == pytest.approx(decode_s, abs=1e-9)


@few_examples
@given(requests())
def test_one_itl_for_each_token_but_the_first(record: RequestRecord) -> None:
    """There are n - 1 inter-token latencies, so that their mean is TPOT."""
    gaps = itl_s(record)
    assert len(gaps) == record.num_output_tokens - 1
    if gaps:
        assert sum(gaps) / len(gaps) == pytest.approx(tpot_s(record), abs=1e-9)


@few_examples
@given(requests())
def test_stall_between_mean_and_all(record: RequestRecord) -> None:
    """The longest pause is at least the mean one, and no longer than all together."""
    stall = max_stall_s(record)
    if stall is not None:
        assert max(itl_s(record)) <= stall + 1e-12
        assert stall <= (e2e_s(record) or 0.0) + 1e-12
