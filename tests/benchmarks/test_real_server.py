"""The harness against real vLLM: what it counts, what it calls slower, and what it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import Comparison, Run
from tests.benchmarks.slow_proxy import slowed
from tests.servers import Server

BOUND_S = 300
# A chance of 1 in 1000 that A against A is called different, over all its looks.
PAIRS = ["--looks", "16", "--aa-pairs", "6", "--alpha", "0.001"]
CELL = ["--concurrency", "1", "--requests", "4", "--warm-up", "1", "--input", "16"]


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks WORDS`, to its end."""
    command = [sys.executable, "-m", "benchmarks", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)


def run_of(done: subprocess.CompletedProcess[str]) -> Run:
    """The record that --json printed."""
    assert done.stdout, done.stderr
    return Run.model_validate_json(done.stdout)


def red(run: Run) -> set[str]:
    """The red checks of the answers; those of the machine depend on who else is busy."""
    of_answers = {"failed_requests", "output_length", "usage_tokens", "prefix_cache_hits"}
    return {c.name for c in run.validity.checks if c.status == "red"} & of_answers


@pytest.mark.parametrize(
    ("options", "protocol"),
    [
        (["--style", "text"], "openai-chat"),
        (["--style", "ids"], "openai-completions"),
        (["--workload", "prefix", "--set", "num_groups=2", "--set", "prefix_tokens=64"], None),
        (["--workload", "multi_turn", "--set", "turns=3", "--natural-end"], "openai-chat"),
    ],
    ids=["chat", "ids", "prefix", "multi-turn"],
)
def test_every_token_of_every_request_is_counted(
    tiny_server: Server, tmp_path: Path, options: list[str], protocol: str | None
) -> None:
    """Each kind of workload comes back whole, by ids, and agrees with the server's own counters."""
    run = run_of(
        bench("run", tiny_server.base_url, "--concurrency", "4", "--requests", "12",
              "--input", "24", "--output", "16", "--out", tmp_path, "--json", *options)
    )  # fmt: skip
    full = run.metrics.full_run

    assert red(run) == set()
    assert (full.num_ok, full.num_failed, run.token_source) == (12, 0, "token_ids")
    assert protocol in (None, run.target.protocol)
    if "--natural-end" not in options:
        assert full.output_tokens == 12 * 16
    # The engine counted at least the measured requests' tokens, and its warm-up's at most.
    assert run.server is not None
    assert run.server.generation_tokens is not None
    assert full.output_tokens <= run.server.generation_tokens + 8 * 16
    assert run.server.ttft_mean_s is not None


def test_exact_token_ids_are_what_the_server_gets(tiny_server: Server, tmp_path: Path) -> None:
    """A prompt of token ids has the length that was asked for, and the one BOS of every prompt."""
    bench("run", tiny_server.base_url, *CELL, "--output", "4", "--style", "ids", "--out", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]

    assert {line["prompt_tokens"] for line in lines} == {16 + 1}


def test_cold_cell_has_no_prefix_hits_even_for_the_same_bytes(
    tiny_server: Server, tmp_path: Path
) -> None:
    """The same workload twice: salts keep the second run from finding the first one's blocks."""
    words = ["run", tiny_server.base_url, "--concurrency", "2", "--requests", "6",
             "--input", "300", "--output", "4", "--seed", "5", "--json", "--out"]  # fmt: skip
    first, second = (run_of(bench(*words, tmp_path / name)) for name in ("one", "two"))

    assert first.workload.sha256 == second.workload.sha256
    assert second.server is not None
    assert second.server.prefix_cache_queries
    assert second.server.prefix_cache_hits == 0


def test_prefix_groups_are_found_in_the_cache(tiny_server: Server, tmp_path: Path) -> None:
    """Prompts that begin alike hit the prefix cache, and the run does not call itself cold."""
    shared = ["--workload", "prefix", "--set", "num_groups=1", "--set", "prefix_tokens=600"]
    words = ["--concurrency", "1", "--requests", "4", "--warm-up", "0", "--output", "4"]
    run = run_of(bench("run", tiny_server.base_url, *shared, *words, "--json", "--out", tmp_path))

    assert run.workload.cache == "warm"
    assert run.server is not None
    assert run.server.prefix_cache_hits


@pytest.mark.parametrize(
    "options",
    [
        ["prefix", "--set", "num_groups=1", "--set", "prefix_tokens=600"],
        ["multi_turn", "--set", "turns=4"],
    ],
    ids=["prefix", "multi-turn"],
)
def test_replayed_workload_shares_what_it_shared(
    tiny_server: Server, tmp_path: Path, options: list[str]
) -> None:
    """A stored workload hits the prefix cache as it did when it was made, and is no INVALID one."""
    file, words = tmp_path / "stored.jsonl", ["--requests", "8", "--warm-up", "0", "--output", "8"]
    bench("workload", file, "--input", "60", *words, "--workload", *options)
    run = run_of(bench("run", tiny_server.base_url, "--concurrency", "1", "--workload", file,
                       "--json", "--out", tmp_path / "run"))  # fmt: skip

    assert red(run) == set()
    assert (run.workload.kind, run.workload.cache) == (options[0], "warm")
    assert run.server is not None
    assert run.server.prefix_cache_hits


