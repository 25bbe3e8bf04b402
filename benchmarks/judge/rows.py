"""For each tool and metric our figure over theirs, with its interval and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from rich.table import Table
from rich.text import Text
from scipy import stats

from benchmarks.records import Judgement, JudgePair, JudgeRow, Validity

TOLERANCE = 0.05
CONFIDENCE = 0.95
NOT_JUDGED = ("mean_concurrency",)
UNITS = {"ms": "ms", "tps": "tokens/s", "tokens": "tokens"}

Status = Literal["agrees", "unclear", "off", "not judged"]
Verdict = Literal["agrees", "unclear", "off", "invalid"]
EXIT_CODES = {"agrees": 0, "unclear": 0, "off": 1, "invalid": 3}


def judge_row(
    tool: str,
    metric: str,
    definition: str,
    pairs: Sequence[JudgePair],
    tolerance: float = TOLERANCE,
) -> JudgeRow:
    """Compare one metric over all pairs; every value is above 0."""
    logs = [math.log(pair.ours / pair.theirs) for pair in pairs]
    interval = _interval(logs)
    ratio = math.exp(statistics.fmean(logs))
    return JudgeRow(
        tool=tool,
        metric=metric,
        unit=UNITS.get(metric.rpartition("_")[2], "requests"),
        definition=definition,
        pairs=list(pairs),
        ours=statistics.geometric_mean(pair.ours for pair in pairs),
        theirs=statistics.geometric_mean(pair.theirs for pair in pairs),
        ratio=ratio,
        ci_low=interval[0] if interval else None,
        ci_high=interval[1] if interval else None,
        status="not judged" if metric in NOT_JUDGED else _status(ratio, interval, tolerance),
    )


def _interval(logs: Sequence[float]) -> tuple[float, float] | None:
    """exp(mean -+ t s / sqrt(R)), s the standard deviation of R log ratios."""
    if len(logs) < 2:
        return None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1))
    half = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    return math.exp(mean - half), math.exp(mean + half)


def _status(ratio: float, interval: tuple[float, float] | None, tolerance: float) -> Status:
    if interval is None:
        # How far one pair is from the next is not known, so that it can't show that they agree.
        return "off" if abs(ratio - 1) > tolerance else "unclear"
    low, high = interval
    if abs(ratio - 1) <= tolerance and high / ratio <= 1 + tolerance:
        return "agrees"
    return "off" if low > 1 + tolerance or high < 1 - tolerance else "unclear"


def verdict(rows: Sequence[JudgeRow], tolerance: float, validity: Validity) -> tuple[Verdict, str]:
    """The worst of the rows, in one sentence; none where our own runs are no measurement."""
    if red := [check for check in validity.checks if check.status == "red"]:
        others = f" ({len(red) - 1} more)" if len(red) > 1 else ""
        return "invalid", f"invalid: {red[0].name}: {red[0].message}{others}"
    judged = [row for row in rows if row.status != "not judged"]
    if off := [row for row in judged if row.status == "off"]:
        worst = max(off, key=lambda row: abs(math.log(row.ratio)))
        beyond, advice = " beyond their interval", ""
        if worst.ci_low is None:
            beyond, advice = "", ", or one pair's noise: --repeats 3 gives it an interval"
        return "off", (
            f"{len(off)} of {len(judged)} figures are off by more than {tolerance:.0%}{beyond}, "
            f"most {_named(worst)}: a failure to explain{advice}"
        )
    if unclear := [row for row in judged if row.status == "unclear"]:
        widest = max(unclear, key=lambda row: row.ci_high / row.ratio if row.ci_high else 0.0)
        return "unclear", (
            f"{len(unclear)} of {len(judged)} figures are not known to {tolerance:.0%}, least "
            f"{_named(widest)}; repeat more often, send more requests, or quiet the machine"
        )
    return "agrees", f"all {len(judged)} figures agree within {tolerance:.0%}"


def exit_code(judgement: Judgement) -> int:
    """1 where a figure is off beyond its interval, 3 where our runs are INVALID."""
    return EXIT_CODES[judgement.verdict]


def table(judgement: Judgement) -> Table:
    """For the terminal."""
    # A server's words in it are no markup.
    title = Text(judgement.message)
    shown = Table(title=title, title_justify="left", title_style="bold")
    for name in ("tool", "metric", "unit"):
        shown.add_column(name)
    for name in ("ours", "theirs", "ours / theirs", "95 %"):
        shown.add_column(name, justify="right")
    shown.add_column("")
    shown.add_column("meaning")
    for row in judgement.rows:
        ends = "" if row.ci_low is None else f"{row.ci_low:.3f} to {row.ci_high:.3f}"
        figures = (f"{row.ours:.6g}", f"{row.theirs:.6g}", f"{row.ratio:.3f}", ends)
        shown.add_row(row.tool, row.metric, row.unit, *figures, row.status, row.definition)
    return shown


def _named(row: JudgeRow) -> str:
    interval = f", 95 % {row.ci_low:.3f} to {row.ci_high:.3f}" if row.ci_low else ", one pair"
    return f"{row.metric} of {row.tool} (ours {row.ratio - 1:+.1%}{interval})"
