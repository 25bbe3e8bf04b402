"""Curves through the points of sweeps: what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from benchmarks.report import svg, words
from benchmarks.report.axes import Box, Labels, Panel, plot_box
from benchmarks.report.figures import LegendItem
from benchmarks.report.scales import linear, log
from benchmarks.report.svg import Point

NEEDS_SWEEP = "it needs a sweep directory"


@dataclass(frozen=True)
class Mark:
    """A point of a curve: its values, its load, and the interval of y where there is one."""

    x: float
    y: float
    label: str
    tip: str
    low: float | None = None
    high: float | None = None
    valid: bool = True


@dataclass(frozen=True)
class Curve:
    """The points of one sweep, in order of their load."""

    name: str
    style: str  # line or line dashed
    colour: str
    shape: str
    marks: Sequence[Mark]
    labelled: bool = True


def curve_panel(
    xs: Sequence[float], ys: Sequence[float], x_name: str, y_name: str, *, is_log: bool = False
) -> Panel:
    """The panel around all points, its y in seconds where it is a time."""
    box = plot_box()
    x = linear(xs, box.left, box.right)
    # A point at the very right has no room for its label.
    if max(xs) > x.low + 0.93 * (x.high - x.low):
        x = linear([*xs, max(xs) * 1.08], box.left, box.right)
    y = log(ys, box.bottom, box.top, 1.25) if is_log else linear(ys, box.bottom, box.top)
    y_tick = words.seconds_tick if "Time" in y_name else words.tick
    return Panel(box, x, y, x_name, y_name, y_tick=y_tick)


def draw(panel: Panel, curves: Sequence[Curve]) -> list[Markup]:
    """Axes, lines, bars and points, and the labels where there is room."""
    body, labels = panel.axes(), Labels(panel.box)
    lines = [[panel.at(mark.x, mark.y) for mark in curve.marks] for curve in curves]
    for points in lines:
        labels.keep_clear(points)
        labels.keep_clear_of_line(points)
    for mark in (mark for curve in curves for mark in curve.marks):
        if mark.low is not None and mark.high is not None:
            x = panel.x(mark.x)
            labels.keep_clear_of(Box(x - 4, panel.y(mark.high), x + 4, panel.y(mark.low)))
    for curve, points in zip(curves, lines, strict=True):
        drawn = [svg.polyline(points, curve.style)]
        for mark, (x, y) in zip(curve.marks, points, strict=True):
            drawn += _bar(panel, mark, x)
            class_ = "dot" if mark.valid else "dot hollow"
            tip = mark.tip if mark.valid else f"INVALID, {mark.tip}"
            drawn.append(svg.marker(x, y, curve.shape, class_, tip=tip))
        body.append(svg.group(drawn, class_=curve.colour, data_series=curve.name))
    for curve, points in zip(curves, lines, strict=True):
        body += _labels(labels, curve, points)
    return body


def hollow(curves: Sequence[Curve]) -> str:
    """What to say of hollow points, if there are any."""
    invalid = any(not mark.valid for curve in curves for mark in curve.marks)
    return " Hollow points are INVALID." if invalid else ""


def _bar(panel: Panel, mark: Mark, x: float) -> list[Markup]:
    if mark.low is None or mark.high is None:
        return []
    low, high = panel.y(mark.low), panel.y(mark.high)
    return [svg.line(x, low, x, high, "bar")] + [
        svg.line(x - 3, y, x + 3, y, "bar") for y in (low, high)
    ]


def _labels(labels: Labels, curve: Curve, points: Sequence[Point]) -> list[Markup]:
    if not curve.labelled:
        return []
    placed = [
        labels.place(*point, mark.label, "own")
        for mark, point in zip(curve.marks, points, strict=True)
    ]
    found = [label for label in placed if label is not None]
    return [svg.group(found, class_=curve.colour, data_series=curve.name)]


def legend(curves: Sequence[Curve]) -> list[LegendItem]:
    """One entry a curve."""
    return [
        LegendItem(
            curve.name,
            curve.colour,
            "dashed" if "dashed" in curve.style else "line",
            curve.shape,
            curve.name,
        )
        for curve in curves
    ]


def said(curves: Sequence[Curve]) -> str:
    """All points in words."""
    return "; ".join(f"{c.name}: " + ", ".join(m.tip for m in c.marks) for c in curves)
