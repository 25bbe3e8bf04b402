"""compare.json: two servers, pair by pair."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from benchmarks.records.conditions import Load, Model, Target, Validity, WorkloadInfo


class Pair(Model):
    """One paired block: the same work through A and B, in the order drawn."""

    order: Literal["AB", "BA"]
    a: float
    b: float
    log_ratio: float  # ln(a / b)
    a_directory: str | None = None
    b_directory: str | None = None
    start: int = 1  # which start of both servers, from 1


class MetricComparison(Model):
    """One metric of A over B, over all pairs."""

    metric: str
    unit: str
    better: Literal["higher", "lower"]
    primary: bool
    pairs: list[Pair]
    a_median: float
    b_median: float
    ratio_mean: float  # exp(mean log ratio)
    ratio_median: float
    ci_low: float  # 95 %, paired t on the log ratios
    ci_high: float
    p_sign_flip: float
    p_holm: float | None = None  # among the primary metrics
    noise_floor: float | None = (
        None  # half width of A/A's interval, as a ratio above 1: 0.02 is 2 %
    )
    verdict: Literal["faster", "slower", "equivalent", "inconclusive"]
    message: str


class Quality(Model):
    """Whether both say the same, greedily: a speed claim without it is no claim."""

    num_prompts: int
    exact_match: float  # part of the prompts with identical answers
    mean_agreement_tokens: float  # length of the common prefix
    mean_agreement: float  # common prefix over the shorter answer's length
    length_ratio: float  # mean tokens of A over mean tokens of B
    same: bool
    message: str


class Comparison(Model):
    """compare.json."""

    schema_: Annotated[Literal["gemma-bench-compare/1"], Field(alias="schema")] = (
        "gemma-bench-compare/1"
    )
    a: Target
    b: Target
    load: Load
    workload: WorkloadInfo
    started_at: str
    ended_at: str
    argv: list[str]
    seed: int
    host: dict[str, Any]
    equivalence: float  # the margin: 0.03 is 3 %
    looks: list[int]  # after how many pairs it was looked at
    starts: int = 1  # how often both servers were started
    metrics: list[MetricComparison]
    # The same server against itself, first.
    a_a: list[MetricComparison] = Field(default_factory=list)
    quality: Quality | None = None
    validity: Validity
    verdict: Literal["faster", "slower", "equivalent", "inconclusive", "invalid"]
    message: str  # the verdict in one sentence, with its interval

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
