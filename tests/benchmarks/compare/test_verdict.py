"""What may be claimed of measured pairs, in words and as an exit code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Literal

import numpy as np
import pytest

from benchmarks.compare.metrics import Metric
from benchmarks.compare.statistics import LOOKS, alpha_per_look
from benchmarks.compare.verdict import (
    EXIT_CODES,
    MeasuredPair,
    Rule,
    compare_metrics,
    left_out,
    missing_metrics,
    noise_floors,
    overall,
    p_text,
    settled,
)
from benchmarks.records import MetricComparison

Figures = Sequence[float | None]


def metric(
    index: int = 0, better: Literal["higher", "lower"] = "higher", *, primary: bool = True
) -> Metric[Figures]:
    """The index-th of a block's figures."""
    return Metric(
        f"m{index}", "tokens/s", better, "output tokens/s", lambda run: run[index], primary
    )


def pairs_of(a: Sequence[Figures], b: Sequence[Figures]) -> list[MeasuredPair[Figures]]:
    """Pairs of blocks, AB and BA in turn."""
    orders: Sequence[Literal["AB", "BA"]] = ("AB", "BA")
    return [
        MeasuredPair(order, x, y, f"{i}-a", f"{i}-b")
        for i, (order, x, y) in enumerate(zip(cycle(orders), a, b, strict=False))
    ]


def steady(ratios: Sequence[float], num_pairs: int = 10) -> list[MeasuredPair[Figures]]:
    """Pairs in which A's i-th figure is ratios[i] times B's, but for 0.1 % up and down."""
    wobble = [1.001 if i % 2 else 1 / 1.001 for i in range(num_pairs)]
    return pairs_of(
        [[100 * ratio * w for ratio in ratios] for w in wobble], [[100.0] * len(ratios)] * num_pairs
    )


def judged(ratios: Sequence[float], **arguments: float) -> list[MetricComparison]:
    """The metrics m0, m1, ... of steady ratios."""
    return compare_metrics(
        [metric(i) for i in range(len(ratios))], steady(ratios), Rule(**arguments)
    )


def test_metric_comparison() -> None:
    """A metric's ratio, interval and p come from its pairs, and its sentence says them."""
    # Log ratios ln(1.02), ln(1.04) in turn: mean (0.019803 + 0.039221) / 2 = 0.029512,
    # exp = 1.02995. s = 0.0103795 (8 pairs), t(0.975, 7) = 2.3646: half 0.0086774.
    a: list[Figures] = [[102.0], [104.0]] * 4
    (found,) = compare_metrics([metric()], pairs_of(a, [[100.0]] * 8), Rule())
    assert found.ratio_mean == pytest.approx(1.02995, abs=1e-5)
    assert found.ratio_median == pytest.approx(1.02995, abs=1e-5)
    assert (found.ci_low, found.ci_high) == pytest.approx((1.02105, 1.03893), abs=1e-5)
    assert (found.a_median, found.b_median) == (103.0, 100.0)
    # All signs alike: 2 / 256.
    assert found.p_sign_flip == found.p_holm == 0.0078125
    assert found.verdict == "faster"
    assert found.message == (
        "A gives 1.030 times B's output tokens/s (95 % 1.021 to 1.039, 8 pairs, p 0.008)"
    )
    assert [pair.order for pair in found.pairs] == ["AB", "BA"] * 4
    assert found.pairs[0].log_ratio == pytest.approx(math.log(1.02))
    assert (found.pairs[1].a_directory, found.pairs[1].b_directory) == ("1-a", "1-b")


def test_lower_is_better() -> None:
    """Of a latency A takes less, and is faster for it."""
    (found,) = compare_metrics([metric(better="lower")], steady([0.9]), Rule())
    assert found.verdict == "faster"
    assert found.message.startswith("A takes 0.900 times B's")


def test_inconclusive_says_why() -> None:
    """An inconclusive sentence ends with what was missing."""
    (found,) = compare_metrics([metric()], steady([1.05]), Rule(), {"m0": 0.06})
    assert found.verdict == "inconclusive"
    assert found.noise_floor == 0.06
    assert found.message.endswith(
        "p 0.002), but that is within the noise floor: A differs from itself by 6.0 %"
    )


