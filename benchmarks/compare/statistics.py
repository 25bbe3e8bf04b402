"""
Paired statistics of A against B on log ratios: estimate, sign-flip test, Holm, equivalence.

Pure functions on d_j = ln(a_j / b_j), one for each pair; nothing here knows what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

Verdict = Literal["faster", "slower", "equivalent", "inconclusive"]
Better = Literal["higher", "lower"]
Array = NDArray[np.float64]

ALPHA = 0.05
MARGIN = 0.03
MIN_PAIRS = 6  # with 5 the smallest p of the sign-flip test is 0.0625
# 8 pairs cannot decide among five primary metrics at the first of three looks: Holm's 5 x 2/256 is
# 0.039, above 0.05 / 3. 10 can (0.0098). Even numbers, as the order is balanced over two pairs.
LOOKS = (10, 12, 16)
EXACT_PAIRS = 16  # 2^15 sums take under a millisecond: every default look is exact
NUM_FLIPS = 10_000


class Estimate(NamedTuple):
    """Of the log ratios: their centre and the interval of their mean."""

    num_pairs: int
    mean: float
    median: float
    low: float
    high: float


class Decision(NamedTuple):
    """A verdict; where it is inconclusive, `reason` says what was missing."""

    verdict: Verdict
    reason: str = ""


def log_ratios(a: Sequence[float], b: Sequence[float]) -> Array:
    """
    d_j = ln(a_j / b_j), one for each pair.

    Raises:
        ValueError: the two differ in length, or a value is not above 0.
    """
    if len(a) != len(b):
        raise ValueError(f"A has {len(a)} values and B {len(b)}; pairs need as many of each")
    if not all(math.isfinite(value) and value > 0 for value in (*a, *b)):
        raise ValueError("a ratio needs values above 0; leave out the metric where one is 0")
    return np.log(np.asarray(a, dtype=np.float64) / np.asarray(b, dtype=np.float64))


def estimate(d: Array, confidence: float = 0.95) -> Estimate:
    """
    Mean and median of the log ratios, and the mean's paired t interval: mean +- t s / sqrt(n).

    Source: Student 1908; the interval of a geometric mean is the exponential of its two ends.
    """
    if len(d) < 2:
        raise ValueError(f"an interval of {len(d)} pairs was asked for; measure at least 2")
    mean, error = _mean_and_error(d)
    half = _t_quantile((1 + confidence) / 2, len(d) - 1) * error
    return Estimate(len(d), mean, float(np.median(d)), mean - half, mean + half)


@lru_cache(maxsize=128)
def _t_quantile(p: float, degrees_of_freedom: int) -> float:
    return float(student_t.ppf(p, degrees_of_freedom))


def sign_flip_p(d: Array, *, seed: int = 0) -> float:
    """
    Two-sided p of 'A and B are the same', by flipping the signs of the log ratios.

    If they are the same, which of a pair is called A does not matter: each d_j is as likely as
    -d_j. p is the part of all 2^n choices of signs whose mean is as far from 0 as the one measured.
    Up to EXACT_PAIRS pairs all choices are counted; above, NUM_FLIPS seeded ones, as
    p = (1 + as far) / (1 + drawn), which never falls below the true level.

    Source: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010 for the +1.
    """
    num_pairs = len(d)
    if num_pairs == 0:
        raise ValueError("a sign-flip test of 0 pairs was asked for; measure at least 1")
    # Sums that are equal on paper differ in their last bits.
    far = abs(float(d.sum())) - 1e-12 * float(np.abs(d).sum())
    if num_pairs <= EXACT_PAIRS:
        return float(np.mean(np.abs(_sums_of_all_signs(d)) >= far))
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(NUM_FLIPS, num_pairs))
    as_far = int(np.count_nonzero(np.abs(signs @ d) >= far))
    return (1 + as_far) / (1 + NUM_FLIPS)


def _sums_of_all_signs(d: Array) -> Array:
    """The sums of d under every choice of signs with a last +: the others only mirror these."""
    half = len(d) // 2
    first, second = _all_signs(half) @ d[:half], _all_signs(len(d) - half) @ d[half:]
    return np.add.outer(first, second[: len(second) // 2]).ravel()


@lru_cache(maxsize=32)
def _all_signs(num_pairs: int) -> Array:
    """Every choice of signs, shape (2^n, n); the last is + in the first half of them."""
    codes = np.arange(2**num_pairs)[:, None]
    return np.asarray(1.0 - 2.0 * ((codes >> np.arange(num_pairs)) & 1))


def smallest_p(num_pairs: int) -> float:
    """
    The smallest two-sided p that so many pairs can give: only all signs alike are as far, 2 / 2^n.

    5 pairs: 0.0625, 6: 0.031, 8: 0.0078, 10: 0.002.
    """
    if num_pairs <= EXACT_PAIRS:
        return float(2.0 ** (1 - num_pairs))
    return 1 / (1 + NUM_FLIPS)


def holm(p_values: Sequence[float]) -> list[float]:
    """
    P values adjusted for their number m: the i-th smallest times m - i + 1, at most 1.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def equivalence_p(d: Array, margin: float = MARGIN) -> float:
    """
    P of 'the ratio is outside 1 / (1 + margin) to 1 + margin': the larger of two one-sided t tests.

    In logs the margin is +-ln(1 + margin), so that A over B and B over A get the same answer.
    Source: Schuirmann 1987 (TOST).
    """
    if len(d) < 2:
        raise ValueError(f"equivalence of {len(d)} pairs was asked for; measure at least 2")
    mean, error = _mean_and_error(d)
    room = math.log1p(margin) - abs(mean)  # to the nearer end, which has the larger p
    if error == 0:
        return 0.0 if room > 0 else 1.0
    return float(student_t.sf(room / error, len(d) - 1))


