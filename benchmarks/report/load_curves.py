"""Latency against throughput, one point a load: where more load stops paying."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.metrics.requests import tpot_s, ttft_s
from benchmarks.report import words
from benchmarks.report.curves import (
    NEEDS_SWEEP,
    Curve,
    Mark,
    curve_panel,
    draw,
    hollow,
    legend,
    said,
)
from benchmarks.report.data import RunData, SweepData
from benchmarks.report.figures import Figure, LeftOut, colour, shape

RESAMPLES = 400
# Latencies over more than this ratio would leave the small ones on the floor of a linear axis.
LOG_FROM = 12.0


def ttft_curve(sweeps: Sequence[SweepData]) -> Figure | LeftOut:
    """Time to first token against throughput, one point a load."""
    title = "Tokens per second against time to first token"
    return _latency_curve("ttft-curve", title, "Time to first token", sweeps, "ttft")


def tpot_curve(sweeps: Sequence[SweepData]) -> Figure | LeftOut:
    """Time per output token against throughput, one point a load."""
    title = "Tokens per second against time per output token"
    return _latency_curve("tpot-curve", title, "Time per output token", sweeps, "tpot")


def _latency_curve(
    plot: str, title: str, y_name: str, sweeps: Sequence[SweepData], metric: str
) -> Figure | LeftOut:
    curves = [
        curve
        for index, sweep in enumerate(sweeps)
        for percentile in ("p50", "p95")
        if (curve := _latencies(sweep, index, metric, percentile)).marks
    ]
    if not curves:
        return LeftOut(plot, title, "no point has both" if sweeps else NEEDS_SWEEP)
    values = [v for c in curves for m in c.marks for v in (m.y, m.low, m.high) if v is not None]
    is_log = max(values) / min(v for v in values if v > 0) > LOG_FROM
    panel = curve_panel(
        [mark.x for curve in curves for mark in curve.marks],
        values,
        "Output tokens per second",
        f"{y_name}{', logarithmic' if is_log else ''}",
        is_log=is_log,
    )
    note = "Lower right is better. Labels give the load; bars are 95 % intervals of the median."
    note += hollow(curves)
    body = draw(panel, curves)
    return Figure(plot, title, note, said(curves), body, legend(curves))


def _latencies(sweep: SweepData, index: int, metric: str, percentile: str) -> Curve:
    median = percentile == "p50"
    runs = {point.directory: run for point, run in sweep.runs}
    marks = []
    for point in sweep.sweep.points:
        y, x = getattr(point, f"{metric}_{percentile}_s"), point.output_tps
        if x is None or y is None:
            continue
        label = point.load.label()
        tip = f"{label}: {words.number(x)} tokens/s, {percentile} {words.seconds(y)}"
        run = runs.get(point.directory)
        low, high = _median_interval(run, metric, y) if median and run else (None, None)
        marks.append(Mark(x, y, label, tip, low, high, point.verdict == "VALID"))
    name = f"{sweep.sweep.target.label}, {words.PERCENTILES[percentile]}"
    style = "line" if median else "line dashed"
    return Curve(name, style, colour(index), shape(index), marks, labelled=median)


def _median_interval(run: RunData, metric: str, median: float) -> tuple[float | None, float | None]:
    """The bootstrap interval of the median over requests, where it encloses the point shown."""
    value = tpot_s if metric == "tpot" else ttft_s
    values = np.array([v for r in run.measured if r.error is None and (v := value(r)) is not None])
    if len(values) < 10:
        return None, None
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return (float(low), float(high)) if low <= median <= high else (None, None)