def test_holm_over_the_primary_metrics_only() -> None:
    """Holm's correction counts primary metrics; a descriptive one has none."""
    metrics = [metric(0), metric(1), metric(2, primary=False)]
    found = compare_metrics(metrics, steady([1.1, 1.1, 1.1]), Rule())
    # 10 pairs, all alike: 2/1024 = 0.001953; times 2 = 0.003906.
    assert [m.p_holm for m in found] == pytest.approx([0.003906, 0.003906, None], abs=1e-6)
    assert {m.p_sign_flip for m in found} == {2 / 1024}


@pytest.mark.parametrize("gap", [None, 0.0, -1.0])
def test_a_figure_that_is_missing_once(gap: float | None) -> None:
    """A metric that one block lacks, or has no logarithm of, is left out and named."""
    pairs = pairs_of([[1.0, 2.0]] * 6, [[1.0, 2.0]] * 5 + [[1.0, gap]])
    metrics = [metric(0), metric(1)]
    assert [found.metric for found in compare_metrics(metrics, pairs, Rule())] == ["m0"]
    assert missing_metrics(metrics, pairs) == ["m1"]


def test_a_figure_that_is_missing_everywhere() -> None:
    """A metric that no block has is left out without a word."""
    pairs = pairs_of([[1.0, None]] * 6, [[1.0, None]] * 6)
    assert missing_metrics([metric(0), metric(1)], pairs) == []


def counted(floor: int) -> Metric[Figures]:
    """Figure 0, of which a block has as many requests as its figure 1 says."""
    return replace(metric(), requests=lambda run: int(run[1] or 0), floor=floor)


@pytest.mark.parametrize(("floor", "is_compared"), [(130, True), (131, False)])
def test_requests_of_all_blocks_of_a_side(floor: int, is_compared: bool) -> None:
    """A percentile may be compared where all blocks of each side together carry it."""
    # A has 10 blocks of 20 requests, B of 13: 130.
    pairs = pairs_of([[1.0, 20]] * 10, [[1.0, 13]] * 10)
    found = compare_metrics([counted(floor)], pairs, Rule())
    assert bool(found) is is_compared
    assert left_out([counted(floor)], pairs) == (
        {}
        if is_compared
        else {
            "m0": "it needs 131 requests a side, and there were 130; give more --requests, or "
            "more pairs"
        }
    )
    assert missing_metrics([counted(floor)], pairs) == []


def test_noise_floor_takes_the_requests_of_both_sides() -> None:
    """A against itself is one server: all its blocks together carry the percentile."""
    pairs = pairs_of([[1.0, 13]] * 6, [[1.0, 13]] * 6)
    assert compare_metrics([counted(156)], pairs, Rule(other="A"))
    assert not compare_metrics([counted(156)], pairs, Rule())


@pytest.mark.parametrize(("value", "why"), [(None, {"m0": "there is no SLO"}), (0.0, {})])
def test_declared_metric_that_no_block_has(value: float | None, why: dict[str, str]) -> None:
    """A metric that needs something says so where it is nowhere; 0 everywhere is another thing."""
    needs = replace(metric(), absent="there is no SLO")
    pairs = pairs_of([[value]] * 6, [[value]] * 6)
    assert left_out([needs], pairs) == why
    assert (missing_metrics([needs], pairs) == []) is bool(why)


def test_noise_floors() -> None:
    """A/A's floor is half its interval's width."""
    a: list[Figures] = [[102.0], [104.0]] * 4
    a_a = compare_metrics([metric()], pairs_of(a, [[100.0]] * 8), Rule(other="A"))
    # Half 0.0086774, as above: exp - 1 = 0.0087152; where the centre lies does not matter.
    assert noise_floors(a_a) == pytest.approx({"m0": 0.0087152}, abs=1e-6)
    assert "times A's" in a_a[0].message


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.1, 1.1], "faster"),
        ([1.1, 1.0], "faster"),
        ([0.9, 1.0], "slower"),
        ([1.0, 1.0], "equivalent"),
        ([1.1, 0.9], "inconclusive"),
    ],
)
def test_overall(ratios: list[float], verdict: str) -> None:
    """One primary metric makes the verdict unless another says the contrary; all are settled."""
    found = judged(ratios)
    assert overall(found)[0] == verdict
    assert settled(found)


