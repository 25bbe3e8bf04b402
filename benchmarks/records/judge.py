"""judge.json: our figures over those of other people's tools."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from benchmarks.records.conditions import Load, Model, Target, Validity, WorkloadInfo


class JudgePair(Model):
    """The same requests through both, one after the other."""

    order: Literal["ours first", "theirs first"]
    ours: float
    theirs: float


class JudgeRow(Model):
    """
    One metric by one tool's definition; `ours` and `theirs` are geometric means over the pairs.

    agrees: the ratio is within the tolerance, and is known to within it: the interval reaches no
    further above. off: no ratio in the interval is within. unclear: all else, so pairs that differ
    more than the tolerance prove nothing. The interval is the paired t's, 95 %, on log ratios. One
    pair has none: it is off by itself, or unclear.
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
    status: Literal["agrees", "unclear", "off", "not judged"]


class Judgement(Model):
    """judge.json; what our own runs were, and their validity, stands for the tools' too."""

    schema_: Annotated[Literal["gemma-bench-judge/2"], Field(alias="schema")] = (
        "gemma-bench-judge/2"
    )
    target: Target
    workload: WorkloadInfo
    load: Load
    started_at: str
    ended_at: str
    argv: list[str]
    seed: int
    host: dict[str, Any]
    tools: dict[str, str]  # name -> version
    tolerance: float
    rows: list[JudgeRow]
    validity: Validity  # of our runs
    verdict: Literal["agrees", "unclear", "off", "invalid"]
    message: str

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