def spoken(server: Server, protocol: str, contract: str = "python-backend") -> str:
    """The server as a target of a protocol."""
    address = f"{server.base_url},protocol={protocol},grpc={server.grpc_address}"
    return f"{address},contract={contract}"


def assert_counted(run: Run, num_tokens: int, num_open: int) -> None:
    """
    The run's tokens are what the engine counted, and its warm-up's at most.

    `num_tokens` is that of the measured requests; the warm-up has as many again. The counters are
    read beside the load, so that they may miss some of the `num_open` tokens that were under way.
    """
    full = run.metrics.full_run
    assert red(run) == set()
    assert full.num_failed == 0
    assert run.server is not None
    assert run.server.generation_tokens is not None
    assert full.output_tokens <= num_tokens
    assert num_tokens - num_open <= run.server.generation_tokens <= 2 * num_tokens


@pytest.mark.parametrize("protocol", ["triton-generate", "triton-grpc"])
def test_python_backend_counts_texts_and_says_so(
    tiny_server: Server, tmp_path: Path, protocol: str
) -> None:
    """Its responses have no counts and no ignore_eos: the record says that texts were counted."""
    run = run_of(
        bench("run", spoken(tiny_server, protocol), "--concurrency", "4", "--requests", "8",
              "--warm-up", "8", "--input", "24", "--output", "16", "--json", "--out", tmp_path)
    )  # fmt: skip

    assert red(run) == set()
    assert run.metrics.full_run.num_failed == 0
    # An answer may end by itself, and a response may hold more than one token.
    assert run.server is not None
    assert run.server.generation_tokens is not None
    assert run.metrics.full_run.output_tokens <= run.server.generation_tokens <= 2 * 8 * 16
    assert (run.target.protocol, run.target.contract) == (protocol, "python-backend")
    assert (run.token_source, run.workload.ignore_eos) == ("events", False)
    assert run.metrics.full_run.num_ok == 8
    assert run.metrics.full_run.output_tokens >= 8


@pytest.mark.parametrize("protocol", ["triton-generate", "triton-grpc"])
def test_two_protocols_of_one_server(
    vllm_backend_server: Server, tmp_path: Path, protocol: str
) -> None:
    """
    With the vLLM backend's contract every token is counted, over HTTP and gRPC as in OpenAI's.

    The pairs' prompts are long enough to be found in the prefix cache, and are not.
    """
    words = ["--concurrency", "2", "--requests", "6", "--warm-up", "6", "--input", "100",
             "--output", "16", "--looks", "6", "--aa-pairs", "2", "--out", tmp_path]  # fmt: skip
    server = vllm_backend_server
    done = bench("compare", spoken(server, protocol, "vllm-backend"),
                 spoken(server, "openai-chat"), *words)  # fmt: skip
    assert (tmp_path / "compare.json").is_file(), done.stderr
    for path in sorted(tmp_path.glob("a_*/run.json")):
        run = Run.model_validate_json(path.read_text())
        exact = "event_counts" if run.target.protocol == protocol else "token_ids"
        assert_counted(run, 6 * 16, num_open=2 * 16)
        assert (run.token_source, run.metrics.full_run.output_tokens) == (exact, 6 * 16)
        assert run.server is not None
        assert run.server.prefix_cache_queries
        assert run.server.prefix_cache_hits == 0
    # A pair that something else disturbed is measured again.
    assert len(list(tmp_path.glob("a_a-*/run.json"))) >= 4
    record = Comparison.model_validate_json((tmp_path / "compare.json").read_text())
    assert (record.a.protocol, record.b.protocol) == (protocol, "openai-chat")
    assert "8 digits" in record.workload.description


def compared(a: str, b: str, out: Path, *options: str) -> tuple[Comparison, dict[str, Any]]:
    """compare.json of two targets, and the verdict of each metric."""
    words = ["compare", a, b, *CELL, "--output", "32", *PAIRS, *options, "--out", str(out)]
    done = bench(*words)
    assert (out / "compare.json").is_file(), done.stderr
    record = Comparison.model_validate_json((out / "compare.json").read_text())
    return record, {metric.metric: metric.verdict for metric in record.metrics}


def test_slowed_server_is_called_slower(tiny_server: Server, tmp_path: Path) -> None:
    """10 ms more for each token is called slower, in tokens/s and in time per token."""
    # So much that a machine that stands still for a second or two does not hide it.
    with slowed(tiny_server.base_url, 0.01) as slow:
        record, verdicts = compared(slow, tiny_server.base_url, tmp_path, "--quality",
                                    "--quality-prompts", "3")  # fmt: skip

    assert verdicts["output_tps"] == verdicts["tpot_p50_s"] == "slower"
    assert record.verdict in ("slower", "invalid")  # invalid: the machine was too busy to say so
    assert record.quality is not None
    assert record.quality.same


def test_server_against_itself_is_not_called_different(tiny_server: Server, tmp_path: Path) -> None:
    """A/A is neither faster nor slower, whatever the noise."""
    record, verdicts = compared(tiny_server.base_url, tiny_server.base_url, tmp_path)
    primary = {metric.metric for metric in record.metrics if metric.primary}

    assert record.verdict not in ("faster", "slower")
    assert {verdicts[name] for name in primary} <= {"equivalent", "inconclusive"}
