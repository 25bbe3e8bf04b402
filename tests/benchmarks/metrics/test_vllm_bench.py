"""A run in vLLM's format, held against the installed vLLM's own code and keys."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.metrics.export import vllm_bench
from benchmarks.records import Load, RequestRecord, Slo
from tests.benchmarks.metrics.made import OPEN, failed, request, run

METRICS = ("ttft", "tpot", "itl", "e2el")


@cache
def serve_py() -> ast.Module:
    """The source of `vllm bench serve`; importing it would load torch."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    return ast.parse((Path(spec.origin).parent / "benchmarks/serve.py").read_text())


def definitions(*names: str) -> ast.Module:
    """The named classes and functions of it, alone."""
    found = [node for node in serve_py().body if getattr(node, "name", None) in names]
    assert len(found) == len(names)
    return ast.Module(body=found, type_ignores=[])


def their_metrics(outputs: list[Any], duration_s: float, goodput: dict[str, float]) -> Any:
    """vLLM's calculate_metrics, run on outputs such as its client makes."""
    # Like this file's own, their annotations are not evaluated: compile() inherits that.
    code = compile(definitions("BenchmarkMetrics", "calculate_metrics"), "serve.py", "exec")
    world: dict[str, Any] = {
        "np": np,
        "dataclass": dataclass,
        "warnings": warnings,
        "MILLISECONDS_TO_SECONDS_CONVERSION": 1000,
        "TERM_PLOTLIB_AVAILABLE": False,
    }
    exec(code, world)
    metrics, _ = world["calculate_metrics"]([], outputs, duration_s, None, [99.0], goodput)
    return metrics


def saved_keys() -> Iterator[str]:
    """The keys that are in every file that --save-result --save-detailed writes."""
    for node in ast.walk(definitions("main_async")):
        # result_json["date"] = ..., but for --metadata and --ramp-up-strategy
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Subscript):
            key = target.slice
            if isinstance(key, ast.Constant) and ast.unparse(target.value) == "result_json":
                yield str(key.value)
    for node in ast.walk(definitions("benchmark")):
        if isinstance(node, ast.Dict) and "'itls'" in ast.unparse(node):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant))


def mixed() -> list[RequestRecord]:
    """Requests of many lengths, with a role first, bundled tokens, one token, and a failure."""
    records = [
        request(
            [0.05 + 0.013 * n * (1 + i % 3) for n in range(1, 2 + i % 7)],
            [1 + (i + n) % 2 for n in range(1, 2 + i % 7)],
            send_s=0.11 * i,
            index=i,
            choice_s=0.04,
        )
        for i in range(40)
    ]
    return [*records, failed("timeout", send_s=0.3, error_message="late"), request((0.2,))]


def as_their_output(record: RequestRecord) -> SimpleNamespace:
    """What vLLM's client would have kept of the same events."""
    events = sorted({record.choice_s or 0.0, *(chunk.at_s for chunk in record.chunks)})
    return SimpleNamespace(
        success=record.error is None,
        output_tokens=record.num_output_tokens,
        prompt_len=record.prompt_tokens,
        latency=events[-1],
        ttft=events[0],
        itl=[b - a for a, b in pairwise(events)],
        input_audio_duration=0.0,
        start_time=record.send_s,
        error=record.error_message or "",
    )


def test_keys_are_theirs() -> None:
    """Every key that vLLM always writes, and none but its statistics of the four latencies."""
    statistics = {f"{word}_{m}_ms" for m in METRICS for word in ("mean", "median", "std", "p99")}
    ramp_up = {"ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps"}
    expected = (set(saved_keys()) - ramp_up) | statistics
    assert set(vllm_bench(run(mixed()), mixed())) == expected


@pytest.mark.filterwarnings("ignore")
def test_figures_are_theirs() -> None:
    """The same events through vLLM's own arithmetic give the same figures."""
    records, slo = mixed(), Slo(ttft_ms=60, tpot_ms=20, e2e_ms=150)
    ours = vllm_bench(run(records, slo=slo), records)
    outputs = [as_their_output(record) for record in records]
    goodput = {"ttft": 60, "tpot": 20, "e2el": 150}
    theirs = their_metrics(outputs, ours["duration"], goodput)
    for name in ("completed", "failed", "request_throughput", "request_goodput"):
        assert ours[name] == pytest.approx(getattr(theirs, name)), name
    for name in ("output_throughput", "total_token_throughput"):
        assert ours[name] == pytest.approx(getattr(theirs, name)), name
    assert ours["total_input_tokens"] == theirs.total_input
    assert ours["total_output_tokens"] == theirs.total_output
    assert ours["max_output_tokens_per_s"] == theirs.max_output_tokens_per_s
    assert ours["max_concurrent_requests"] == theirs.max_concurrent_requests
    for metric in METRICS:
        for word in ("mean", "median", "std"):
            key = f"{word}_{metric}_ms"
            assert ours[key] == pytest.approx(getattr(theirs, key)), key
        ((_, p99),) = getattr(theirs, f"percentiles_{metric}_ms")
        assert ours[f"p99_{metric}_ms"] == pytest.approx(p99), metric
    assert 0 < ours["request_goodput"] < ours["request_throughput"]


def test_ttft_by_the_first_choices_event() -> None:
    """A role-only event ends their TTFT, and its gap to the first token is an ITL of theirs."""
    record = request((0.125, 0.25), choice_s=0.0625)
    found = vllm_bench(run([record]), [record])
    assert found["ttfts"] == [0.0625]
    assert found["itls"] == [[0.0625, 0.125]]
    assert found["latencies"] == [0.25]
    # (0.25 - 0.0625) / 1
    assert found["mean_tpot_ms"] == 187.5


def test_a_failure_has_zeros() -> None:
    """A failed request keeps its place in the lists, with zeros and its message."""
    records = [request(), failed(error_message="late", send_s=1.0)]
    found = vllm_bench(run(records), records)
    assert (found["completed"], found["failed"]) == (1, 1)
    assert (found["ttfts"][1], found["itls"][1], found["output_lens"]) == (0.0, [], [3, 0])
    assert found["errors"] == ["", "late"]


def test_conditions() -> None:
    """A closed loop is an infinite rate under a cap; an open loop has its rate."""
    closed = vllm_bench(run([request()], Load(mode="closed", concurrency=8)), [request()])
    assert (closed["request_rate"], closed["max_concurrency"]) == ("inf", 8)
    assert (closed["date"], closed["backend"]) == ("20261125-102030", "openai-chat")
    assert closed["request_goodput"] is None
    opened = vllm_bench(run([request()], OPEN), [request()])
    assert (opened["request_rate"], opened["max_concurrency"]) == (10.0, None)


def test_warm_up_is_not_in_it() -> None:
    """vLLM's tool saves no warm-up requests."""
    records = [request(phase="warm_up"), request()]
    assert vllm_bench(run(records), records)["num_prompts"] == 1


def test_all_failed_is_json() -> None:
    """With nothing to average the file still has numbers that JSON knows."""
    records = [failed(end_s=1.0)]
    text = json.dumps(vllm_bench(run(records), records), allow_nan=False)
    assert math.isclose(json.loads(text)["output_throughput"], 0.0)
