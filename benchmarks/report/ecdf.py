"""Whole distributions: the ECDF of a latency with A and B overlaid, and their ratio by quantile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from benchmarks.metrics.distributions import FLOORS, QUANTILES
from benchmarks.metrics.requests import itl_s, max_stall_s, ttft_s, ttft_sched_s
from benchmarks.records import RequestRecord
from benchmarks.report import svg, words
from benchmarks.report.axes import Panel, plot_box
from benchmarks.report.data import RunData
from benchmarks.report.figures import Figure, LeftOut, LegendItem, colour, shape
from benchmarks.report.scales import Linear, log

Values = NDArray[np.float64]
Many = Callable[[RequestRecord], Sequence[float]]

MAX_CORNERS = 300
SHARES = Linear(0, 1, 0, 1, (0, 0.25, 0.5, 0.75, 1))


@dataclass(frozen=True)
class Arm:
    """The runs that make up one line."""

    name: str
    runs: Sequence[RunData]


@dataclass(frozen=True)
class Sample:
    """The values of one line, sorted, and how many requests they come from."""

    name: str
    values: Values
    num_requests: int


def first_tokens(record: RequestRecord) -> Sequence[float]:
    """The one time to first token; from the schedule where there is one."""
    value = ttft_s(record) if record.sched_s is None else ttft_sched_s(record)
    return [] if value is None else [value]


def longest_pause(record: RequestRecord) -> Sequence[float]:
    """The longest time between two events: what a reader sees as stuttering."""
    value = max_stall_s(record)
    return [] if value is None else [value]


def ttft_ecdf(arms: Sequence[Arm]) -> Figure | LeftOut:
    """Share of requests whose first token came within a time."""
    title = "Share of requests by time to first token"
    x_name = "Time to first token, logarithmic"
    return _ecdf("ttft-ecdf", title, x_name, "requests", arms, first_tokens)


def stall_ecdf(arms: Sequence[Arm]) -> Figure | LeftOut:
    """Share of requests whose longest pause between two events was within a time."""
    title = "Share of requests by their longest pause"
    return _ecdf("stall-ecdf", title, "Longest pause, logarithmic", "requests", arms, longest_pause)


def itl_ecdf(arms: Sequence[Arm]) -> Figure | LeftOut:
    """Share of tokens that came within a time after the one before."""
    title = "Share of tokens by inter-token latency"
    return _ecdf("itl-ecdf", title, "Inter-token latency, logarithmic", "tokens", arms, itl_s)


def sample(arm: Arm, values_of: Many) -> Sample:
    """All values of an arm's completed measured requests."""
    lists = [
        values
        for run in arm.runs
        for record in run.measured
        if record.error is None and len(values := values_of(record))
    ]
    flat = np.sort(np.concatenate([np.asarray(v) for v in lists])) if lists else np.array([])
    return Sample(arm.name, flat, len(lists))


def _ecdf(
    plot: str, title: str, x_name: str, what: str, arms: Sequence[Arm], values_of: Many
) -> Figure | LeftOut:
    samples = [sample(arm, values_of) for arm in arms]
    samples = [one for one in samples if len(one.values) > 1 and one.values[-1] > 0]
    if not samples:
        return LeftOut(plot, title, f"no run has requests.jsonl with times of {what}")
    panel = _panel(samples, x_name, f"Share of {what}")
    body, legend = panel.axes(), []
    for index, one in enumerate(samples):
        drawn = [svg.polyline(_corners(panel, one.values), _style(index))]
        drawn += _percentiles(panel, one, index)
        body.append(svg.group(drawn, class_=colour(index), data_series=one.name))
        key = "line" if index % 2 == 0 else "dashed"
        legend.append(LegendItem(one.name, colour(index), key, shape(index), one.name))  # type: ignore[arg-type]
    zeros = max(float(np.mean(one.values <= 0)) for one in samples)
    note = "Further left is faster. Marks: median, p95 and p99, where there are enough requests."
    if zeros > 0.005:
        note += f" Up to {words.percent(zeros, 0)} came together with the token before."
    said = "; ".join(f"{one.name}: {_said(one)}" for one in samples)
    return Figure(plot, title, note, said, body, legend if len(legend) > 1 else [])


def _panel(samples: Sequence[Sample], x_name: str, y_name: str) -> Panel:
    box = plot_box()
    # The smallest thousandth would stretch the axis over decades in which nothing else is.
    lows = [np.quantile(one.values[one.values > 0], 0.002) for one in samples]
    x = log([*map(float, lows), *(float(one.values[-1]) for one in samples)], box.left, box.right)
    y = Linear(0, 1, box.bottom, box.top, SHARES.ticks)
    return Panel(box, x, y, x_name, y_name, words.seconds_tick, lambda part: f"{part * 100:g} %")


def _corners(panel: Panel, values: Values) -> list[svg.Point]:
    """The ECDF's corners, thinned to what a screen can show."""
    shares = np.arange(1, len(values) + 1) / len(values)
    if len(values) > MAX_CORNERS:
        keep = np.unique(np.linspace(0, len(values) - 1, MAX_CORNERS).astype(int))
        values, shares = values[keep], shares[keep]
    points = [panel.at(float(v), float(s)) for v, s in zip(values, shares, strict=True)]
    return svg.steps([(points[0][0], panel.box.bottom), *points])


def _style(index: int) -> str:
    return "line" if index % 2 == 0 else "line dashed"


def _percentiles(panel: Panel, one: Sample, index: int) -> list[Markup]:
    drawn = []
    for name in ("p50", "p95", "p99"):
        if one.num_requests < FLOORS[name]:
            continue
        value = float(np.quantile(one.values, QUANTILES[name]))
        x, y = panel.at(value, QUANTILES[name])
        tip = f"{one.name}, {words.PERCENTILES[name]}: {words.seconds(value)}"
        drawn.append(svg.marker(x, y, shape(index), "dot", tip=tip))
    return drawn


def _said(one: Sample) -> str:
    shown = [
        f"{words.PERCENTILES[name]} {words.seconds(float(np.quantile(one.values, quantile)))}"
        for name, quantile in QUANTILES.items()
        if name in words.PERCENTILES and one.num_requests >= FLOORS[name]
    ]
    return ", ".join([f"{len(one.values)} values", *shown])