def test_overall_sentences() -> None:
    """The sentence has the interval, names what agrees, and calls a trade one."""
    assert overall(judged([1.1, 1.1]))[1].endswith("p 0.004); the same for m1")
    trade = overall(judged([1.1, 0.9]))[1]
    assert trade.startswith("a trade: A gives 1.100 times")
    assert ", but A gives 0.900 times" in trade


def test_a_descriptive_metric_makes_no_verdict() -> None:
    """What only describes is neither faster nor slower overall."""
    found = compare_metrics([metric(0), metric(1, primary=False)], steady([1.0, 0.5]), Rule())
    assert found[1].verdict == "slower"
    assert overall(found)[0] == "equivalent"


def test_nothing_primary() -> None:
    """Without a primary metric there is no verdict."""
    assert overall([]) == ("inconclusive", "no primary metric was measured on both sides")
    assert not settled([])


def test_exit_codes() -> None:
    """0 is no step back, 1 slower, 2 inconclusive, 3 invalid."""
    assert EXIT_CODES == {
        "faster": 0,
        "equivalent": 0,
        "slower": 1,
        "inconclusive": 2,
        "invalid": 3,
    }


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "p < 0.001"), (0.0078, "p 0.008"), (0.25, "p 0.25")]
)
def test_p_text(p: float, text: str) -> None:
    """A p value is never written as 0."""
    assert p_text(p) == text


def simulated(seed: int, *, effect: float, cv: float, num_metrics: int, aa_pairs: int) -> str:
    """The verdict of one comparison with lognormal noise, looks and all."""
    random = np.random.default_rng(seed)
    metrics = [metric(index) for index in range(num_metrics)]

    def blocks(num_pairs: int, ratio: float) -> list[Figures]:
        return [list(row) for row in ratio * np.exp(random.normal(0, cv, (num_pairs, num_metrics)))]

    a_a = compare_metrics(metrics, pairs_of(blocks(aa_pairs, 1), blocks(aa_pairs, 1)), Rule())
    measured = pairs_of(blocks(LOOKS[-1], effect), blocks(LOOKS[-1], 1))
    rule = Rule(alpha_per_look(LOOKS))
    for look in LOOKS:
        found = compare_metrics(metrics, measured[:look], rule, noise_floors(a_a))
        if settled(found):
            break
    trade = {m.verdict for m in found} >= {"faster", "slower"}
    return "trade" if trade else overall(found)[0]


@pytest.mark.parametrize("num_metrics", [1, 4])
def test_a_against_a_is_rarely_called(num_metrics: int) -> None:
    """Of 400 comparisons of equals with 5 % noise, at most 5 % claim a difference."""
    # Without a noise floor, which only takes claims away.
    verdicts = [
        simulated(seed, effect=1.0, cv=0.05, num_metrics=num_metrics, aa_pairs=0)
        for seed in range(400)
    ]
    claims = sum(verdict in ("faster", "slower", "trade") for verdict in verdicts)
    assert claims <= 0.05 * 400


@pytest.mark.parametrize(("effect", "verdict"), [(1.1, "faster"), (1 / 1.1, "slower")])
def test_ten_percent_is_found(effect: float, verdict: str) -> None:
    """With 2 % noise a difference of 10 % is found in at least 95 % of 200 comparisons."""
    verdicts = [
        simulated(seed, effect=effect, cv=0.02, num_metrics=4, aa_pairs=6) for seed in range(200)
    ]
    assert verdicts.count(verdict) >= 0.95 * 200


def test_equals_with_little_noise_are_equivalent() -> None:
    """With 1 % noise equals are called equivalent in at least 95 % of 200 comparisons."""
    verdicts = [
        simulated(seed, effect=1.0, cv=0.01, num_metrics=4, aa_pairs=6) for seed in range(200)
    ]
    assert verdicts.count("equivalent") >= 0.95 * 200
