"""Means and percentiles of one metric, with what a sample of that size does not allow to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.records import Distribution

Statistic = Callable[[NDArray[np.float64]], float]

# From so many samples on a percentile is shown: MLPerf's early stopping can bound it with 99 %
# confidence when one sample may lie above. Source: mlcommons/endpoints docs/early_stopping.md.
FLOORS = {"p50": 2, "p90": 64, "p95": 130, "p99": 662, "p99_9": 6636}
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
CONFIDENCE = 0.99
RESAMPLES = 2000


def describe(values: Sequence[float], unit: str, clusters: int | None = None) -> Distribution:
    """
    The distribution of `values`; percentiles by linear interpolation, suppressed below FLOORS.

    The gaps of one request depend on each other: for pooled gaps `clusters` is the number of
    requests they come from, which is then held against the floors; no certified bound is given, and
    the sample's p95 stands apart, for comparisons of many such samples.
    """
    if not values:
        return Distribution(unit=unit, n=0, reason="no request has a value")
    array = np.asarray(values, dtype=np.float64)
    independent = len(values) if clusters is None else min(clusters, len(values))
    known: dict[str, Any] = {
        name: float(np.quantile(array, QUANTILES[name]))
        for name, floor in FLOORS.items()
        if independent >= floor
    }
    if clusters is None:
        ordered = np.sort(array)
        for name in ("p90", "p99"):
            known[f"{name}_certified"] = certified_upper_bound(ordered, QUANTILES[name])
    else:
        known |= {"clusters": clusters, "p95_sample": float(np.quantile(array, QUANTILES["p95"]))}
    return Distribution(
        unit=unit,
        n=len(values),
        mean=float(array.mean()),
        std=float(array.std(ddof=1)) if len(values) > 1 else None,
        min=float(array.min()),
        max=float(array.max()),
        **known,
    )


def certified_upper_bound(
    ordered: NDArray[np.float64], quantile: float, confidence: float = CONFIDENCE
) -> float | None:
    """
    The smallest order statistic that is above the quantile with this confidence; None if none is.

    Of n independent samples the number above the true quantile p is Binomial(n, 1 - p). With t the
    largest number for which P(Binomial(n, 1 - p) <= t) < 1 - c, the value that t samples exceed,
    x_(n-t), is an upper bound. p90 needs 44 samples (0.9^44 < 0.01), p99 459.

    Source: mlcommons/inference loadgen/early_stopping.cc, with tolerance d = 0.
    """
    above = _num_discarded(len(ordered), quantile, confidence)
    return None if above < 0 else float(ordered[len(ordered) - 1 - above])


def _num_discarded(num_samples: int, quantile: float, confidence: float) -> int:
    """t of `certified_upper_bound`; -1 where even the largest sample is no bound."""
    # Here, as it takes a second: help and mistakes need not wait for it.
    from scipy.stats import binom

    # ppf is the smallest number whose probability reaches 1 - c: the one below it is the last
    # that stays under.
    return int(binom.ppf(1 - confidence, num_samples, 1 - quantile)) - 1


def bootstrap_by_request(
    values_by_request: Sequence[Sequence[float]],
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """
    A 95 % percentile interval of a statistic of pooled values; whole requests are drawn again.

    The gaps of a request come together or not at all, as they depend on each other. None below two
    requests with values.
    """
    clusters = [np.asarray(values, dtype=np.float64) for values in values_by_request if values]
    if len(clusters) < 2:
        return None
    random = np.random.default_rng(seed)
    estimates = [
        statistic(np.concatenate([clusters[i] for i in random.integers(0, len(clusters), size)]))
        for size in [len(clusters)] * resamples
    ]
    low, high = np.quantile(estimates, [0.025, 0.975])
    return float(low), float(high)


def floor_reason(name: str, num_samples: int) -> str | None:
    """Why a percentile is not shown: 'p99 needs 662 samples, there are 128'."""
    floor = FLOORS[name]
    if num_samples >= floor:
        return None
    return f"{name.replace('_', '.')} needs {floor} samples, there are {num_samples}"


def quantile_of(values: Sequence[float], quantile: float) -> float | None:
    """A quantile for a check, whatever the sample's size; None of nothing."""
    if not values:
        return None
    value = float(np.quantile(np.asarray(values, dtype=np.float64), quantile))
    return value if math.isfinite(value) else None
