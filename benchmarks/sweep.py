"""
Which loads to measure: a list, up to the knee, or towards the highest goodput under the SLO.

Knows nothing of how a load is measured; it asks for runs and reads their metrics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.records import Load, Run

Measure = Callable[[Load], Awaitable[Run]]
How = Literal["list", "knee", "goodput"]
# Twice in a row less than this more tokens/s for twice the load: there is no more to have.
KNEE_GAIN = 0.03
KNEE_TIMES = 2
# The search for the highest goodput ends when the bracket is this narrow.
BRACKET = 0.1
MAX_POINTS = 16


@dataclass
class Swept:
    """The loads that were measured, in ascending order of load, and what they say together."""

    how: How
    runs: list[tuple[Load, Run]] = field(default_factory=list)
    knee: Load | None = None
    best_under_slo: Load | None = None
    message: str = ""


async def sweep_list(measure: Measure, loads: Sequence[Load]) -> Swept:
    """Every load that was asked for, in the order given."""
    runs = [(load, await measure(load)) for load in loads]
    best = max(runs, key=lambda point: _tps(point[1]))
    return Swept(
        "list",
        runs,
        best_under_slo=_best(runs),
        message=f"most tokens/s at {best[0].label()}: {_tps(best[1]):.1f}",
    )


async def sweep_to_knee(measure: Measure, load_at: Callable[[float], Load], start: float) -> Swept:
    """
    Double the load until it twice gives less than 3 % more tokens/s; the knee is the last gain.

    Source: the auto-sweep of bench tools that stop at saturation (guidellm, evalscope), with the
    stopping rule written down.
    """
    runs: list[tuple[Load, Run]] = []
    knee, level, flat = 0, start, 0
    while flat < KNEE_TIMES and len(runs) < MAX_POINTS:
        load = load_at(level)
        runs.append((load, await measure(load)))
        if len(runs) > 1 and _tps(runs[-1][1]) < _tps(runs[knee][1]) * (1 + KNEE_GAIN):
            flat += 1
        else:
            knee, flat = len(runs) - 1, 0
        level *= 2
    load, run = runs[knee]
    found = "" if flat == KNEE_TIMES else f" (not reached within {MAX_POINTS} points)"
    return Swept(
        "knee",
        runs,
        knee=load,
        best_under_slo=_best(runs),
        message=f"knee at {load.label()}: {_tps(run):.1f} tokens/s; more load adds nothing{found}",
    )


async def sweep_for_goodput(
    measure: Measure,
    load_at: Callable[[float], Load],
    start: float,
    *,
    attainment: float,
    whole: bool,
) -> Swept:
    """
    The highest load at which the SLO's attainment is kept: doubling, then bisection.

    Args:
        attainment: the part of requests that has to be good, 0 to 1.
        whole: loads are whole numbers, as concurrency is.
    """
    measured: dict[float, tuple[Load, Run]] = {}

    async def keeps(level: float) -> bool:
        load = load_at(level)
        run = await measure(load)
        measured[level] = (load, run)
        return _attainment(run) >= attainment

    level = start
    while await keeps(level) and len(measured) < MAX_POINTS:
        level *= 2
    good = max(
        (at for at, (_, run) in measured.items() if _attainment(run) >= attainment), default=0.0
    )
    bad = min((at for at in measured if at > good), default=good)
    while good and bad - good > max(1.0 if whole else 0.0, BRACKET * good):
        middle = (good + bad) / 2
        middle = float(round(middle)) if whole else middle
        if middle in measured or len(measured) >= MAX_POINTS:
            break
        good, bad = (middle, bad) if await keeps(middle) else (good, middle)
    runs = [measured[at] for at in sorted(measured)]
    if not good:
        return Swept("goodput", runs, message=_none_kept(measured[start], attainment))
    load, run = measured[good]
    bound = measured[bad][0].label() if bad > good else "nothing that was tried"
    return Swept(
        "goodput",
        runs,
        best_under_slo=load,
        message=(
            f"highest goodput under the SLO at {load.label()}: {_goodput_rps(run):.2f} good "
            f"requests/s, attainment {_attainment(run):.0%}; {bound} misses it"
        ),
    )


def _none_kept(point: tuple[Load, Run], attainment: float) -> str:
    load, run = point
    return (
        f"the SLO is not kept even at {load.label()}: attainment {_attainment(run):.0%}, "
        f"asked for {attainment:.0%}; loosen the SLO or use a faster server"
    )


def _best(runs: Sequence[tuple[Load, Run]]) -> Load | None:
    """The load with the most good requests a second, where there is an SLO."""
    scored = [(load, run) for load, run in runs if run.metrics.full_run.goodput is not None]
    return max(scored, key=lambda point: _goodput_rps(point[1]))[0] if scored else None


def _tps(run: Run) -> float:
    window = run.metrics.steady or run.metrics.full_run
    return window.output_tps or 0.0


def _attainment(run: Run) -> float:
    goodput = run.metrics.full_run.goodput
    return goodput.attainment if goodput else 0.0


def _goodput_rps(run: Run) -> float:
    goodput = run.metrics.full_run.goodput
    return goodput.goodput_rps if goodput else 0.0
