"""
guidellm on the same requests, in an environment of its own.

One worker process, as ours is one; and no usage in every event, which it asks for by default: the
server would have more to do for it than for us.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judge import ours as formulas
from benchmarks.judge.replay import Figures, JudgeError, Replay, run_tool
from benchmarks.metrics.requests import ntpot_s, tpot_s, ttft_s
from benchmarks.records import RequestRecord
from benchmarks.servers import venvs
from benchmarks.servers.venvs import Progress
from benchmarks.workload import write_guidellm

VERSION = "0.8.1"  # 0.7 has another command line
# The torch that PyPI gives by itself comes with gigabytes of CUDA; this one is what vLLM uses.
INSTALLS = [["torch==2.13.0"], [f"guidellm=={VERSION}"]]
MAX_RUNS = 3
ENVIRON = {"GUIDELLM__MAX_WORKER_PROCESSES": "1", "HF_HUB_OFFLINE": "1"}


class Guidellm:
    """`guidellm run`."""

    name = "guidellm"
    definitions: Mapping[str, str] = {
        "output_tokens": "by the server's usage",
        "ttft_mean_ms": "first event with text - sending",
        "tpot_mean_ms": "(last text - sending) / n, the first token's time in it (our ntpot), "
        "mean over tokens",
        "itl_mean_ms": "(last text - first text) / (n - 1) (our tpot), mean over tokens",
        "output_tps": "tokens / (first sending to last end)",
        "e2e_mean_ms": "end of the stream - sending",
        "mean_concurrency": "sum of e2e / duration; not judged, it explains the others",
    }

    def __init__(self) -> None:
        self._python = Path()

    async def prepare(self, on_progress: Progress | None) -> str:
        """Its environment."""
        self._python = await venvs.environment("guidellm", INSTALLS, on_progress)
        return f"guidellm {VERSION}"

    async def run(self, replay: Replay, directory: Path, salt: str) -> Figures:
        """
        Send the workload once, and read what it saved.

        Again where it lost an answer by itself: 0.8.1 now and then ends with its last request still
        "processing", although it was answered; it is then neither good nor failed.
        """
        for attempt in range(1, MAX_RUNS + 1):
            name = f"guidellm-{salt}" if attempt == 1 else f"guidellm-{salt}-again-{attempt}"
            saved = await self._run_once(replay, directory, name, f"{salt}-{attempt}")
            if num_lost(saved, replay.num_requests) == 0:
                return read_figures(saved)
        raise JudgeError(
            f"guidellm lost the answers of {num_lost(saved, replay.num_requests)} of "
            f"{replay.num_requests} requests, {MAX_RUNS} times in a row; judge with vllm alone"
        )

    async def _run_once(
        self, replay: Replay, directory: Path, name: str, salt: str
    ) -> dict[str, Any]:
        result = directory / f"{name}.json"
        with tempfile.TemporaryDirectory() as scratch:
            config = _write_files(replay, salt, Path(scratch), result)
            words = [str(self._python.with_name("guidellm")), "run", "-c", str(config)]
            environ = ENVIRON | {"HF_DATASETS_CACHE": scratch}
            log = directory / f"{name}.log"
            words.append("--disable-console")
            await run_tool(self.name, words, log, environ, replay.client_cpus)
        saved: dict[str, Any] = json.loads(result.read_text())
        return saved

    def ours(self, sent: Sequence[RequestRecord]) -> Figures:
        """
        Our requests by its definitions.

        Source: guidellm 0.8.1 schemas/base/request_stats.py, benchmark/schemas/metrics.py.
        """
        found = formulas.measured(sent)
        duration_s = formulas.span_s(found)
        return {
            "output_tokens": formulas.num_tokens(found),
            "ttft_mean_ms": formulas.mean_ms(found, ttft_s),
            "tpot_mean_ms": formulas.mean_ms(found, ntpot_s, lambda one: one.num_output_tokens),
            "itl_mean_ms": formulas.mean_ms(found, tpot_s, lambda one: one.num_output_tokens - 1),
            "output_tps": formulas.num_tokens(found) / duration_s,
            "e2e_mean_ms": formulas.mean_ms(found, _stream_s),
            "mean_concurrency": sum(map(_stream_s, found)) / duration_s,
        }


def _write_files(replay: Replay, salt: str, scratch: Path, result: Path) -> Path:
    """The requests and the configuration; the path of the latter."""
    dataset, config = scratch / "workload.jsonl", scratch / "config.json"
    write_guidellm(replay.workload, dataset)
    config.write_text(json.dumps(configuration(replay, salt, dataset, result)))
    return config


def configuration(replay: Replay, salt: str, dataset: Path, result: Path) -> dict[str, Any]:
    """Its configuration file: every request once, in the file's order."""
    body = replay.extra_body(salt) | {"stream_options": {"continuous_usage_stats": False}}
    # It sends ignore_eos wherever a length is asked for.
    body["ignore_eos"] = replay.ignore_eos
    backend = {
        "kind": "openai_http",
        "target": replay.url,
        "model": replay.model,
        "request_format": replay.route,
        "api_key": replay.api_key,
        "validate_backend": False,
        "extras": {"body": body},
    }
    return {
        "spec": {
            "backend": backend,
            "profile": {"kind": "concurrent", "streams": [replay.concurrency]},
            "constraints": [{"kind": "max_requests", "count": replay.num_requests}],
            "data": [{"kind": "json_file", "path": str(dataset)}],
            "outputs": [{"kind": "json", "path": str(result)}],
        }
    }


def num_lost(saved: Mapping[str, Any], num_requests: int) -> int:
    """
    Requests of which its result file tells nothing.

    Raises:
        JudgeError: a request failed.
    """
    benchmark = saved["benchmarks"][0]
    totals = benchmark["metrics"]["request_totals"]
    if num_failed := totals["errored"] + totals["incomplete"]:
        failed = benchmark["requests"]["errored"] + benchmark["requests"]["incomplete"]
        raise JudgeError(
            f"guidellm: {num_failed} of {num_requests} requests failed: "
            f"{failed[0]['info']['error'] if failed else 'it does not say why'}"
        )
    return num_requests - int(totals["successful"])


def read_figures(saved: Mapping[str, Any]) -> Figures:
    """Its result file."""
    metrics = saved["benchmarks"][0]["metrics"]

    def of(metric: str, what: str = "mean") -> float:
        return float(metrics[metric]["successful"][what])

    return {
        "output_tokens": of("output_token_count", "total_sum"),
        "ttft_mean_ms": of("time_to_first_token_ms"),
        "tpot_mean_ms": of("time_per_output_token_ms"),
        "itl_mean_ms": of("inter_token_latency_ms"),
        "output_tps": of("output_tokens_per_second"),
        "e2e_mean_ms": formulas.MS * of("request_latency"),
        "mean_concurrency": of("request_concurrency"),
    }


def _stream_s(record: RequestRecord) -> float:
    return record.end_s - record.send_s
