"""Open requests over time, and the run second by second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.metrics.timeline import (
    Span,
    mean_concurrency,
    mean_open,
    open_requests,
    spans_at_least,
    timeseries,
)
from benchmarks.records import RequestRecord
from tests.benchmarks.metrics.made import failed, few_examples, request, requests


def between(send_s: float, end_s: float) -> RequestRecord:
    """A request with one token at its end."""
    return request((end_s - send_s,), send_s=send_s)


def test_open_requests() -> None:
    """The number rises with each sending and falls with each end."""
    steps = open_requests([between(0, 2), between(1, 3)])
    assert steps == [(0, 1), (1, 2), (2, 1), (3, 0)]


def test_an_end_and_a_sending_at_once() -> None:
    """A request that begins the moment another ends leaves no dip."""
    assert open_requests([between(0, 1), between(1, 2)]) == [(0, 1), (1, 1), (2, 0)]


def test_spans_bridge_short_dips() -> None:
    """A client's turnaround does not end a span; a longer dip does."""
    steps = open_requests([between(0, 1), between(1.01, 2), between(2.5, 3)])
    assert spans_at_least(steps, 1, bridge_s=0.02) == [(0, 2), (2.5, 3)]
    assert spans_at_least(steps, 1, bridge_s=0) == [(0, 1), (1.01, 2), (2.5, 3)]


def test_littles_law() -> None:
    """Mean concurrency is the summed latency over the duration."""
    # (2 + 2) / 3
    assert mean_concurrency([between(0, 2), between(1, 3)], 3.0) == pytest.approx(4 / 3)
    assert mean_concurrency([], 0.0) is None


def test_mean_open() -> None:
    """Over a span only the parts within it count."""
    # of (0, 2) and (1, 3), 1 s each lies within (1, 2); then 1 of 2 s within (2, 4)
    assert mean_open([between(0, 2), between(1, 3)], Span(1, 2)) == 2.0
    assert mean_open([between(0, 2), between(1, 3)], Span(2, 4)) == 0.5


def test_seconds() -> None:
    """Each token counts in the second in which it came, whatever second it was asked in."""
    one = request((0.5, 0.9, 1.5), (1, 1, 3), send_s=0.25)
    first, second = timeseries([one])
    # tokens at 0.75, 1.15 (one each) and 1.75 (three); open 0.25 to 1.75; first token at 0.75
    assert (first.t_s, first.output_tokens, first.sent) == (0, 1, 1)
    assert (second.t_s, second.output_tokens, second.sent) == (1, 4, 0)
    assert (first.active, second.active) == pytest.approx((0.75, 0.75))
    assert (first.queued, second.queued) == pytest.approx((0.5, 0.0))


def test_a_failure_is_queued_to_its_end() -> None:
    """Without a first token a request waits until it is given up."""
    first, second = timeseries([failed(send_s=0.0, end_s=1.5)])
    assert (first.queued, second.queued) == pytest.approx((1.0, 0.5))


def test_no_requests_no_seconds() -> None:
    """Nothing sent, nothing to draw."""
    assert timeseries([]) == []


@few_examples
@given(st.lists(requests(), min_size=1, max_size=8))
def test_nothing_is_lost(records: list[RequestRecord]) -> None:
    """All tokens, all sendings and all open time are in the seconds."""
    seconds = timeseries(records)
    assert sum(s.output_tokens for s in seconds) == sum(r.num_output_tokens for r in records)
    assert sum(s.sent for s in seconds) == len(records)
    open_s = sum(record.end_s - record.send_s for record in records)
    assert sum(s.active for s in seconds) == pytest.approx(open_s, abs=1e-6)
    assert all(second.queued <= second.active + 1e-9 for second in seconds)
