"""When the requests of an open loop should be sent: computed whole before the first is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.records import Item, Load


def arrival_times_s(load: Load, count: int, seed: int) -> list[float]:
    """
    Seconds after the start at which `count` requests are due, the first at 0.

    constant: i / rate. poisson: exponential gaps of mean 1 / rate. gamma: gaps of the same mean and
    shape `burstiness`, so their coefficient of variation is 1 / sqrt(burstiness); 1 is poisson,
    less is burstier. The gaps are not rescaled to the rate: what was drawn is what is offered.
    `ramp_s`: those of the steady rate, later by `ramped_s`.

    Source: vLLM 0.32 benchmarks/serve.py (the meaning of burstiness).
    """
    return [ramped_s(at_s, load.ramp_s or 0.0) for at_s in _steady_times_s(load, count, seed)]


def _steady_times_s(load: Load, count: int, seed: int) -> list[float]:
    assert load.rate_rps is not None
    mean_s = 1 / load.rate_rps
    if load.arrivals == "constant":
        return [number * mean_s for number in range(count)]
    shape = 1.0 if load.arrivals == "poisson" else load.burstiness or 1.0
    gaps = np.random.default_rng(seed).gamma(shape, mean_s / shape, max(0, count - 1))
    return [0.0, *np.cumsum(gaps).tolist()][:count]


def ramped_s(at_s: float, ramp_s: float) -> float:
    """
    When an arrival of a steady rate is due, if the rate r rises from 0 to r over `ramp_s` seconds.

    r t^2 / (2 S) arrivals are due up to t in the ramp, r (t - S / 2) after it; the steady rate has
    r u up to u. Equal numbers: t = sqrt(2 S u) for u <= S / 2, then t = u + S / 2.
    Source: Cinlar 1975, Introduction to Stochastic Processes (inversion of the expected number).
    """
    return math.sqrt(2 * ramp_s * at_s) if at_s <= ramp_s / 2 else at_s + ramp_s / 2


def trace_times_s(units: Sequence[Sequence[Item]], load: Load) -> list[float]:
    """The times that the workload carries, each unit's first item; sped up by nothing."""
    times = [unit[0].at_s for unit in units]
    missing = [unit[0].index for unit, at_s in zip(units, times, strict=True) if at_s is None]
    if missing:
        raise ValueError(
            f"request {missing[0]} of the workload has no time of its own, which mode "
            f"'{load.mode}' needs; use a trace workload, or --rate"
        )
    return [at_s for at_s in times if at_s is not None]


def units(items: Sequence[Item]) -> list[list[Item]]:
    """What is sent one after another: the turns of a conversation, or a request by itself."""
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(item.conversation or f"#{item.index}", []).append(item)
    return [sorted(group, key=lambda item: item.turn) for group in grouped.values()]
