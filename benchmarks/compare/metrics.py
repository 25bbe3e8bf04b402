"""What is compared: the few primary metrics, declared beforehand, and those that only describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.compare.statistics import Better
from benchmarks.metrics.distributions import FLOORS
from benchmarks.metrics.requests import e2e_s, tpot_s, ttft_s
from benchmarks.records import RequestRecord, Run

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Metric(Generic[Measured]):
    """One figure of a run, or of a request; None where it was not measured."""

    name: str
    unit: str
    better: Better
    phrase: str  # as in "A gives 1.03 times B's <phrase>"
    value: Callable[[Measured], float | None]
    primary: bool = False
    absent: str = ""  # why no block may have it, and how to get it
    # The requests that a block's figure stands on; all blocks of a side together need `floor`.
    requests: Callable[[Measured], int] | None = None
    floor: int = 0


def percentile(name: str, quantile: str) -> Callable[[Run], float | None]:
    """A percentile of the full run: as each block is the same work, ramp and drain belong to it."""

    def value(run: Run) -> float | None:
        found = run.metrics.full_run.distributions.get(name)
        figure: float | None = getattr(found, quantile, None)
        return figure

    return value


def ttft_p50_s(run: Run) -> float | None:
    """Median TTFT; in an open loop from the scheduled sending (MLPerf LoadGen)."""
    scheduled = percentile("ttft_sched_s", "p50")(run)
    return percentile("ttft_s", "p50")(run) if scheduled is None else scheduled


def itl_p95_s(run: Run) -> float | None:
    """
    The 95th percentile of the block's token-weighted gaps, however few its requests are.

    Of one block it is a sample, and no more is made of it: the pairs' spread says how well it is
    known, and all blocks of a side together have to reach the percentile's floor.
    """
    found = run.metrics.full_run.distributions.get("itl_s")
    return None if found is None else found.p95_sample


def itl_requests(run: Run) -> int:
    """How many requests those gaps come from: the gaps of one depend on each other."""
    found = run.metrics.full_run.distributions.get("itl_s")
    return (found.clusters or 0) if found is not None else 0


def goodput_rps(run: Run) -> float | None:
    """Good requests per second, where there is an SLO."""
    found = run.metrics.full_run.goodput
    return None if found is None else found.goodput_rps


def cpu_us_per_token(run: Run) -> float | None:
    """CPU time of the server's processes per output token, microseconds: tree_cpu_s / sum(n)."""
    tokens = run.metrics.full_run.output_tokens
    if run.server is None or run.server.tree_cpu_s is None or tokens == 0:
        return None
    return run.server.tree_cpu_s * 1e6 / tokens


def api_rss_mib(run: Run) -> float | None:
    """Resident memory of the API process, where the harness started it."""
    return None if run.server is None else run.server.api_rss_mib


# Holm's correction is over the primary ones: one more makes each of them harder to decide.
RUN_METRICS: tuple[Metric[Run], ...] = (
    Metric(
        "output_tps",
        "tokens/s",
        "higher",
        "output tokens/s",
        lambda run: run.metrics.full_run.output_tps,
        primary=True,
    ),
    Metric("ttft_p50_s", "s", "lower", "median TTFT", ttft_p50_s, primary=True),
    Metric("tpot_p50_s", "s", "lower", "median TPOT", percentile("tpot_s", "p50"), primary=True),
    Metric(
        "itl_p95_s",
        "s",
        "lower",
        "p95 ITL",
        itl_p95_s,
        primary=True,
        absent="the servers do not tell the tokens of each event",
        requests=itl_requests,
        floor=FLOORS["p95"],
    ),
    Metric(
        "goodput_rps",
        "req/s",
        "higher",
        "goodput",
        goodput_rps,
        primary=True,
        absent="there is no SLO; give --slo ttft_ms=200,tpot_ms=50, or one in the profile",
    ),
    Metric("e2e_p50_s", "s", "lower", "median E2E latency", percentile("e2e_s", "p50")),
    Metric("rps", "req/s", "higher", "requests/s", lambda run: run.metrics.full_run.rps),
    Metric("max_stall_p50_s", "s", "lower", "median max stall", percentile("max_stall_s", "p50")),
    Metric("cpu_us_per_token", "us", "lower", "CPU time per token", cpu_us_per_token),
    Metric("api_rss_mib", "MiB", "lower", "API process memory", api_rss_mib),
)

REQUEST_METRICS: tuple[Metric[RequestRecord], ...] = (
    Metric("ttft_s", "s", "lower", "TTFT", ttft_s, primary=True),
    Metric("tpot_s", "s", "lower", "TPOT", tpot_s, primary=True),
    Metric("e2e_s", "s", "lower", "E2E latency", e2e_s, primary=True),
)
