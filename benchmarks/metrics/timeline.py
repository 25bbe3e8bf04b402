"""The run over time: how many requests were open when, and what came in each second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.requests import e2e_s, token_arrivals, ttft_s
from benchmarks.records import RequestRecord, Second


class Span(NamedTuple):
    """A stretch of the run."""

    began_s: float
    ended_s: float

    @property
    def length_s(self) -> float:
        """Its duration."""
        return self.ended_s - self.began_s


class Step(NamedTuple):
    """From `at_s` until the next step, `num_open` requests are open."""

    at_s: float
    num_open: int


def open_requests(records: Sequence[RequestRecord]) -> list[Step]:
    """Requests between their sending and their end, as steps in time, 0 after the last."""
    changes: dict[float, int] = {}
    for record in records:
        changes[record.send_s] = changes.get(record.send_s, 0) + 1
        changes[record.end_s] = changes.get(record.end_s, 0) - 1
    steps, num_open = [], 0
    for at_s, change in sorted(changes.items()):
        num_open += change
        steps.append(Step(at_s, num_open))
    return steps


def spans_at_least(steps: Sequence[Step], floor: float, bridge_s: float) -> list[Span]:
    """Where at least `floor` requests are open; dips up to `bridge_s` long do not end a span."""
    spans: list[Span] = []
    for step, after in pairwise(steps):
        if step.num_open < floor:
            continue
        if spans and step.at_s - spans[-1].ended_s <= bridge_s:
            spans[-1] = Span(spans[-1].began_s, after.at_s)
        else:
            spans.append(Span(step.at_s, after.at_s))
    return spans


def mean_concurrency(records: Sequence[RequestRecord], duration_s: float) -> float | None:
    """
    Mean number of requests in the server by Little's law: sum(e2e) / D.

    Source: Little 1961 (L = lambda * W); SGLang bench_serving prints it as concurrency.
    """
    if duration_s <= 0:
        return None
    return sum(e2e_s(record) or 0.0 for record in records) / duration_s


def mean_open(records: Sequence[RequestRecord], span: Span) -> float:
    """Mean number of open requests over a span: the integral of the steps over its length."""
    spans = [(record.send_s, record.end_s) for record in records]
    return float(_overlaps(spans, np.array([span.began_s, span.ended_s]))[0]) / span.length_s


def timeseries(records: Sequence[RequestRecord]) -> list[Second]:
    """Second by second from the run's start: tokens by their own arrival, open, queued, sent."""
    if not records:
        return []
    num_seconds = max(1, math.ceil(max(record.end_s for record in records)))
    edges = np.arange(num_seconds + 1, dtype=np.float64)
    arrivals = [pair for record in records for pair in token_arrivals(record)]
    tokens = _per_second([at for at, _ in arrivals], edges, [count for _, count in arrivals])
    sent = _per_second([r.send_s for r in records if r.error != "not_sent"], edges)
    active = _overlaps([(record.send_s, record.end_s) for record in records], edges)
    queued = _overlaps([(record.send_s, _first_token_at_s(record)) for record in records], edges)
    return [
        Second(
            t_s=second,
            output_tokens=round(tokens[second]),
            active=float(active[second]),
            queued=float(queued[second]),
            sent=round(sent[second]),
        )
        for second in range(num_seconds)
    ]


def _first_token_at_s(record: RequestRecord) -> float:
    first_s = ttft_s(record)
    return record.end_s if first_s is None else record.send_s + first_s


def _per_second(
    at_s: Sequence[float], edges: NDArray[np.float64], weights: Sequence[float] | None = None
) -> NDArray[np.float64]:
    counts, _ = np.histogram(np.asarray(at_s, dtype=np.float64), bins=edges, weights=weights)
    return counts.astype(np.float64)


def _overlaps(
    spans: Sequence[tuple[float, float]], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For each bin between two edges, the summed length of all spans within it."""
    total = np.zeros(len(edges) - 1)
    for began_s, ended_s in spans:
        # The overlap with (-inf, edge], differenced, is the overlap with each bin.
        total += np.diff(np.clip(edges, began_s, max(began_s, ended_s)))
    return total
