"""The pair plot: each pair's ratio in the order measured, where drift and outliers show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from benchmarks.records import Comparison, MetricComparison
from benchmarks.report import svg, words
from benchmarks.report.axes import WIDE, Box, Panel
from benchmarks.report.figures import Figure, LeftOut, LegendItem
from benchmarks.report.forest import NEEDS_COMPARE
from benchmarks.report.scales import integers, log

TITLE = "A over B, pair by pair"
COLUMNS, GAP, ROW_HEIGHT = 3, 76.0, 268.0
MAX_PANELS = 6


def pairs(comparison: Comparison | None) -> Figure | LeftOut:
    """A panel a metric: the pairs' ratios, their mean and its interval."""
    if comparison is None:
        return LeftOut("pairs", TITLE, NEEDS_COMPARE)
    metrics = [m for m in comparison.metrics if m.primary and m.pairs] or [
        m for m in comparison.metrics if m.pairs
    ]
    metrics = metrics[:MAX_PANELS]
    if not metrics:
        return LeftOut("pairs", TITLE, "no metric has pairs")
    columns = len(metrics) if len(metrics) <= 4 else COLUMNS
    width = (WIDE - 48 - 12 - GAP * (columns - 1)) / columns
    body: list[Markup] = []
    for index, metric in enumerate(metrics):
        left = 48 + (index % columns) * (width + GAP)
        top = 32 + (index // columns) * ROW_HEIGHT
        body += _panel(metric, Box(left, top, left + width, top + ROW_HEIGHT - 82))
    height = 32 + math.ceil(len(metrics) / columns) * ROW_HEIGHT - 34
    legend = [
        LegendItem("A measured first", "c1", "dot", "circle"),
        LegendItem("B measured first", "c2", "dot", "square"),
        LegendItem("mean with its 95 % interval", "c3", "area"),
    ]
    note = "A slope is drift of the machine; the two shapes apart, an effect of the order."
    said = "; ".join(f"{words.metric_name(m.metric)}: {len(m.pairs)} pairs" for m in metrics)
    return Figure("pairs", TITLE, note, said, body, legend, WIDE, height)


def _panel(metric: MetricComparison, box: Box) -> list[Markup]:
    ratios = [math.exp(pair.log_ratio) for pair in metric.pairs]
    every = [1.0, *ratios, *(v for v in (metric.ci_low, metric.ci_high) if v > 0)]
    y = log(every, box.bottom, box.top, pad=1.01, least=1.02)
    x = integers(1, len(ratios), box.left, box.right)
    name = svg.shorten(words.metric_name(metric.metric), box.right - box.left, 13)
    panel = Panel(box, x, y, "Pair, in order of measuring", name)
    low, high = panel.y(max(metric.ci_low, y.low)), panel.y(metric.ci_high)
    mean = panel.y(metric.ratio_mean)
    interval = [
        svg.rectangle(box.left, high, box.right - box.left, low - high, "area"),
        svg.line(box.left, mean, box.right, mean, "line"),
    ]
    one = svg.line(box.left, panel.y(1.0), box.right, panel.y(1.0), "reference")
    return [*panel.axes(), svg.group(interval, class_="c3"), one, *_points(panel, metric, ratios)]


def _points(panel: Panel, metric: MetricComparison, ratios: Sequence[float]) -> list[Markup]:
    drawn = []
    for number, (pair, ratio) in enumerate(zip(metric.pairs, ratios, strict=True), start=1):
        first = pair.order == "AB"
        tip = (
            f"Pair {number}, {pair.order}: A {words.quantity(pair.a, metric.unit)}, "
            f"B {words.quantity(pair.b, metric.unit)}, A / B {words.ratio(ratio)}"
        )
        x, y = panel.at(number, ratio)
        mark = svg.marker(x, y, "circle" if first else "square", "dot", 4.5, tip)
        drawn.append(svg.group([mark], class_="c1" if first else "c2"))
    return drawn
