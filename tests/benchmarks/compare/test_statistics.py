"""The paired statistics against worked numbers, brute force, scipy, and simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, permutation_test, ttest_1samp

from benchmarks.compare.statistics import (
    LOOKS,
    alpha_per_look,
    decide,
    equivalence_p,
    estimate,
    holm,
    log_ratios,
    noise_floor,
    sign_flip_p,
    smallest_p,
)

LOGS = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=9)


def test_log_ratios() -> None:
    """A pair's log ratio is ln(a / b)."""
    # ln(110 / 100) = 0.0953, ln(90 / 100) = -0.1054
    assert log_ratios([110, 90], [100, 100]) == pytest.approx([0.09531, -0.10536], abs=1e-5)


@pytest.mark.parametrize("values", [[0.0, 1.0], [-1.0, 1.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_log_ratio_of_nothing(values: list[float]) -> None:
    """A value that has no logarithm is refused, on either side."""
    for a, b in ((values, [1.0, 1.0]), ([1.0, 1.0], values)):
        with pytest.raises(ValueError, match="a ratio needs values above 0"):
            log_ratios(a, b)


def test_log_ratios_of_different_lengths() -> None:
    """Sides of different length are no pairs."""
    with pytest.raises(ValueError, match="A has 2 values and B 1; pairs need as many of each"):
        log_ratios([1, 2], [1])


def test_estimate() -> None:
    """The interval is mean +- t s / sqrt(n)."""
    # Mean 0.02, deviations -0.01, 0, 0.01: s = 0.01, s / sqrt(3) = 0.0057735.
    # t(0.975, 2) = 4.3027: half = 0.024841.
    found = estimate(np.array([0.01, 0.02, 0.03]))
    assert found.num_pairs == 3
    assert (found.mean, found.median) == pytest.approx((0.02, 0.02))
    assert (found.low, found.high) == pytest.approx((-0.004841, 0.044841), abs=1e-6)


@given(LOGS)
def test_estimate_is_scipys(logs: list[float]) -> None:
    """The interval is the one of scipy's paired t test."""
    d = np.array(logs)
    assume(np.ptp(d) > 0)
    low, high = ttest_1samp(d, 0).confidence_interval(0.95)
    assert (estimate(d).low, estimate(d).high) == pytest.approx((low, high), abs=1e-12)


def test_estimate_of_one_pair() -> None:
    """One pair has no interval."""
    with pytest.raises(ValueError, match="an interval of 1 pairs was asked for; measure at least"):
        estimate(np.array([0.1]))


def test_sign_flip_worked() -> None:
    """p is the part of the sign choices whose sum is as far from 0."""
    # Sums of +-1 +-2 +-3: 6, 4, 2, 0, 0, -2, -4, -6. As far as 1 + 2 + 3 = 6: 2 of 8.
    # As far as -1 + 2 + 3 = 4: 4 of 8.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == 0.25
    assert sign_flip_p(np.array([-1.0, 2.0, 3.0])) == 0.5


@given(LOGS)
def test_sign_flip_is_brute_force(logs: list[float]) -> None:
    """The exact p counts every choice of signs, ties included."""
    # In whole thousandths, so that sums that are equal on paper are equal here.
    whole = [round(log * 1000) for log in logs]
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, whole, strict=True)))
        for signs in product((1, -1), repeat=len(whole))
    ]
    expected = sum(found >= abs(sum(whole)) for found in sums) / len(sums)
    assert sign_flip_p(np.array(logs)) == pytest.approx(expected)


@pytest.mark.parametrize("num_pairs", [6, 8, 10])
def test_sign_flip_is_scipys(num_pairs: int) -> None:
    """The exact p is the one of scipy's permutation test of paired samples."""
    random = np.random.default_rng(num_pairs)
    a, b = random.normal(0.03, 0.05, num_pairs), random.normal(0, 0.05, num_pairs)
    theirs = permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert sign_flip_p(a - b) == pytest.approx(theirs.pvalue)


def test_sign_flip_of_no_difference() -> None:
    """Where A and B never differ, p is 1."""
    assert sign_flip_p(np.zeros(8)) == 1.0


def test_sign_flip_drawn() -> None:
    """Above 16 pairs the flips are drawn by the seed, and p is never 0."""
    d = np.random.default_rng(1).normal(0.02, 0.05, 20)
    assert sign_flip_p(d, seed=3) == sign_flip_p(d, seed=3)
    # All 20 alike: of 10,000 drawn none is as far (2 / 2^20 are), so p = 1 / 10,001.
    assert sign_flip_p(np.ones(20)) == pytest.approx(1 / 10_001) == smallest_p(20)


def test_sign_flip_drawn_is_near_the_t_test() -> None:
    """The drawn p of many pairs is about the t test's."""
    d = np.random.default_rng(5).normal(0.01, 0.05, 60)
    assert sign_flip_p(d) == pytest.approx(ttest_1samp(d, 0).pvalue, abs=0.02)


def test_sign_flip_of_nothing() -> None:
    """No pairs have no p."""
    with pytest.raises(ValueError, match="a sign-flip test of 0 pairs"):
        sign_flip_p(np.array([]))


