"""The validity of a comparison: the checks of all its blocks by arm, and those of the pairing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from benchmarks.compare.verdict import MeasuredPair
from benchmarks.metrics.validity import worst_of
from benchmarks.metrics.verdicts import OF_METRIC
from benchmarks.records import Check, MetricComparison, Run, Validity

# What the machine did to a block meanwhile. Such a pair is measured again: the rule is fixed
# beforehand and does not look at the outcome; a pair that stays disturbed makes all INVALID.
DISTURBANCES = frozenset({"foreign_cpu", "cpu_steal", "event_loop_lag"})

RunPair = MeasuredPair[Run]


def red_checks(run: Run) -> set[str]:
    """The names of a run's red checks."""
    return {check.name for check in run.validity.checks if check.status == "red"}


def is_disturbed(pair: RunPair, disturbances: frozenset[str] = DISTURBANCES) -> bool:
    """Whether something else ran in one of the two blocks."""
    return bool((red_checks(pair.a) | red_checks(pair.b)) & disturbances)


def merge(
    a_a: Sequence[RunPair],
    a_b: Sequence[RunPair],
    repeated: Sequence[RunPair] = (),
    missing: Sequence[str] = (),
    left_out: Mapping[str, str] | None = None,
) -> Validity:
    """
    INVALID as soon as a block that counts is, or two of a pair did not do the same work.

    Args:
        missing: Metrics that only some blocks have.
        left_out: Metrics that are not compared for a reason of their own, and the reason.
    """
    a = [(pair.a_directory, pair.a.validity) for pair in (*a_a, *a_b)]
    a += [(pair.b_directory, pair.b.validity) for pair in a_a]
    b = [(pair.b_directory, pair.b.validity) for pair in a_b]
    checks = [
        same_work((*a_a, *a_b)),
        *prompts_by_protocol(a_b),
        *worst_of(a, arm=" (A)"),
        *worst_of(b, arm=" (B)"),
        _floor_check(len(a_a)),
        _repeats_check(repeated),
        *(_metric_check(metric, "some block has no value for it, or 0") for metric in missing),
        *(_metric_check(metric, why) for metric, why in (left_out or {}).items()),
    ]
    red = any(check.status == "red" for check in checks)
    return Validity(verdict="INVALID" if red else "VALID", checks=checks)


def same_work(pairs: Iterable[RunPair]) -> Check:
    """Whether both of each pair sent the same workload, by its SHA-256."""
    differing = [
        f"{pair.a_directory} and {pair.b_directory}"
        for pair in pairs
        if pair.a.workload.sha256 != pair.b.workload.sha256
    ]
    return Check(
        name="same_work",
        status="red" if differing else "ok",
        value=len(differing),
        limit=0,
        unit="pairs",
        message=(
            f"{differing[0]} sent different workloads; give both of a pair the same seed"
            if differing
            else "both of each pair sent the same workload"
        ),
    )


def prompts_by_protocol(pairs: Sequence[RunPair]) -> list[Check]:
    """
    How long the same prompts become in two protocols, by the servers' counts; never red.

    A chat template, or the digits of a protocol without cache salt, are some tokens of prefill.
    """
    protocols = {run.target.protocol for pair in pairs for run in (pair.a, pair.b)}
    if len(protocols) < 2:
        return []
    a, b = (_mean_prompt_tokens(runs) for runs in zip(*((p.a, p.b) for p in pairs), strict=True))
    named = " and ".join(sorted(protocols))
    return [
        Check(
            name="prompts_by_protocol",
            status="ok" if a and b else "not_measured",
            value=a / b if a and b else None,
            unit="A / B",
            message=f"the same prompts are {a:.1f} tokens in A and {b:.1f} in B, by {named}",
        )
    ]


def _mean_prompt_tokens(runs: Sequence[Run]) -> float:
    windows = [run.metrics.full_run for run in runs]
    num_ok = sum(window.num_ok for window in windows)
    return sum(window.prompt_tokens for window in windows) / num_ok if num_ok else 0.0


def _floor_check(num_pairs: int) -> Check:
    if num_pairs:
        return Check(
            name="noise_floor",
            status="ok",
            value=num_pairs,
            unit="pairs",
            message=f"A was measured against itself in {num_pairs} pairs",
        )
    return Check(
        name="noise_floor",
        status="not_measured",
        message="A was not measured against itself: no noise floor holds small differences back",
    )


def _repeats_check(repeated: Sequence[RunPair]) -> Check:
    names = ", ".join(f"{pair.a_directory} and {pair.b_directory}" for pair in repeated)
    return Check(
        name="repeated_pairs",
        status="ok",
        value=len(repeated),
        unit="pairs",
        message=(
            f"measured again as something else ran on the machine; kept, not counted: {names}"
            if repeated
            else "no pair had to be measured again"
        ),
    )


def _metric_check(metric: str, why: str) -> Check:
    return Check(
        name=f"{OF_METRIC}{metric}",
        status="not_measured",
        message=f"{metric} is not compared: {why}",
    )


def starts_check(metrics: Sequence[MetricComparison], starts: int) -> Check:
    """
    Whether the luck of one start can be told from the server; never red.

    A start decides for all of its pairs where memory lies and what was compiled. The interval is
    over pairs, so that only a look at each start by itself shows it.
    """
    if starts < 2:
        return Check(
            name="starts",
            status="not_measured",
            message="each server was started once: the luck of a start (memory layout, compiled "
            "kernels) is in every pair, and not in the interval; --starts 3 starts both anew",
        )
    said = [f"{found.metric} {_by_start(found)}" for found in metrics if found.primary]
    return Check(
        name="starts",
        status="ok",
        value=starts,
        unit="starts",
        message=f"both servers were started {starts} times; A / B by start: {', '.join(said)}",
    )


def _by_start(found: MetricComparison) -> str:
    """The geometric mean of the ratios of each start's pairs."""
    logs: dict[int, list[float]] = {}
    for pair in found.pairs:
        logs.setdefault(pair.start, []).append(pair.log_ratio)
    return " ".join(f"{math.exp(fmean(of_start)):.3f}" for _, of_start in sorted(logs.items()))
