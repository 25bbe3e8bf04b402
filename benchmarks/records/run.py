"""run.json: one cell, with its conditions, validity and metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from benchmarks.records.conditions import Load, Model, Slo, Target, Validity, WorkloadInfo
from benchmarks.records.requests import TokenSource


class Distribution(Model):
    """Of one metric; a percentile is null where there are too few samples to say it."""

    unit: str
    n: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    # Upper bounds that hold with 99 % confidence (MLPerf's early stopping).
    p90_certified: float | None = None
    p99_certified: float | None = None
    # Of pooled gaps, which depend on each other within a request: how many requests they come from,
    # which is held against the floors; and the 95th percentile however few these are. It is no
    # figure to quote: `compare` needs one of each block, and their spread says how sure it is.
    clusters: int | None = None
    p95_sample: float | None = None
    reason: str | None = None  # why it is empty


class Goodput(Model):
    """What met the SLO; failed and timed-out requests stay in attainment's denominator."""

    slo: Slo
    num_good: int
    num_counted: int
    goodput_rps: float
    goodput_tps: float
    attainment: float


class Window(Model):
    """The metrics of one window of the run."""

    began_s: float
    ended_s: float
    duration_s: float
    num_ok: int
    num_failed: int
    errors: dict[str, int] = Field(default_factory=dict)
    output_tokens: int
    prompt_tokens: int
    cached_prompt_tokens: int | None = None
    output_tps: float | None = None
    total_tps: float | None = None
    rps: float | None = None
    mean_concurrency: float | None = None
    distributions: dict[str, Distribution] = Field(default_factory=dict)
    goodput: Goodput | None = None


class Metrics(Model):
    """The whole measured part, comparable with other tools; and the window under full load."""

    full_run: Window
    steady: Window | None
    steady_reason: str | None = None  # why there is no steady window


class ServerSide(Model):
    """Differences of the server's own counters over the measured part."""

    ttft_mean_s: float | None = None
    itl_mean_s: float | None = None
    queue_mean_s: float | None = None
    prefill_mean_s: float | None = None
    decode_mean_s: float | None = None
    num_requests: float | None = None
    generation_tokens: float | None = None
    prompt_tokens: float | None = None
    prefix_cache_queries: float | None = None
    prefix_cache_hits: float | None = None
    preemptions: float | None = None
    # client's mean TTFT minus the engine's own: HTTP layer, network and client together
    overhead_ttft_s: float | None = None
    # of the processes, where the harness started the server
    api_cpu_s: float | None = None
    tree_cpu_s: float | None = None
    api_rss_mib: float | None = None


class MachineUse(Model):
    """What the processors did over the measured part."""

    # Parts of all cores' time: of processes that are not under test, and taken by the hypervisor.
    foreign_cpu: float | None = None
    steal: float | None = None
    # Part of the time in which some process waited for a core (Linux's PSI); server and client are
    # processes too.
    psi_cpu: float | None = None
    load_average: float | None = None  # of the last minute, at its end


class Second(Model):
    """One second of the run."""

    t_s: int
    output_tokens: int
    active: float  # mean number of open requests
    queued: float  # mean number of those without a first token
    sent: int


class PhaseSpan(Model):
    """One phase of the run."""

    name: Literal["warm_up", "measured", "drain"]
    began_s: float
    ended_s: float
    num_requests: int


class Run(Model):
    """run.json: one cell, with its conditions, validity and metrics."""

    schema_: Annotated[Literal["gemma-bench/1"], Field(alias="schema")] = "gemma-bench/1"
    run_id: str
    tool: dict[str, Any]
    started_at: str  # UTC, ISO 8601; the one wall-clock anchor
    ended_at: str
    argv: list[str]
    seed: int
    workload: WorkloadInfo
    load: Load
    target: Target
    host: dict[str, Any]
    phases: list[PhaseSpan]
    validity: Validity
    token_source: TokenSource | None
    slo: Slo | None = None
    metrics: Metrics
    server: ServerSide | None = None
    server_reason: str | None = None  # why there are no server-side figures
    machine: MachineUse | None = None
    timeseries: list[Second] = Field(default_factory=list)

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
