"""Runs and records with made-up numbers: what is tested on them is arithmetic and order."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.records import (
    Check,
    Chunk,
    Distribution,
    Load,
    Metrics,
    Protocol,
    RequestRecord,
    Run,
    ServerSide,
    Target,
    Validity,
    Window,
    WorkloadInfo,
)


def made_up_run(
    tps: float | None = 100.0,
    *,
    label: str = "a",
    sha256: str = "0",
    protocol: Protocol = "openai-completions",
    prompt_tokens: int = 1000,
    red: Sequence[str] = (),
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    itl_p95_s: float | None = None,
    itl_requests: int = 10,
    server: ServerSide | None = None,
) -> Run:
    """A run with an output_tps, and whatever else is given."""
    found = {"ttft_s": ttft_s, "tpot_s": tpot_s}
    window = Window(
        began_s=0,
        ended_s=10,
        duration_s=10,
        num_ok=10,
        num_failed=0,
        output_tokens=1000,
        prompt_tokens=prompt_tokens,
        output_tps=tps,
        distributions={
            name: Distribution(unit="s", n=10, p50=value)
            for name, value in found.items()
            if value is not None
        }
        | _gaps(itl_p95_s, itl_requests),
    )
    checks = [
        Check(name=name, status="red" if name in red else "ok", message=f"{name} was looked at")
        for name in {"failed_share": 0, "cpu_steal": 0, **dict.fromkeys(red)}
    ]
    return Run(
        run_id="1",
        tool={},
        started_at="2026-11-25T00:00:00+00:00",
        ended_at="2026-11-25T00:00:10+00:00",
        argv=[],
        seed=0,
        workload=WorkloadInfo(
            kind="fixed",
            sha256=sha256,
            num_requests=10,
            num_warm_up=0,
            description="",
            cache="cold",
            ignore_eos=True,
        ),
        load=Load(mode="closed", concurrency=1),
        target=Target(url="http://localhost", protocol=protocol, model="m", label=label),
        host={"cores": 2},
        phases=[],
        validity=Validity(verdict="INVALID" if red else "VALID", checks=checks),
        token_source="token_ids",
        metrics=Metrics(full_run=window, steady=None),
        server=server,
    )


def _gaps(p95_s: float | None, num_requests: int) -> dict[str, Distribution]:
    """Of the tokens of so many requests: too few for a percentile of their own."""
    if p95_s is None:
        return {}
    gaps = Distribution(unit="s", n=50 * num_requests, clusters=num_requests, p95_sample=p95_s)
    return {"itl_s": gaps}


def record(
    index: int = 0,
    *,
    text: str | None = None,
    token_ids: list[int] | None = None,
    ttft_s: float = 0.1,
    tpot_s: float = 0.01,
    failed: bool = False,
) -> RequestRecord:
    """A request of three tokens, one a chunk."""
    chunks = [Chunk(ttft_s + i * tpot_s, 1, i) for i in range(3)]
    return RequestRecord(
        index=index,
        phase="measured",
        max_tokens=3,
        send_s=0.0,
        end_s=1.0,
        chunks=[] if failed else chunks,
        num_output_tokens=0 if failed else 3,
        error="early_close" if failed else None,
        text=text,
        token_ids=token_ids,
    )
