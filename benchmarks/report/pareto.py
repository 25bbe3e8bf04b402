"""The Pareto plot: what the machine gives against what one user sees."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.records import SweepPoint
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


def pareto(sweeps: Sequence[SweepData]) -> Figure | LeftOut:
    """Tokens per second per GPU (or core) against tokens per second per user."""
    unit = _unit(sweeps)
    title = f"Tokens per second per {unit} against tokens per second per user"
    curves = []
    for index, sweep in enumerate(sweeps):
        units = _num_units(sweep, unit)
        marks = [
            _pareto_mark(point, units, unit)
            for point in sweep.sweep.points
            if units and point.output_tps is not None and point.tpot_p50_s
        ]
        curves.append(Curve(sweep.sweep.target.label, "line", colour(index), shape(index), marks))
    curves = [curve for curve in curves if curve.marks]
    if not curves:
        reason = f"no point has a rate and a number of {unit}s" if sweeps else NEEDS_SWEEP
        return LeftOut("pareto", title, reason)
    panel = curve_panel(
        [mark.x for curve in curves for mark in curve.marks],
        [mark.y for curve in curves for mark in curve.marks],
        "Tokens per second per user (1 / median time per output token)",
        f"Output tokens per second per {unit}",
    )
    note = "Upper right is better: what the machine gives against what one user sees."
    note += hollow(curves)
    body = draw(panel, curves)
    return Figure("pareto", title, note, said(curves), body, legend(curves))


def _pareto_mark(point: SweepPoint, units: float, unit: str) -> Mark:
    x, y = 1 / (point.tpot_p50_s or 1.0), (point.output_tps or 0.0) / units
    label = point.load.label()
    tip = f"{label}: {words.number(y)} tokens/s per {unit}, {words.number(x)} per user"
    return Mark(x, y, label, tip, valid=point.verdict == "VALID")


def _unit(sweeps: Sequence[SweepData]) -> str:
    return "GPU" if any(_num_gpus(run) for sweep in sweeps for _, run in sweep.runs) else "core"


def _num_units(sweep: SweepData, unit: str) -> float | None:
    if not sweep.runs:
        return None
    run = sweep.runs[0][1]
    return _num_gpus(run) if unit == "GPU" else run.run.host.get("cores")


def _num_gpus(run: RunData) -> float | None:
    """The host's number of GPUs; None where it names none."""
    gpus = run.run.host.get("gpus", run.run.host.get("gpu"))
    if isinstance(gpus, list):
        return len(gpus) or None
    if isinstance(gpus, (int, float)):
        return gpus or None
    return None if gpus in (None, "", "none") else 1
