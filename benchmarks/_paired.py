"""Ratios of two servers that were measured in turns: one ratio a round, with its spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

# Two-sided 95 % quantiles of Student's t, by degrees of freedom from 1.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """
    Geometric mean of ours/theirs over rounds, its range, and its paired 95 % t interval.

    The interval is of the mean log ratio; it needs two rounds or more.
    """
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(logs)
    summary: dict[str, Any] = {
        "ratio": round(math.exp(mean), 4),
        "by_round": [round(math.exp(log), 4) for log in logs],
        "min": round(math.exp(min(logs)), 4),
        "max": round(math.exp(max(logs)), 4),
    }
    if len(logs) > 1:
        quantile = T_95[min(len(logs) - 1, len(T_95)) - 1]
        half = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
        summary["interval_95"] = [round(math.exp(mean + side), 4) for side in (-half, half)]
    return summary


def verdict(summary: dict[str, Any], *, at_least: float = 0.0, at_most: float = math.inf) -> str:
    """PASS or FAIL of the mean ratio; 'not certain' where the interval reaches over the bar."""
    passed = at_least <= summary["ratio"] <= at_most
    low, high = summary.get("interval_95", (0.0, math.inf))
    certain = (low >= at_least and high <= at_most) if passed else True
    return ("PASS" if passed else "FAIL") + ("" if certain else " (interval reaches over the bar)")
