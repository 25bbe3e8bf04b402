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
Verdict = Literal["VALID", "INVALID"]
NONE_VALID = "no cell is VALID, so nothing is said; mend what their red checks name"
# Twice in a row less than this more tokens/s for twice the load: there is no more to have.
KNEE_GAIN = 0.03
KNEE_TIMES = 2
# The search for the highest goodput ends when the bracket is this narrow.
BRACKET = 0.1
MAX_POINTS = 16
# What a server turns red that gets more than it can take: a search has to go there.
OVERLOAD = frozenset({"saturation", "failed_requests", "offered_rate"})


@dataclass
class Swept:
    """The loads that were measured, in ascending order of load, and what they say together."""

    how: How
    runs: list[tuple[Load, Run]] = field(default_factory=list)
    knee: Load | None = None
    best_under_slo: Load | None = None
    message: str = ""

    @property
    def verdict(self) -> Verdict:
        """
        Whether what it says may be believed.

        A list is as valid as all its cells. A search stands on VALID cells alone, and ends where
        the server has too much: it is INVALID if something else disturbed a cell, or if it found no
        VALID one.
        """
        if self.how == "list":
            return "VALID" if all(_is_valid(run) for _, run in self.runs) else "INVALID"
        disturbed = any(_red(run) - OVERLOAD for _, run in self.runs)
        return "INVALID" if disturbed or not _valid(self.runs) else "VALID"


async def sweep_list(measure: Measure, loads: Sequence[Load]) -> Swept:
    """Every load that was asked for, in the order given."""
    runs = [(load, await measure(load)) for load in loads]
    if not (valid := _valid(runs)):
        return Swept("list", runs, message=NONE_VALID)
    best = max(valid, key=lambda point: _tps(point[1]))
    return Swept(
        "list",
        runs,
        best_under_slo=_best(runs),
        message=f"most tokens/s at {best[0].label()}: {_tps(best[1]):.1f}",
    )


async def sweep_to_knee(measure: Measure, load_at: Callable[[float], Load], start: float) -> Swept:
    """
    Double the load until it twice gives less than 3 % more tokens/s; the knee is the last gain.

    An INVALID cell is no gain.
    Source: the auto-sweep of bench tools that stop at saturation (guidellm, evalscope), with the
    stopping rule written down.
    """
    runs: list[tuple[Load, Run]] = []
    knee: tuple[Load, Run] | None = None
    level, flat = start, 0
    while flat < KNEE_TIMES and len(runs) < MAX_POINTS:
        load = load_at(level)
        run = await measure(load)
        runs.append((load, run))
        if _is_valid(run) and (knee is None or _tps(run) >= _tps(knee[1]) * (1 + KNEE_GAIN)):
            knee, flat = (load, run), 0
        else:
            flat += 1
        level *= 2
    if knee is None:
        return Swept("knee", runs, message=NONE_VALID)
    load, run = knee
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

    An INVALID cell keeps nothing: beyond its capacity a server's latencies depend on how long it
    was measured.

    Args:
        attainment: the part of requests that has to be good, 0 to 1.
        whole: loads are whole numbers, as concurrency is.
    """
    measured: dict[float, tuple[Load, Run]] = {}

    async def keeps(level: float) -> bool:
        load = load_at(level)
        run = await measure(load)
        measured[level] = (load, run)
        return _keeps(run, attainment)

    level = start
    while await keeps(level) and len(measured) < MAX_POINTS:
        level *= 2
    good = max((at for at, (_, run) in measured.items() if _keeps(run, attainment)), default=0.0)
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
    bound = _bound(*measured[bad]) if bad > good else "nothing that was tried misses it"
    return Swept(
        "goodput",
        runs,
        best_under_slo=load,
        message=(
            f"highest goodput under the SLO at {load.label()}: {_goodput_rps(run):.2f} good "
            f"requests/s, attainment {_attainment(run):.0%}; {bound}"
        ),
    )


def _bound(load: Load, run: Run) -> str:
    """Why it is not more."""
    if _is_valid(run):
        return f"{load.label()} misses it"
    return f"{load.label()} is INVALID ({', '.join(sorted(_red(run)))})"


def _none_kept(point: tuple[Load, Run], attainment: float) -> str:
    load, run = point
    if not _is_valid(run):
        return f"{_bound(load, run)}, where the search began: {NONE_VALID}"
    return (
        f"the SLO is not kept even at {load.label()}: attainment {_attainment(run):.0%}, "
        f"asked for {attainment:.0%}; loosen the SLO or use a faster server"
    )


def _red(run: Run) -> set[str]:
    return {check.name for check in run.validity.checks if check.status == "red"}


def _is_valid(run: Run) -> bool:
    return run.validity.verdict == "VALID"


def _valid(runs: Sequence[tuple[Load, Run]]) -> list[tuple[Load, Run]]:
    return [point for point in runs if _is_valid(point[1])]


def _keeps(run: Run, attainment: float) -> bool:
    return _is_valid(run) and _attainment(run) >= attainment


def _best(runs: Sequence[tuple[Load, Run]]) -> Load | None:
    """The valid load with the most good requests a second, where there is an SLO."""
    scored = [point for point in _valid(runs) if point[1].metrics.full_run.goodput is not None]
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
