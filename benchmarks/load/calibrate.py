"""
What the client itself can do: its ceiling in tokens/s, and its error against known times.

Everything is measured against the null server, in a process of its own: what is missing to the
server's own pace is the client's (and the null server's) doing.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.load.connection import Endpoint
from benchmarks.load.null_server import NAME, Pace
from benchmarks.load.runner import Progress, Sending, offer
from benchmarks.machine import undisturbed
from benchmarks.records import Item, Load, RequestRecord

TOKENS = 128
ONES_PER_CLIENT = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """One concurrency: what was offered, what was seen."""

    concurrency: int
    ceiling_tps: float  # tokens come as fast as the null server can write them
    paced_tps: float
    ideal_tps: float  # what the pace makes by itself
    client_cpu: float  # of one core, at the pace
    ttft_error_ms: float  # median seen minus true
    ttft_error_p99_ms: float
    tpot_error_us: float
    loop_lag_p99_ms: float


@contextlib.contextmanager
def null_server(pace: Pace) -> Iterator[str]:
    """The address of a null server in a process of its own."""
    words = [sys.executable, "-m", "benchmarks", "nullserver", "--port", "0"]
    words += ["--ttft-ms", str(pace.ttft_s * 1e3), "--itl-ms", str(pace.itl_s * 1e3)]
    words += ["--chunk-tokens", str(pace.chunk_tokens)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the null server ended with code {process.wait()}")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()


async def calibrate(
    concurrencies: Sequence[int], pace: Pace, on_progress: Progress | None = None
) -> list[Calibration]:
    """The client's ceiling and error at each concurrency."""
    with null_server(Pace(0.0, 0.0)) as fast, null_server(pace) as paced:
        return [
            await _calibrate(number, fast, paced, pace, on_progress) for number in concurrencies
        ]


async def _calibrate(
    concurrency: int, fast: str, paced: str, pace: Pace, on_progress: Progress | None
) -> Calibration:
    load = Load(mode="closed", concurrency=concurrency)
    items = [Item(n, TOKENS, prompt="x") for n in range(concurrency * ONES_PER_CLIENT)]
    warm_up = items[:concurrency]
    with undisturbed():  # as in a run
        flood = await offer(_sending(fast), load, items, warm_up)
        calm = await offer(_sending(paced), load, items, warm_up, on_progress=on_progress)
    done = [record for record in calm.records if record.phase == "measured" and record.chunks]
    ttft_ms = [(record.chunks[0].at_s - pace.ttft_s) * 1e3 for record in done]
    tpot_us = [(_tpot_s(record) - pace.itl_s) * 1e6 for record in done]
    one_s = pace.ttft_s + (TOKENS - 1) * pace.itl_s
    return Calibration(
        concurrency=concurrency,
        ceiling_tps=_tokens_per_s(flood.records),
        paced_tps=_tokens_per_s(calm.records),
        ideal_tps=concurrency * TOKENS / one_s,
        client_cpu=calm.health.cpu_s / calm.health.wall_s,
        ttft_error_ms=statistics.median(ttft_ms),
        ttft_error_p99_ms=_p99(ttft_ms),
        tpot_error_us=statistics.median(tpot_us),
        loop_lag_p99_ms=_p99(calm.health.loop_lag_s or [0.0]) * 1e3,
    )


def _sending(url: str) -> Sending:
    return Sending(Endpoint(url), "openai-completions", NAME)


def _tokens_per_s(records: Sequence[RequestRecord]) -> float:
    """Tokens of the measured requests over the time from their first sending to their last end."""
    measured = [record for record in records if record.phase == "measured"]
    began_s = min(record.send_s for record in measured)
    ended_s = max(record.end_s for record in measured)
    return sum(record.num_output_tokens for record in measured) / (ended_s - began_s)


def _tpot_s(record: RequestRecord) -> float:
    return (record.chunks[-1].at_s - record.chunks[0].at_s) / (record.num_output_tokens - 1)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]