@pytest.mark.parametrize(("num_pairs", "p"), [(5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_smallest_p(num_pairs: int, p: float) -> None:
    """Of n pairs no p is below 2 / 2^n, and all signs alike reach it."""
    assert smallest_p(num_pairs) == p
    assert sign_flip_p(np.linspace(0.01, 0.02, num_pairs)) == p


def test_every_default_look_can_decide() -> None:
    """Each default look can find a difference in all five primary metrics at its own level."""
    alpha = alpha_per_look(LOOKS)
    assert alpha == pytest.approx(0.05 / 3)
    for num_pairs in LOOKS:
        # Holm times 5: at 10 pairs 5 x 2/1024 = 0.0098, below 0.0167.
        adjusted = holm([smallest_p(num_pairs)] * 5)
        d = np.linspace(0.1, 0.11, num_pairs)
        found = decide(d, better="higher", p=adjusted[-1], alpha=alpha, num_tests=5)
        assert found.verdict == "faster"


def test_eight_pairs_cannot_decide_among_four_metrics() -> None:
    """A look with too few pairs says so, however large the difference is."""
    # 4 x 2/256 = 0.03125, above 0.05 / 3 = 0.0167
    found = decide(
        np.linspace(0.1, 0.11, 8), better="higher", p=4 * 2 / 256, alpha=0.05 / 3, num_tests=4
    )
    assert found == ("inconclusive", "8 pairs give no p below 0.031, and 0.017 is needed")


def test_holm() -> None:
    """The i-th smallest of m is multiplied by m - i + 1, and none falls below one before it."""
    # Sorted 0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.9 x 1 = 0.9.
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    # 0.03 x 2 = 0.06; 0.04 x 1 would fall to 0.04, and stays 0.06.
    assert holm([0.03, 0.04]) == pytest.approx([0.06, 0.06])
    assert holm([0.8, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_bounds(p_values: list[float]) -> None:
    """Holm lies between false discovery control and Bonferroni."""
    weaker = false_discovery_control(p_values)
    for raw, low, found in zip(p_values, weaker, holm(p_values), strict=True):
        assert low - 1e-12 <= found <= min(1.0, len(p_values) * raw) + 1e-12


def test_equivalence() -> None:
    """P is the nearer one-sided t test's, against ln(1 + margin)."""
    # Mean 0.01, s = 0.01, error 0.01 / sqrt(4) = 0.005; room ln(1.03) - 0.01 = 0.019559;
    # t = 3.9118 with 3 degrees of freedom: p = 0.01486.
    d = np.array([0.0, 0.01, 0.01, 0.02]) + np.array([-0.0022474, 0, 0, 0.0022474])
    assert d.std(ddof=1) == pytest.approx(0.01, abs=1e-5)
    assert equivalence_p(d, 0.03) == pytest.approx(0.01486, abs=1e-4)
    assert equivalence_p(d, 0.03) == pytest.approx(
        ttest_1samp(d, math.log(1.03), alternative="less").pvalue
    )


def test_equivalence_is_symmetric() -> None:
    """A over B and B over A are equally equivalent."""
    d = np.random.default_rng(2).normal(0.01, 0.01, 8)
    assert equivalence_p(d, 0.03) == pytest.approx(equivalence_p(-d, 0.03))


def test_equivalence_without_spread() -> None:
    """Without spread, equivalence is whether the one ratio lies within the margin."""
    assert equivalence_p(np.zeros(6), 0.03) == 0.0
    assert equivalence_p(np.full(6, math.log(1.04)), 0.03) == 1.0


def test_noise_floor() -> None:
    """The floor is half the interval's width, as a ratio above 1."""
    # exp(0.02) / exp(-0.04): width 0.06, half 0.03, exp(0.03) - 1 = 0.030455
    assert noise_floor(math.exp(-0.04), math.exp(0.02)) == pytest.approx(0.030455, abs=1e-6)


ALIKE = np.array([0.048, 0.05, 0.052, 0.049, 0.051, 0.05, 0.05, 0.05])


@pytest.mark.parametrize(
    ("better", "sign", "verdict"),
    [
        ("higher", 1, "faster"),
        ("higher", -1, "slower"),
        ("lower", 1, "slower"),
        ("lower", -1, "faster"),
    ],
)
def test_direction(better: str, sign: int, verdict: str) -> None:
    """Faster is more where more is better, and less where less is."""
    assert decide(sign * ALIKE, better=better, p=0.01).verdict == verdict  # type: ignore[arg-type]


def test_a_claim_needs_a_small_p() -> None:
    """A p above alpha makes no claim."""
    found = decide(ALIKE, better="higher", p=0.02, alpha=0.01)
    assert found == ("inconclusive", "p 0.02 is above 0.01")


def test_a_claim_needs_an_interval_without_one() -> None:
    """An interval that contains 1 makes no claim, whatever p is."""
    # Mean 0.03, s = 0.19: half = 2.306 x 0.19 / 3 is far above the mean.
    wide = np.array([-0.2, 0.2, -0.2, 0.2, -0.2, 0.2, -0.2, 0.3, 0.37])
    found = decide(wide, better="higher", p=0.001)
    assert found == ("inconclusive", "the interval contains 1")


def test_a_claim_needs_more_than_the_noise_floor() -> None:
    """A difference that A shows against itself makes no claim."""
    found = decide(ALIKE, better="higher", p=0.008, floor=0.06)
    assert found.verdict == "inconclusive"
    assert found.reason == "that is within the noise floor: A differs from itself by 6.0 %"
    assert decide(ALIKE, better="higher", p=0.008, floor=0.04).verdict == "faster"


def test_equivalent() -> None:
    """Where the interval lies well within the margin, the two are equivalent."""
    d = np.array([0.004, -0.003, 0.002, -0.004, 0.003, -0.002])
    assert decide(d, better="higher", p=1.0).verdict == "equivalent"
    assert decide(d * 20, better="higher", p=1.0).verdict == "inconclusive"


def test_five_pairs_claim_nothing() -> None:
    """Below six pairs there is no verdict."""
    found = decide(np.zeros(5), better="higher", p=0.0)
    assert found == ("inconclusive", "5 pairs are fewer than 6")
