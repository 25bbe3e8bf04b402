"""The shift plot: how much faster or slower A is at each quantile of a latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from benchmarks.metrics.requests import itl_s
from benchmarks.report import svg, words
from benchmarks.report.axes import Panel, plot_box
from benchmarks.report.data import RunData
from benchmarks.report.ecdf import Arm, Many, Values, first_tokens, sample
from benchmarks.report.figures import Figure, LeftOut, LegendItem, colour, shape
from benchmarks.report.scales import Linear, log

TITLE = "A over B at each quantile"
QUANTILES = np.linspace(0.05, 0.95, 19)
GRID = np.linspace(0.0025, 0.9975, 200)
RESAMPLES = 300
METRICS: Sequence[tuple[str, Many]] = (
    ("Time to first token", first_tokens),
    ("Inter-token latency", itl_s),
)
Shift = tuple[str, Values, Values | None]  # name, ratio by quantile, its interval


def shift(a: Sequence[RunData], b: Sequence[RunData]) -> Figure | LeftOut:
    """The ratio of A's quantiles to B's, with 95 % intervals from drawing pairs again."""
    if not a or not b:
        return LeftOut("shift", TITLE, "it needs a compare directory with the runs of its pairs")
    shifts = [found for name, values_of in METRICS if (found := _shift(name, values_of, a, b))]
    if not shifts:
        return LeftOut("shift", TITLE, "the runs have no times of tokens")
    panel = _panel(shifts)
    y_one = panel.y(1.0)
    body = [*panel.axes(), svg.line(panel.box.left, y_one, panel.box.right, y_one, "reference")]
    for index, one in enumerate(shifts):
        body.append(svg.group(_draw(panel, one, index), class_=colour(index), data_series=one[0]))
    note = "Below 1, A is faster. A line that bends says that the tail shifts other than the middle"
    has_band = any(one[2] is not None for one in shifts)
    note += "; bands are 95 % intervals over pairs." if has_band else "."
    legend = [
        LegendItem(name, colour(index), "line", shape(index), name)
        for index, (name, _, _) in enumerate(shifts)
    ]
    said = "; ".join(f"{name}: {words.ratio(float(r[9]))} at the median" for name, r, _ in shifts)
    return Figure("shift", TITLE, note, said, body, legend)


def _shift(name: str, values_of: Many, a: Sequence[RunData], b: Sequence[RunData]) -> Shift | None:
    pooled_a, pooled_b = sample(Arm("A", a), values_of), sample(Arm("B", b), values_of)
    if len(pooled_a.values) < 20 or len(pooled_b.values) < 20:
        return None
    low_a, low_b = (np.quantile(one.values, QUANTILES) for one in (pooled_a, pooled_b))
    # Where tokens come together their gap is 0, and there is no ratio.
    if low_a[0] <= 0 or low_b[0] <= 0:
        return None
    return name, low_a / low_b, _interval(values_of, a, b)


def _interval(values_of: Many, a: Sequence[RunData], b: Sequence[RunData]) -> Values | None:
    """95 % of the ratios when whole pairs are drawn again: blocks vary more than requests do."""
    if len(a) < 6 or len(a) != len(b):
        return None
    blocks_a, blocks_b = _by_block(values_of, a), _by_block(values_of, b)
    if blocks_a is None or blocks_b is None:
        return None
    random = np.random.default_rng(0)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(a), len(a))
        quantiles = [np.quantile(side[drawn].ravel(), QUANTILES) for side in (blocks_a, blocks_b)]
        # As above: where tokens come together in some blocks, there is a draw without a ratio.
        if min(side[0] for side in quantiles) <= 0:
            return None
        ratios.append(quantiles[0] / quantiles[1])
    low, high = np.quantile(np.array(ratios), [0.025, 0.975], axis=0)
    return np.array([low, high])


def _by_block(values_of: Many, runs: Sequence[RunData]) -> Values | None:
    """Each block as 200 of its quantiles: blocks of the same work weigh the same."""
    samples = [sample(Arm("", [run]), values_of).values for run in runs]
    if any(len(values) < 2 for values in samples):
        return None
    return np.array([np.quantile(values, GRID) for values in samples])


def _panel(shifts: Sequence[Shift]) -> Panel:
    box = plot_box()
    every = [1.0, *(float(r) for _, ratios, _ in shifts for r in ratios)]
    every += [float(r) for *_, band in shifts if band is not None for r in band.ravel() if r > 0]
    x = Linear(0, 1, box.left, box.right, (0, 0.25, 0.5, 0.75, 1))
    y = log(every, box.bottom, box.top, pad=1.02, least=1.02)
    return Panel(
        box, x, y, "Quantile", "A / B, logarithmic", lambda q: f"p{q * 100:g}" if q else "p0"
    )


def _draw(panel: Panel, one: Shift, index: int) -> list[Markup]:
    name, ratios, band = one
    xs = [float(q) for q in QUANTILES]
    drawn = []
    if band is not None:
        upper = [panel.at(x, float(y)) for x, y in zip(xs, band[1], strict=True)]
        lower = [panel.at(x, float(y)) for x, y in zip(xs, band[0], strict=True)]
        drawn.append(svg.area([*upper, *reversed(lower)], "area"))
    points = [panel.at(x, float(y)) for x, y in zip(xs, ratios, strict=True)]
    drawn.append(svg.polyline(points, "line"))
    for (x, y), quantile, ratio in zip(points, xs, ratios, strict=True):
        tip = f"{name}, p{quantile * 100:.0f}: A / B = {words.ratio(float(ratio))}"
        drawn.append(svg.marker(x, y, shape(index), "dot", 3, tip))
    return drawn
