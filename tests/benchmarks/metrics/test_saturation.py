"""A backlog that grows is told from one that wanders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.load.schedule import arrival_times_s
from benchmarks.metrics.saturation import Backlog, backlog, drain_over_schedule
from benchmarks.records import Load, RequestRecord
from tests.benchmarks.metrics.made import request

NUM_SERVERS = 16
SERVICE_S = 1.0


def queue(load: float, count: int = 400, seed: int = 0) -> list[RequestRecord]:
    """Poisson arrivals at `load` x capacity; 16 places, each busy for about a second a request."""
    random = np.random.default_rng(seed)
    due_s = np.cumsum(random.exponential(SERVICE_S / NUM_SERVERS / load, count)).tolist()
    services_s = random.uniform(0.5 * SERVICE_S, 1.5 * SERVICE_S, count).tolist()
    free_s = [0.0] * NUM_SERVERS
    records = []
    for sched_s, service_s in zip(due_s, services_s, strict=True):
        place = int(np.argmin(free_s))
        free_s[place] = max(sched_s, free_s[place]) + service_s
        records.append(request((free_s[place] - sched_s,), send_s=sched_s, sched_s=sched_s))
    return records


def calls(runs: Sequence[Backlog | None]) -> int:
    """How many of the runs are called saturated."""
    assert all(run is not None for run in runs)
    return sum(run is not None and run.saturated for run in runs)


def test_overload_is_saturation() -> None:
    """At 150 % of its capacity a server is saturated, in every run."""
    assert calls([backlog(queue(1.5, seed=seed)) for seed in range(20)]) == 20


def test_half_load_is_none() -> None:
    """At half its capacity a server is never called saturated, whatever its arrivals."""
    assert calls([backlog(queue(0.5, seed=seed)) for seed in range(50)]) == 0


def test_growth_is_what_was_gained() -> None:
    """Twice the rate a server can serve: half of what comes stays."""
    found = backlog(queue(2.0))
    assert found is not None
    # 400 requests at 32 a second take 12.5 s; after the ramp of over 1 s, 16 a second stay
    assert 120 < found.growth < 200


def test_steady_arrivals_and_no_growth() -> None:
    """A backlog that never changes is no growth, though it has no spread either."""
    even = [request((0.5,), send_s=0.1 * n, sched_s=0.1 * n) for n in range(100)]
    found = backlog(even)
    assert found is not None
    assert not found.saturated


def test_backlog_of_a_ramp_is_no_saturation() -> None:
    """While the load rises so does the backlog: it is looked at from the load's full height on."""
    load = Load(mode="open", rate_rps=20.0, arrivals="constant", ramp_s=20.0)
    # One second each, and enough places: up to 20 are open.
    ramped = [
        request((1.0,), send_s=at_s, sched_s=at_s) for at_s in arrival_times_s(load, 400, seed=0)
    ]
    rising, steady = backlog(ramped), backlog(ramped, ramp_s=20.0)
    assert rising is not None
    assert steady is not None
    assert (rising.saturated, steady.saturated) == (True, False)


def test_too_short_to_say() -> None:
    """With fewer than 30 requests, or within three lifetimes, nothing is claimed."""
    assert backlog(queue(2.0, count=29)) is None
    at_once = [request((5.0,), send_s=0.1 * n, sched_s=0.1 * n) for n in range(100)]
    assert backlog(at_once) is None


def test_drain_over_schedule() -> None:
    """At three times its capacity a server needs two schedules more; too few say nothing."""
    # 30 requests due over 2.9 s, the last done at 2.9 + 5.8
    late = [request((5.8,), send_s=0.1 * n, sched_s=0.1 * n) for n in range(30)]
    assert drain_over_schedule(late) == pytest.approx(2.0)
    assert drain_over_schedule(late[1:]) is None


def test_small_growth_harms_nothing() -> None:
    """A certain but small trend is no saturation."""
    assert not Backlog(growth=1.9, mean=1.0, p_value=0.0).saturated
    assert not Backlog(growth=20.0, mean=100.0, p_value=0.0).saturated
    assert not Backlog(growth=50.0, mean=50.0, p_value=0.02).saturated
    assert Backlog(growth=50.0, mean=50.0, p_value=0.001).saturated
