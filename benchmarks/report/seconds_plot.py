"""The run second by second: tokens above, open and waiting requests below, its phases shaded."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from benchmarks.records import PhaseSpan, Run, Second
from benchmarks.report import svg, words
from benchmarks.report.axes import WIDE, Box, Panel
from benchmarks.report.figures import Figure, LeftOut, LegendItem
from benchmarks.report.scales import Linear, linear

TITLE = "Tokens and open requests second by second"
HEIGHT = 400.0
TOP, BOTTOM = Box(62, 60, WIDE - 20, 196), Box(62, 240, WIDE - 20, 352)
PHASE_NAMES = {"warm_up": "warm-up", "measured": "measured", "drain": "drain"}
BAND_Y = 20.0


def seconds(run: Run) -> Figure | LeftOut:
    """Output tokens, and open requests with those that wait for a first token, by the second."""
    series = run.timeseries
    if len(series) < 3:
        reason = f"run.json has {len(series)} seconds" if series else "run.json has no timeseries"
        return LeftOut("seconds", TITLE, reason)
    tokens, requests = _panels(series)
    body = _phases(run.phases, tokens) + tokens.axes(x_labels=False) + requests.axes()
    body.append(svg.group(_filled(tokens, series, "output_tokens"), class_="c1"))
    body.append(svg.group(_filled(requests, series, "active"), class_="c3"))
    body.append(svg.group(_filled(requests, series, "queued"), class_="c2"))
    body += _steady(run, tokens)
    body += _tips(series, tokens)
    most = max(second.output_tokens for second in series)
    said = f"{len(series)} seconds, at most {most} tokens in one"
    legend = [
        LegendItem("output tokens", "c1", "area"),
        LegendItem("open requests", "c3", "area"),
        LegendItem("of these, waiting for the first token", "c2", "area"),
    ]
    note = "Each token counts in the second in which it came. Warm-up and drain are shaded."
    return Figure("seconds", TITLE, note, said, body, legend, WIDE, HEIGHT)


def _panels(series: Sequence[Second]) -> tuple[Panel, Panel]:
    length_s = series[-1].t_s + 1
    round_x = linear([0.0, length_s], TOP.left, TOP.right, count=12)
    ticks = [tick for tick in round_x.ticks if tick <= length_s]
    x = Linear(0.0, length_s, TOP.left, TOP.right, ticks)
    tokens = [float(second.output_tokens) for second in series]
    most = linear([0.0, *tokens], TOP.bottom, TOP.top, count=4)
    active = linear([1.0, *(s.active for s in series)], BOTTOM.bottom, BOTTOM.top, count=3)
    x_name = "Seconds since the run began"
    return (
        Panel(TOP, x, most, x_name, "Output tokens per second"),
        Panel(BOTTOM, x, active, x_name, "Requests"),
    )


def _filled(panel: Panel, series: Sequence[Second], name: str) -> list[Markup]:
    points = [panel.at(second.t_s, getattr(second, name)) for second in series]
    points.append((panel.x(series[-1].t_s + 1), points[-1][1]))
    corners = svg.steps(points)
    floor = panel.box.bottom
    closed = [(corners[0][0], floor), *corners, (corners[-1][0], floor)]
    return [svg.area(closed, "area"), svg.polyline(corners, "line thin")]


def _phases(phases: Sequence[PhaseSpan], panel: Panel) -> list[Markup]:
    """Warm-up and drain shaded over both panels; each phase named where its name fits."""
    drawn, free_from = [], panel.box.left - 1.0
    for phase in phases:
        left, right = panel.x(phase.began_s), panel.x(phase.ended_s)
        if phase.name != "measured":
            height = BOTTOM.bottom - BAND_Y + 12
            drawn.append(svg.rectangle(left, BAND_Y - 12, right - left, height, "phase"))
        name = PHASE_NAMES[phase.name]
        width, middle = svg.text_width(name), (left + right) / 2
        start = min(max(middle - width / 2, panel.box.left), panel.box.right - width)
        # Under its own span, and clear of the name before.
        fits = width < right - left + 40 and start > free_from
        if fits:
            drawn.append(svg.text(start, BAND_Y, name, "label"))
            free_from = start + width + 10
    return drawn


def _steady(run: Run, panel: Panel) -> list[Markup]:
    """A bracket over the window under full load."""
    window = run.metrics.steady
    if window is None:
        return []
    left, right, y = panel.x(window.began_s), panel.x(window.ended_s), BAND_Y + 11
    words_ = f"steady window, {words.seconds(window.duration_s)}"
    # The panel's own name stands at its left, a line below.
    start = min(max((left + right) / 2, panel.box.left + 320), panel.box.right - 100)
    ends = [svg.line(x, y - 4, x, y + 4, "bracket") for x in (left, right)]
    name = svg.text(start, y + 16, words_, "label", "middle")
    return [svg.line(left, y, right, y, "bracket"), *ends, name]


def _tips(series: Sequence[Second], panel: Panel) -> list[Markup]:
    """Invisible columns that say the second's figures when pointed at."""
    return [
        svg.rectangle(
            panel.x(second.t_s),
            TOP.top,
            panel.x(second.t_s + 1) - panel.x(second.t_s),
            BOTTOM.bottom - TOP.top,
            "column",
            f"Second {second.t_s}: {second.output_tokens} tokens, "
            f"{words.number(second.active)} open, {words.number(second.queued)} waiting, "
            f"{second.sent} sent",
        )
        for second in series
    ]
