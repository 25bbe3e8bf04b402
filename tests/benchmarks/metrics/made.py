"""Request records and runs with chosen times, for tests that spell their arithmetic out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from benchmarks.metrics.windows import summarise
from benchmarks.records import (
    Chunk,
    ClientHealth,
    Load,
    RequestRecord,
    Run,
    ServerSide,
    Slo,
    Target,
    Validity,
    WorkloadInfo,
)

# No deadline: on a busy machine a first example takes its time.
few_examples = settings(max_examples=40, deadline=None)

CLOSED = Load(mode="closed", concurrency=1)
OPEN = Load(mode="open", rate_rps=10.0, arrivals="constant")
HEALTHY = ClientHealth(
    wall_s=10.0, cpu_s=1.0, loop_lag_s=[0.001] * 200, foreign_cpu=0.01, steal=0.0
)


def request(
    at_s: Sequence[float] = (0.1, 0.2, 0.3),
    tokens: Sequence[int] | None = None,
    reads: Sequence[int] | None = None,
    **fields: Any,
) -> RequestRecord:
    """A completed request whose chunks came `at_s` after its sending, one token each."""
    counts = tokens or [1] * len(at_s)
    chunks = [Chunk(*chunk) for chunk in zip(at_s, counts, reads or range(len(at_s)), strict=True)]
    send_s = fields.pop("send_s", 0.0)
    ended: dict[str, Any] = {
        "index": 0,
        "phase": "measured",
        "max_tokens": sum(counts),
        "end_s": send_s + (at_s[-1] if at_s else 0.0),
        "choice_s": at_s[0] if at_s else None,
        "num_output_tokens": sum(counts),
        "prompt_tokens": 10,
        "usage_output_tokens": sum(counts),
        "token_source": "token_ids",
        "finish_reason": "length",
        "status": 200,
    }
    return RequestRecord(send_s=send_s, chunks=chunks, **(ended | fields))


def failed(error: str = "timeout", **fields: Any) -> RequestRecord:
    """A request without an answer."""
    return request((), error=error, finish_reason=None, prompt_tokens=None, **fields)


def run(
    records: Sequence[RequestRecord],
    load: Load = CLOSED,
    *,
    slo: Slo | None = None,
    validity: Validity | None = None,
    server: ServerSide | None = None,
    cache: str = "cold",
) -> Run:
    """A run.json of these records."""
    info = {"kind": "synthetic", "sha256": "0" * 64, "description": "made", "ignore_eos": True}
    return Run(
        run_id="r1",
        tool={},
        started_at="2026-11-25T10:20:30+00:00",
        ended_at="2026-11-25T10:21:30+00:00",
        argv=[],
        seed=0,
        workload=WorkloadInfo.model_validate(
            info | {"num_requests": len(records), "num_warm_up": 0, "cache": cache}
        ),
        load=load,
        target=Target(url="http://h:1", protocol="openai-chat", model="tiny", label="ours"),
        host={},
        phases=[],
        validity=validity or Validity(verdict="VALID", checks=[]),
        token_source="token_ids",
        slo=slo,
        metrics=summarise(records, load, slo),
        server=server,
    )


@st.composite
def requests(draw: st.DrawFn) -> RequestRecord:
    """Any completed request; times on a grid of a tenth of a millisecond."""
    gaps = draw(st.lists(st.integers(0, 5000), min_size=1, max_size=12))
    at_s = [sum(gaps[: number + 1]) / 1e4 for number in range(len(gaps))]
    tokens = draw(st.lists(st.integers(1, 4), min_size=len(gaps), max_size=len(gaps)))
    send_s = draw(st.integers(0, 50_000)) / 1e4
    return request(
        at_s, tokens, send_s=send_s, phase=draw(st.sampled_from(["warm_up", "measured"]))
    )
