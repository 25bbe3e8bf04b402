"""The forest plot: A over B for each metric, with interval, noise floor, margin and verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from benchmarks.records import Comparison, MetricComparison
from benchmarks.report import svg, words
from benchmarks.report.axes import WIDE, Box, Panel, x_tick_labels
from benchmarks.report.figures import Figure, LeftOut, LegendItem
from benchmarks.report.scales import Linear, Log, log_ticks

TITLE = "A over B, metric by metric"
NEEDS_COMPARE = "it needs a compare directory"
ROW, TOP = 46.0, 40.0
LEFT, RIGHT = 300.0, 880.0
VERDICT_X = 1130.0
# A claim is not to be told from its colour alone.
SIGNS = {"faster": "▲", "slower": "▼", "equivalent": "=", "inconclusive": "?"}
HEADS = ((0.0, "Metric", "start"), (RIGHT + 30, "A / B, 95 % interval", "start"))


def forest(comparison: Comparison | None) -> Figure | LeftOut:
    """One row a metric, the declared primary ones first."""
    rows = _ordered(comparison.metrics) if comparison else []
    if comparison is None or not rows:
        return LeftOut("forest", TITLE, "no metric was compared" if comparison else NEEDS_COMPARE)
    bottom = TOP + ROW * len(rows)
    box = Box(LEFT, TOP, RIGHT, bottom)
    panel = _panel(box, rows, comparison.equivalence)
    body = _frame(panel, comparison.equivalence)
    for index, row in enumerate(rows):
        middle = TOP + ROW * (index + 0.5)
        body += _row(panel, row, middle, index == len(rows) - 1)
    said = "; ".join(f"{words.metric_name(row.metric)}: {row.message}" for row in rows)
    note = (
        "Left of 1 A has less, right of 1 more; what is better is said under each name. "
        "Bold: primary metrics, which decide."
    )
    return Figure(
        "forest",
        TITLE,
        note,
        said,
        body,
        _legend(rows, comparison.equivalence),
        width=WIDE,
        height=bottom + 52,
    )


def _ordered(metrics: Sequence[MetricComparison]) -> list[MetricComparison]:
    return sorted(metrics, key=lambda metric: not metric.primary)


def _panel(box: Box, rows: Sequence[MetricComparison], margin: float) -> Panel:
    """As wide as the primary metrics need: a wild descriptive one may leave it at the side."""
    wanted = [row for row in rows if row.primary] or rows
    ends = [v for row in wanted for v in (row.ci_low, row.ci_high) if v > 0]
    floors = [1 + (row.noise_floor or 0.0) for row in wanted]
    reach = max(max(abs(math.log(v)) for v in ends), math.log(1 + margin), math.log(max(floors)))
    # The same distance to both sides, so that 1 stands in the middle.
    low, high = math.exp(-reach * 1.3), math.exp(reach * 1.3)
    x = Log(low, high, box.left, box.right, log_ticks(low, high))
    return Panel(box, x, Linear(0, 1, box.bottom, box.top, ()), "A / B, logarithmic", "")


def _frame(panel: Panel, margin: float) -> list[Markup]:
    box = panel.box
    drawn = [svg.line(panel.x(v), box.top, panel.x(v), box.bottom, "grid") for v in panel.x.ticks]
    left, right = panel.x(1 / (1 + margin)), panel.x(1 + margin)
    drawn += [svg.line(x, box.top, x, box.bottom, "margin") for x in (left, right)]
    drawn.append(svg.line(panel.x(1.0), box.top - 6, panel.x(1.0), box.bottom, "reference"))
    drawn.append(svg.line(box.left, box.bottom, box.right, box.bottom, "axis"))
    drawn += x_tick_labels(panel.x, words.tick, box.bottom + 18)
    middle = (box.left + box.right) / 2
    drawn.append(svg.text(middle, box.bottom + 38, panel.x_name, "axis-name", "middle"))
    heads = [*HEADS, (VERDICT_X, "Verdict on A", "start")]
    drawn += [svg.text(x, 20, head, "axis-name", anchor) for x, head, anchor in heads]
    return drawn


def _row(panel: Panel, row: MetricComparison, y: float, is_last: bool) -> list[Markup]:
    drawn = [] if is_last else [svg.line(0, y + ROW / 2, WIDE, y + ROW / 2, "row")]
    if row.noise_floor:
        left, right = panel.x(1 / (1 + row.noise_floor)), panel.x(1 + row.noise_floor)
        drawn.append(svg.rectangle(left, y - ROW / 2 + 1, right - left, ROW - 2, "noise"))
    name = svg.shorten(words.metric_name(row.metric), LEFT - 24, 13)
    drawn.append(svg.text(0, y - 2, name, "strong" if row.primary else "label"))
    drawn.append(svg.text(0, y + 14, f"{row.better} is better", "quiet"))
    interval = _interval(panel, row, y)
    drawn.append(svg.group(interval, class_=f"v-{row.verdict}"))
    numbers = f"{words.ratio(row.ratio_mean)}  ({words.ratio(row.ci_low)} to "
    drawn.append(svg.text(RIGHT + 30, y + 4, numbers + f"{words.ratio(row.ci_high)})", "label"))
    verdict = f"{SIGNS[row.verdict]} {row.verdict}"
    drawn.append(svg.text(VERDICT_X, y + 4, verdict, f"verdict v-{row.verdict}"))
    return drawn


def _interval(panel: Panel, row: MetricComparison, y: float) -> list[Markup]:
    low, middle, high = (panel.x(v) for v in (row.ci_low, row.ratio_mean, row.ci_high))
    drawn = [svg.line(low, y, high, y, "bar thick")]
    for end, value, points_to in ((low, row.ci_low, -8.0), (high, row.ci_high, 8.0)):
        if panel.x.low <= value <= panel.x.high:
            drawn.append(svg.line(end, y - 6, end, y + 6, "bar"))
        else:  # an arrow: it goes on outside
            drawn.append(svg.area([(end, y - 6), (end + points_to, y), (end, y + 6)], "dot"))
    if panel.x.low <= row.ratio_mean <= panel.x.high:
        drawn.append(svg.marker(middle, y, "diamond", "dot", 5.5, row.message))
    return drawn


def _legend(rows: Sequence[MetricComparison], margin: float) -> list[LegendItem]:
    legend = [LegendItem(f"equivalence margin, {words.percent(margin)}", "k-margin", "dashed")]
    if any(row.noise_floor for row in rows):
        legend.append(LegendItem("noise floor: what A against A gives", "k-noise", "box"))
    return legend
