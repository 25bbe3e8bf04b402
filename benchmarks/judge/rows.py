"""judge.json: for each tool and metric our figure over theirs, with its interval and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from rich.table import Table
from scipy import stats

from benchmarks.records import Load, Model

TOLERANCE = 0.05
CONFIDENCE = 0.95
NOT_JUDGED = ("mean_concurrency",)
UNITS = {"ms": "ms", "tps": "tokens/s", "tokens": "tokens"}

Status = Literal["agrees", "unclear", "off", "not judged"]
Order = Literal["ours first", "theirs first"]


class JudgePair(Model):
    """The same requests through both, one after the other."""

    order: Order
    ours: float
    theirs: float


class JudgeRow(Model):
    """
    One metric by one tool's definition; `ours` and `theirs` are geometric means over the pairs.

    agrees: the ratio is within the tolerance. off: it is not, and neither is any ratio in the
    interval. unclear: between the two. The interval is the paired t's, 95 %, on log ratios.
    """

    tool: str
    metric: str
    unit: str
    definition: str
    pairs: list[JudgePair]
    ours: float
    theirs: float
    ratio: float
    ci_low: float | None  # None with one pair
    ci_high: float | None
    status: Status


class Judgement(Model):
    """judge.json."""

    schema_: Annotated[Literal["gemma-bench-judge/1"], Field(alias="schema")] = (
        "gemma-bench-judge/1"
    )
    url: str
    model: str
    workload_sha256: str
    num_requests: int
    load: Load
    started_at: str
    ended_at: str
    tools: dict[str, str]  # name -> version
    tolerance: float
    rows: list[JudgeRow]
    verdict: Literal["agrees", "unclear", "off"]
    message: str

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


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
    if abs(ratio - 1) <= tolerance:
        return "agrees"
    if interval is None or (interval[0] <= 1 + tolerance and interval[1] >= 1 - tolerance):
        return "unclear"
    return "off"


def verdict(
    rows: Sequence[JudgeRow], tolerance: float
) -> tuple[Literal["agrees", "unclear", "off"], str]:
    """The worst of the rows, in one sentence."""
    judged = [row for row in rows if row.status != "not judged"]
    for status in ("off", "unclear"):
        if found := [row for row in judged if row.status == status]:
            worst = max(found, key=lambda row: abs(math.log(row.ratio)))
            what = "a failure to explain" if status == "off" else "more repeats would tell"
            return status, (
                f"{len(found)} of {len(judged)} figures are off by more than {tolerance:.0%}, most "
                f"{worst.metric} of {worst.tool} ({_percent(worst)}): {what}"
            )
    return "agrees", f"all {len(judged)} figures agree within {tolerance:.0%}"


def exit_code(judgement: Judgement) -> int:
    """1 where a figure is off beyond its interval."""
    return int(judgement.verdict == "off")


def table(judgement: Judgement) -> Table:
    """For the terminal."""
    shown = Table(title=judgement.message, title_justify="left", title_style="bold")
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


def _percent(row: JudgeRow) -> str:
    return f"ours {row.ratio - 1:+.1%}"