def noise_floor(ci_low: float, ci_high: float) -> float:
    """Half the width of A/A's interval of ratios, as a ratio above 1: 0.02 is 2 %."""
    return math.sqrt(ci_high / ci_low) - 1


def decide(
    d: Array,
    *,
    better: Better,
    p: float,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    floor: float | None = None,
    num_tests: int = 1,
) -> Decision:
    """
    A's verdict: faster or slower (better or worse), equivalent, or inconclusive.

    Faster and slower need all three: p (adjusted for `num_tests` metrics) at most alpha (already
    divided by the number of looks), a 95 % interval without 1, and a mean beyond the noise floor.
    Otherwise equivalent, where both one-sided tests reject a difference of `margin` at alpha.
    """
    if len(d) < MIN_PAIRS:
        return Decision("inconclusive", f"{len(d)} pairs are fewer than {MIN_PAIRS}")
    found = estimate(d)
    least = smallest_p(found.num_pairs) * num_tests
    reason = _why_no_difference(found, p, alpha, least, floor)
    if not reason:
        return Decision("faster" if (found.mean > 0) == (better == "higher") else "slower")
    if equivalence_p(d, margin) <= alpha:
        return Decision("equivalent")
    return Decision("inconclusive", reason)


def _why_no_difference(
    found: Estimate, p: float, alpha: float, least: float, floor: float | None
) -> str:
    if least > alpha:
        return f"{found.num_pairs} pairs give no p below {least:.2g}, and {alpha:.2g} is needed"
    if p > alpha:
        return f"p {p:.2g} is above {alpha:.2g}"
    if found.low <= 0 <= found.high:
        return "the interval contains 1"
    if floor is not None and abs(found.mean) <= math.log1p(floor):
        return f"that is within the noise floor: A differs from itself by {100 * floor:.1f} %"
    return ""


def alpha_per_look(looks: Sequence[int], alpha: float = ALPHA) -> float:
    """
    The level of each look, so that all of them together keep alpha: alpha / number of looks.

    Source: Bonferroni; Pocock 1977 for why each look costs.
    """
    return alpha / len(looks)


def _mean_and_error(d: Array) -> tuple[float, float]:
    return float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d))
