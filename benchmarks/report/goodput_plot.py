"""Goodput and SLO attainment against load, with the load of the highest goodput marked."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from benchmarks.records import Load, Slo, SweepPoint
from benchmarks.report import svg, words
from benchmarks.report.axes import WIDTH, Box, Labels, Panel
from benchmarks.report.curves import NEEDS_SWEEP
from benchmarks.report.data import SweepData
from benchmarks.report.figures import Figure, LeftOut, LegendItem, colour, shape
from benchmarks.report.scales import Linear, Log, linear, log

TITLE = "Goodput and SLO attainment against load"
SPLIT_PX = 196.0
SLO_NAMES = {
    "ttft_ms": "first token",
    "tpot_ms": "time per token",
    "e2e_ms": "end to end",
    "max_stall_ms": "longest pause",
}


def goodput(sweeps: Sequence[SweepData]) -> Figure | LeftOut:
    """Two panels over the load: good requests per second above, attainment below."""
    series = [(sweep, points) for sweep in sweeps if (points := _points(sweep))]
    if not series:
        return LeftOut("goodput", TITLE, "no SLO was given" if sweeps else NEEDS_SWEEP)
    every = [point for _, points in series for point in points]
    top, bottom = _panels(every)
    # The upper panel shares the lower one's tick labels.
    body = [*top.axes(x_labels=False), *bottom.axes()]
    legend, labels = [], Labels(top.box)
    for _, points in series:
        labels.keep_clear_of_line(_corners(top, points, "goodput_rps"))
    for index, (sweep, points) in enumerate(series):
        name = sweep.sweep.target.label
        drawn = [
            *_line(top, points, "goodput_rps", index),
            *_line(bottom, points, "attainment", index),
        ]
        drawn += _best(top, labels, points, sweep.sweep.best_under_slo)
        body.append(svg.group(drawn, class_=colour(index), data_series=name))
        legend.append(LegendItem(name, colour(index), "line", shape(index), name))
    slo = next((sweep.sweep.slo for sweep, _ in series if sweep.sweep.slo), None)
    note = f"SLO: {slo_words(slo)}. " if slo else ""
    note += "The ring marks the highest goodput."
    return Figure(
        "goodput",
        TITLE,
        note,
        _said(every),
        body,
        legend if len(legend) > 1 else [],
    )


def slo_words(slo: Slo) -> str:
    """An SLO as a sentence's part: first token within 200 ms, time per token within 50 ms."""
    limits = [
        f"{name} within {words.tick(limit)} ms"
        for key, name in SLO_NAMES.items()
        if (limit := getattr(slo, key)) is not None
    ]
    return ", ".join(limits)


def load_value(load: Load) -> float | None:
    """A load as a number for an axis."""
    return load.concurrency if load.mode == "closed" else load.rate_rps


def _points(sweep: SweepData) -> list[SweepPoint]:
    points = [
        point
        for point in sweep.sweep.points
        if point.goodput_rps is not None
        and point.attainment is not None
        and load_value(point.load) is not None
    ]
    return sorted(points, key=lambda point: load_value(point.load) or 0.0)


def _panels(points: Sequence[SweepPoint]) -> tuple[Panel, Panel]:
    upper, lower = Box(62, 32, WIDTH - 20, SPLIT_PX - 18), Box(62, SPLIT_PX + 26, WIDTH - 20, 312)
    loads = sorted({load_value(point.load) or 0.0 for point in points})
    x = _load_scale(loads, upper.left + 14, upper.right - 14)
    name = "Requests at a time" if points[0].load.mode == "closed" else "Offered requests a second"
    most = linear([point.goodput_rps or 0.0 for point in points], upper.bottom, upper.top, count=4)
    parts = Linear(0, 1, lower.bottom, lower.top, (0, 0.5, 1))
    return (
        Panel(upper, x, most, name, "Goodput, good requests per second"),
        Panel(lower, x, parts, name, "Requests that meet the SLO", y_tick=_percent_tick),
    )


def _load_scale(loads: Sequence[float], start: float, end: float) -> Linear | Log:
    """The loads themselves are the ticks; doublings are equally far apart."""
    if len(loads) > 1 and loads[0] > 0 and loads[-1] / loads[0] > 4:
        scale = log(loads, start, end, pad=1.0)
        return Log(scale.low, scale.high, start, end, loads)
    low, high = (loads[0], loads[-1]) if len(loads) > 1 else (loads[0] - 1, loads[0] + 1)
    return Linear(low, high, start, end, loads)


def _percent_tick(part: float) -> str:
    return f"{part * 100:g} %"


def _line(panel: Panel, points: Sequence[SweepPoint], metric: str, index: int) -> list[Markup]:
    corners = _corners(panel, points, metric)
    drawn = [svg.polyline(corners, "line")]
    for point, (x, y) in zip(points, corners, strict=True):
        value = getattr(point, metric)
        shown = words.percent(value) if metric == "attainment" else f"{words.number(value)} good/s"
        drawn.append(svg.marker(x, y, shape(index), "dot", tip=f"{point.load.label()}: {shown}"))
    return drawn


def _corners(panel: Panel, points: Sequence[SweepPoint], metric: str) -> list[svg.Point]:
    return [panel.at(load_value(point.load) or 0.0, getattr(point, metric)) for point in points]


def _best(
    panel: Panel, labels: Labels, points: Sequence[SweepPoint], best: Load | None
) -> list[Markup]:
    """A ring around the highest goodput, and its value beside it."""
    found = next((point for point in points if best is not None and point.load == best), None)
    point = found or max(points, key=lambda point: point.goodput_rps or 0.0)
    value = point.goodput_rps or 0.0
    if value <= 0:
        return []
    x, y = panel.at(load_value(point.load) or 0.0, value)
    label = labels.place(x, y, f"{words.number(value)}/s at {point.load.label()}", "own")
    return [svg.marker(x, y, "circle", "ring", 9), *([label] if label else [])]


def _said(points: Sequence[SweepPoint]) -> str:
    return "; ".join(
        f"{point.load.label()}: {words.number(point.goodput_rps or 0)} good requests per second, "
        f"{words.percent(point.attainment or 0)}"
        for point in points
    )
