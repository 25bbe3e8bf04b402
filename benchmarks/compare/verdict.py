"""From measured pairs to what may be claimed: each metric's verdict, the whole, the exit code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from benchmarks.compare.metrics import Measured, Metric
from benchmarks.compare.plan import Order
from benchmarks.compare.statistics import (
    ALPHA,
    MARGIN,
    Array,
    Estimate,
    Verdict,
    decide,
    estimate,
    holm,
    log_ratios,
    noise_floor,
    sign_flip_p,
)
from benchmarks.records import Comparison, MetricComparison, Pair

T = TypeVar("T")
EXIT_CODES = {"faster": 0, "equivalent": 0, "slower": 1, "inconclusive": 2, "invalid": 3}


@dataclass(frozen=True)
class MeasuredPair(Generic[Measured]):
    """The same work through A and B."""

    order: Order
    a: Measured
    b: Measured
    a_directory: str | None = None
    b_directory: str | None = None
    start: int = 1  # of both servers


@dataclass(frozen=True)
class Rule:
    """When a difference counts; fixed before anything is measured."""

    alpha: float = ALPHA  # of one look
    margin: float = MARGIN
    seed: int = 0  # of the sign flips, where there are too many for all
    other: str = "B"  # what A is held against; in A/A it is A
    num_tests: int = 1  # primary metrics: how many p values Holm's correction is over


def exit_code(comparison: Comparison) -> int:
    """
    What the command exits with.

    | code | verdict              | reading                                          |
    |------|----------------------|--------------------------------------------------|
    | 0    | faster or equivalent | A is no step back                                |
    | 1    | slower               | A is worse in a primary metric, better in none   |
    | 2    | inconclusive         | too noisy or too few pairs, or a trade of metrics |
    | 3    | invalid              | a red check: the figures are no measurement      |
    """
    return EXIT_CODES[comparison.verdict]


def compare_metrics(
    metrics: Sequence[Metric[Measured]],
    pairs: Sequence[MeasuredPair[Measured]],
    rule: Rule,
    noise_floors: Mapping[str, float] | None = None,
) -> list[MetricComparison]:
    """Each metric that every pair has on both sides, above 0; Holm over the primary ones."""
    is_one_server = rule.other == "A"
    known = [
        (metric, values)
        for metric in metrics
        if (values := _values(metric, pairs))
        and not _too_few(metric, pairs, is_one_server=is_one_server)
    ]
    logs = [log_ratios(a, b) for _, (a, b) in known]
    raw = [sign_flip_p(d, seed=rule.seed) for d in logs]
    primary = [index for index, (metric, _) in enumerate(known) if metric.primary]
    rule = replace(rule, num_tests=max(1, len(primary)))
    adjusted = dict(zip(primary, holm([raw[index] for index in primary]), strict=True))
    return [
        _comparison(
            metric,
            [
                Pair(
                    order=pair.order,
                    a=a,
                    b=b,
                    log_ratio=float(log),
                    a_directory=pair.a_directory,
                    b_directory=pair.b_directory,
                    start=pair.start,
                )
                for pair, a, b, log in zip(pairs, *values, d, strict=True)
            ],
            d,
            (p, adjusted.get(index)),
            rule,
            (noise_floors or {}).get(metric.name),
        )
        for index, ((metric, values), d, p) in enumerate(zip(known, logs, raw, strict=True))
    ]


def missing_metrics(
    metrics: Sequence[Metric[Measured]], pairs: Sequence[MeasuredPair[Measured]]
) -> list[str]:
    """Metrics which some runs have, and which are not compared, as another has none, or 0."""
    return [
        metric.name
        for metric in metrics
        if not _values(metric, pairs)
        and any(metric.value(run) is not None for pair in pairs for run in (pair.a, pair.b))
    ]


def left_out(
    metrics: Sequence[Metric[Measured]], pairs: Sequence[MeasuredPair[Measured]]
) -> dict[str, str]:
    """Declared metrics that are not compared for want of requests or of an SLO, and why."""
    found = {}
    for metric in metrics:
        if _values(metric, pairs) and (few := _too_few(metric, pairs)):
            found[metric.name] = few
        elif metric.absent and all(value is None for value in _both(metric.value, pairs)):
            found[metric.name] = metric.absent
    return found


def noise_floors(a_a: Sequence[MetricComparison]) -> dict[str, float]:
    """By metric, how far A seems from itself: half the width of the A/A interval."""
    return {found.metric: noise_floor(found.ci_low, found.ci_high) for found in a_a}


def overall(metrics: Sequence[MetricComparison]) -> tuple[Verdict, str]:
    """
    The verdict over the primary metrics, and its sentence.

    Faster (slower) if one is, and none is the other; equivalent if all are; else inconclusive.
    Holm has paid for looking at several, so one is enough.
    """
    primary = [found for found in metrics if found.primary]
    by_verdict = {name: [m for m in primary if m.verdict == name] for name in EXIT_CODES}
    faster, slower = by_verdict["faster"], by_verdict["slower"]
    if faster and slower:
        return "inconclusive", f"a trade: {faster[0].message}, but {slower[0].message}"
    if faster:
        return "faster", _joined(faster)
    if slower:
        return "slower", _joined(slower)
    if primary and len(by_verdict["equivalent"]) == len(primary):
        return "equivalent", _joined(primary)
    if not primary:
        return "inconclusive", "no primary metric was measured on both sides"
    return "inconclusive", _joined(by_verdict["inconclusive"])


def settled(metrics: Sequence[MetricComparison]) -> bool:
    """Whether more pairs are not needed: there is a verdict, or a trade."""
    found = {metric.verdict for metric in metrics if metric.primary}
    return overall(metrics)[0] != "inconclusive" or {"faster", "slower"} <= found


def _joined(metrics: Sequence[MetricComparison]) -> str:
    """The first sentence, and which other metrics share its verdict."""
    others = [metric.metric for metric in metrics[1:]]
    return metrics[0].message + (f"; the same for {', '.join(others)}" if others else "")


def _both(value: Callable[[Measured], T], pairs: Sequence[MeasuredPair[Measured]]) -> Iterator[T]:
    """Of all blocks of A, then of all of B."""
    yield from (value(pair.a) for pair in pairs)
    yield from (value(pair.b) for pair in pairs)


def _too_few(
    metric: Metric[Measured],
    pairs: Sequence[MeasuredPair[Measured]],
    *,
    is_one_server: bool = False,
) -> str:
    """That a side has too few requests for the metric; empty where it has enough."""
    if metric.requests is None:
        return ""
    counts = list(_both(metric.requests, pairs))
    sides = [counts] if is_one_server else [counts[: len(pairs)], counts[len(pairs) :]]
    fewest = min(sum(side) for side in sides)
    if fewest >= metric.floor:
        return ""
    return (
        f"it needs {metric.floor} requests a side, and there were {fewest}; give more --requests, "
        "or more pairs"
    )


def _values(
    metric: Metric[Measured], pairs: Sequence[MeasuredPair[Measured]]
) -> tuple[list[float], list[float]] | None:
    """A's and B's values, or None unless all are there and have a logarithm."""
    a = [value for pair in pairs if (value := metric.value(pair.a))]
    b = [value for pair in pairs if (value := metric.value(pair.b))]
    complete = len(a) == len(b) == len(pairs) > 1
    return (a, b) if complete and min(*a, *b) > 0 else None


def _comparison(
    metric: Metric[Measured],
    pairs: list[Pair],
    d: Array,
    p_raw_and_holm: tuple[float, float | None],
    rule: Rule,
    floor: float | None,
) -> MetricComparison:
    p_raw, p_holm = p_raw_and_holm
    p = p_raw if p_holm is None else p_holm
    found = estimate(d)
    verdict, reason = decide(
        d,
        better=metric.better,
        p=p,
        alpha=rule.alpha,
        margin=rule.margin,
        floor=floor,
        num_tests=rule.num_tests if metric.primary else 1,
    )
    return MetricComparison(
        metric=metric.name,
        unit=metric.unit,
        better=metric.better,
        primary=metric.primary,
        pairs=pairs,
        a_median=float(np.median([pair.a for pair in pairs])),
        b_median=float(np.median([pair.b for pair in pairs])),
        ratio_mean=math.exp(found.mean),
        ratio_median=math.exp(found.median),
        ci_low=math.exp(found.low),
        ci_high=math.exp(found.high),
        p_sign_flip=p_raw,
        p_holm=p_holm,
        noise_floor=floor,
        verdict=verdict,
        message=sentence(metric, found, p, rule.other) + (f", but {reason}" if reason else ""),
    )


def sentence(metric: Metric[Measured], found: Estimate, p: float, other: str = "B") -> str:
    """'A gives 1.034 times B's output tokens/s (95 % 1.021 to 1.047, 8 pairs, p 0.008)'."""
    verb = "gives" if metric.better == "higher" else "takes"
    ratio, low, high = (math.exp(log) for log in (found.mean, found.low, found.high))
    return (
        f"A {verb} {ratio:.3f} times {other}'s {metric.phrase} "
        f"(95 % {low:.3f} to {high:.3f}, {found.num_pairs} pairs, {p_text(p)})"
    )


def p_text(p: float) -> str:
    """A p value as it is written: 'p 0.008'."""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.1 else f"p {p:.2f}"
