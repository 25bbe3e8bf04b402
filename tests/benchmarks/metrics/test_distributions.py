"""Percentiles, what a sample cannot say, and bounds that hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from benchmarks.metrics.distributions import (
    FLOORS,
    QUANTILES,
    bootstrap_by_request,
    certified_upper_bound,
    describe,
    floor_reason,
    quantile_of,
)
from tests.benchmarks.metrics.made import few_examples

PERCENTILES = list(FLOORS)


def test_linear_interpolation() -> None:
    """A percentile between two samples lies between them, in proportion."""
    found = describe([float(value) for value in range(1, 101)], "s")
    # rank 0.5 * 99 = 49.5 -> 50.5; rank 0.9 * 99 = 89.1 -> 90.1
    assert found.p50 == pytest.approx(50.5)
    assert found.p90 == pytest.approx(90.1)


def test_moments() -> None:
    """Mean, the sample's standard deviation, and range."""
    found = describe([1.0, 2.0, 3.0, 6.0], "s")
    # mean 12 / 4; squares 4 + 1 + 0 + 9 = 14, over n - 1 = 3
    assert (found.n, found.mean, found.min, found.max) == (4, 3.0, 1.0, 6.0)
    assert found.std == pytest.approx((14 / 3) ** 0.5)


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_suppressed_below_its_floor(name: str, floor: int) -> None:
    """A percentile is there from its floor on, and not one sample before."""
    assert getattr(describe([1.0] * floor, "s"), name) == 1.0
    assert getattr(describe([1.0] * (floor - 1), "s"), name) is None


@pytest.mark.parametrize("name", ["p90", "p95", "p99", "p99_9"])
def test_floors_are_early_stoppings(name: str) -> None:
    """Each floor is the first size at which one sample may lie above a bound with 99 %."""
    quantile, floor = QUANTILES[name], FLOORS[name]
    # P(Binomial(n, 1 - p) <= 1) first falls below 0.01 at the floor
    assert binom.cdf(1, floor, 1 - quantile) < 0.01 <= binom.cdf(1, floor - 1, 1 - quantile)


def test_nothing_to_describe() -> None:
    """No value is a distribution with a reason, not zeros."""
    found = describe([], "s")
    assert (found.n, found.mean, found.p50) == (0, None, None)
    assert found.reason == "no request has a value"


def test_gaps_count_as_their_requests() -> None:
    """Ten thousand gaps of ten requests are ten samples where percentiles are concerned."""
    found = describe([0.01] * 10_000, "s", clusters=10)
    assert (found.n, found.p50, found.p90) == (10_000, 0.01, None)
    assert found.p90_certified is None
    assert describe([0.01] * 10_000, "s", clusters=64).p90 == 0.01


def test_sample_of_gaps_for_comparisons() -> None:
    """The sample's p95 stands apart from the percentile, with the requests that it comes from."""
    gaps = [float(value) for value in range(1, 102)]
    found = describe(gaps, "s", clusters=10)
    # rank 0.95 * 100 = 95 -> the value 96
    assert (found.p95, found.p95_sample, found.clusters) == (None, 96.0, 10)
    assert (describe(gaps, "s").p95_sample, describe(gaps, "s").clusters) == (None, None)


def test_certified_bound_of_44() -> None:
    """With 44 samples the greatest bounds p90; with 43 nothing does."""
    # 0.9^44 = 0.0097 < 0.01 <= 0.9^43 = 0.0108
    values = np.arange(44.0)
    assert certified_upper_bound(values, 0.9) == 43.0
    assert certified_upper_bound(values[:43], 0.9) is None


def test_certified_bound_of_64() -> None:
    """With 64 samples the second greatest bounds p90."""
    # P(Bin(64, 0.1) <= 1) = 0.9^64 + 64 * 0.1 * 0.9^63 = 0.0012 + 0.0084 < 0.01
    assert certified_upper_bound(np.arange(64.0), 0.9) == 62.0


def test_certified_bound_holds_as_often_as_it_says() -> None:
    """Over many samples of a known law, the bound lies below the true p90 in at most 1 %."""
    samples = np.sort(np.random.default_rng(7).exponential(size=(2000, 200)), axis=1)
    true_p90 = float(np.log(10))
    bounds = [certified_upper_bound(sample, 0.9) for sample in samples]
    missed = sum(bound is None or bound < true_p90 for bound in bounds)
    # 1 % of 2000 is 20, and 3 standard deviations more are 33
    assert missed <= 33


@few_examples
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=800))
def test_percentiles_rise(values: list[float]) -> None:
    """Percentiles rise with their rank, within the range, and a bound is above its percentile."""
    found = describe(values, "s")
    shown = [v for name in PERCENTILES if (v := getattr(found, name)) is not None]
    assert shown == sorted(shown)
    assert all(min(values) <= value <= max(values) for value in shown)
    if found.p90 is not None and found.p90_certified is not None:
        assert found.p90_certified >= found.p90


def test_bootstrap_draws_whole_requests() -> None:
    """Gaps that are equal within a request are as few samples as there are requests."""

    def mean(values: np.ndarray) -> float:
        return float(values.mean())

    by_request = [[float(number)] * 1000 for number in range(10)]
    interval = bootstrap_by_request(by_request, mean, seed=1, resamples=500)
    assert interval is not None
    low, high = interval
    # The mean of 10 values 0..9 has a standard error of 2.87 / sqrt(10) = 0.91: about 2.7 to 6.3.
    # By gap it would be 2.87 / sqrt(10000) = 0.03: 4.44 to 4.56.
    assert low < 3.5 < 5.5 < high
    assert bootstrap_by_request(by_request, mean, seed=1, resamples=500) == interval


def test_bootstrap_needs_two_requests() -> None:
    """One request says nothing about the next."""
    assert bootstrap_by_request([[1.0, 2.0], []], np.mean) is None


def test_reason_of_a_missing_percentile() -> None:
    """The reason names the floor and the sample."""
    assert floor_reason("p99", 128) == "p99 needs 662 samples, there are 128"
    assert floor_reason("p99_9", 10) == "p99.9 needs 6636 samples, there are 10"
    assert floor_reason("p99", 662) is None


def test_quantile_for_a_check() -> None:
    """A check takes what there is."""
    assert quantile_of([1.0, 2.0], 0.5) == 1.5
    assert quantile_of([], 0.5) is None
