"""sweep.json: cells of one server under several loads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from benchmarks.records.conditions import Load, Model, Slo, Target


class SweepPoint(Model):
    """One cell of a sweep; `directory` is relative to sweep.json."""

    load: Load
    directory: str
    verdict: Literal["VALID", "INVALID"]
    output_tps: float | None
    rps: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tpot_p50_s: float | None
    tpot_p95_s: float | None
    goodput_rps: float | None = None
    attainment: float | None = None


class Sweep(Model):
    """sweep.json."""

    schema_: Annotated[Literal["gemma-bench-sweep/1"], Field(alias="schema")] = (
        "gemma-bench-sweep/1"
    )
    target: Target
    points: list[SweepPoint]
    how: str  # list, knee or goodput
    knee: Load | None = None  # where more load stops giving more tokens
    best_under_slo: Load | None = None
    slo: Slo | None = None
    # Of a search, whose last cells may well be INVALID: the server had more than it can take.
    verdict: Literal["VALID", "INVALID"] | None = None  # None in files from before there was one
    message: str

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
