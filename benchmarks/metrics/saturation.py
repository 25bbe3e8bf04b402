"""Whether an open loop offered more than the server can serve: then the backlog grows all along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.requests import completed, e2e_s
from benchmarks.metrics.timeline import Span
from benchmarks.records import RequestRecord

NUM_STEPS = 20
MIN_REQUESTS = 30
# The schedule has to last so many unhurried requests, or it is all ramp.
MIN_LIFETIMES = 3
ALPHA = 0.01
# What grows less than this, in requests and as a part of the mean backlog, harms no figure.
MIN_GROWTH_REQUESTS = 2.0
MIN_GROWTH_PART = 0.25


class Backlog(NamedTuple):
    """The number of requests that were due and not done, over the schedule."""

    growth: float  # requests gained from the schedule's first part to its end
    mean: float
    p_value: float  # one-sided, of no growth

    @property
    def saturated(self) -> bool:
        """Whether it grew for more than chance's sake, and enough to matter."""
        floor = max(MIN_GROWTH_REQUESTS, MIN_GROWTH_PART * self.mean)
        return self.p_value < ALPHA and self.growth > floor


def backlog(records: Sequence[RequestRecord], ramp_s: float = 0.0) -> Backlog | None:
    """
    The backlog's drift: Student's t of its changes over 20 equal steps; None if too short to say.

    A line through the backlog itself finds a trend in every stable queue, whose neighbouring values
    resemble each other; its changes do not, and in a stable queue they take each other back. In
    simulated processor sharing with 200 Poisson arrivals and 16 places this calls a load of 70 %
    saturated in none, of 100 % in 6 %, of 130 % in 93 % of the runs.

    Args:
        ramp_s: Seconds from the run's start in which the load was still growing, and the backlog
            with it.
    """
    span = _after_ramp(records, ramp_s)
    if span is None:
        return None
    counts = _backlog_at(records, np.linspace(span.began_s, span.ended_s, NUM_STEPS + 1))
    return Backlog(
        growth=float(counts[-1] - counts[0]),
        mean=float(counts.mean()),
        p_value=_p_of_growth(np.diff(counts)),
    )


def drain_over_schedule(records: Sequence[RequestRecord]) -> float | None:
    """
    Duration of the drain / duration of the schedule; None below MIN_REQUESTS.

    At rho times its capacity a server needs rho - 1 schedules more, so that above 1 most of the
    run had no load offered: it is saturated, or far too short for its requests. It finds the
    overloads whose very first requests are slow already.
    """
    measured = [record for record in records if record.phase == "measured"]
    due_s = _due_s(measured)
    ok = completed(measured)
    if len(due_s) < MIN_REQUESTS or not ok or due_s[-1] <= due_s[0]:
        return None
    return (max(record.end_s for record in ok) - due_s[-1]) / (due_s[-1] - due_s[0])


def _due_s(measured: Sequence[RequestRecord]) -> list[float]:
    return sorted(record.sched_s for record in measured if record.sched_s is not None)


def _p_of_growth(changes: NDArray[np.float64]) -> float:
    # Here, as it takes a second: help and mistakes need not wait for it.
    from scipy.stats import ttest_1samp

    if changes.std() == 0:
        return 0.0 if changes[0] > 0 else 1.0
    p_value = float(ttest_1samp(changes, 0.0, alternative="greater").pvalue)
    return p_value if math.isfinite(p_value) else 1.0


def _after_ramp(records: Sequence[RequestRecord], ramp_s: float) -> Span | None:
    """From one unhurried request after the load's full height to the last sending."""
    measured = [record for record in records if record.phase == "measured"]
    due_s = _due_s(measured)
    lifetime_s = _unhurried_e2e_s(measured)
    if len(due_s) < MIN_REQUESTS or lifetime_s is None:
        return None
    full_s = max(due_s[0], ramp_s)
    span = Span(full_s + lifetime_s, due_s[-1])
    return span if due_s[-1] - full_s >= MIN_LIFETIMES * lifetime_s else None


def _unhurried_e2e_s(measured: Sequence[RequestRecord]) -> float | None:
    """Median latency of the first fifth: of those that met the smallest backlog."""
    ok = sorted(completed(measured), key=lambda record: record.send_s)
    early = [e2e_s(record) or 0.0 for record in ok[: max(1, len(ok) // 5)]]
    return float(np.median(early)) if early else None


def _backlog_at(
    records: Sequence[RequestRecord], moments_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    due = [record for record in records if record.sched_s is not None]
    began_s = np.sort([record.sched_s or 0.0 for record in due])
    ended_s = np.sort([record.end_s for record in due])
    began = np.searchsorted(began_s, moments_s, side="right")
    ended = np.searchsorted(ended_s, moments_s, side="right")
    return (began - ended).astype(np.float64)
