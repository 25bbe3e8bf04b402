"""The harness against real vLLM: what it counts, what it calls slower, and what it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compare.validity import DISTURBANCES
from benchmarks.records import Comparison, MetricComparison, Run
from tests.benchmarks.slow_proxy import slowed
from tests.servers import Server

BOUND_S = 300
# A chance of 1 in 1000 that A against A is called different, over all its looks.
PAIRS = ["--looks", "16", "--aa-pairs", "6", "--alpha", "0.001"]
CELL = ["--concurrency", "1", "--requests", "4", "--warm-up", "1", "--input", "16"]
SLOWED_S = 0.005  # a token
ATTEMPTS = 3


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
        (["--workload", "multi_turn", "--set", "turns=3", "--protocol", "openai-completions"],
         "openai-completions"),
    ],
    ids=["chat", "ids", "prefix", "multi-turn", "multi-turn-completions"],
)  # fmt: skip
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


def test_turns_of_a_completion_carry_what_was_said_before(
    tiny_server: Server, tmp_path: Path
) -> None:
    """Each turn's prompt is longer than the one before by the answer to it and its own text."""
    bench("run", tiny_server.base_url, "--concurrency", "1", "--requests", "3", "--warm-up", "0",
          "--workload", "multi_turn", "--set", "turns=3", "--protocol", "openai-completions",
          "--input", "20", "--output", "30", "--out", tmp_path)  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    lengths = [line["prompt_tokens"] for line in lines]

    # 20 words of the turn, and at the least some of the 30 tokens of the answer before it.
    assert lengths[1] >= lengths[0] + 20 + 1
    assert lengths[2] >= lengths[1] + 20 + 1
    said = Run.model_validate_json((tmp_path / "run.json").read_text()).workload.description
    assert said.endswith("a turn's prompt is all that was said before and the turn, line by line")


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


def compared(a: str, b: str, out: Path, *options: str) -> Comparison:
    """compare.json of two targets."""
    done = bench("compare", a, b, *options, "--out", out)
    assert (out / "compare.json").is_file(), done.stderr
    return Comparison.model_validate_json((out / "compare.json").read_text())


def by_name(record: Comparison) -> dict[str, MetricComparison]:
    """Its metrics."""
    return {metric.metric: metric for metric in record.metrics}


def red_names(record: Comparison) -> set[str]:
    """Its red checks, of either arm."""
    red = (check.name for check in record.validity.checks if check.status == "red")
    return {name.partition(" ")[0] for name in red}


def test_slowed_server_is_called_slower(tiny_server: Server, tmp_path: Path) -> None:
    """
    5 ms more for each token is called slower, by what `compare` does if nothing else is asked.

    Blocks in which something else ran on this machine are no measurement, and are tried again. If
    all attempts are disturbed, the metrics are called slower all the same, and the next test has
    the verdict: request by request no machine is too busy for it.
    """
    # So much that a machine that stands still for a second or two does not hide it.
    options = ["--concurrency", "1", "--requests", "5", "--warm-up", "1", "--input", "16",
               "--output", "32", "--quality", "--quality-prompts", "3"]  # fmt: skip
    with slowed(tiny_server.base_url, SLOWED_S) as slow:
        for attempt in range(ATTEMPTS):
            out = tmp_path / str(attempt)
            record = compared(slow, tiny_server.base_url, out, *options)
            if not red_names(record):
                break

    assert red_names(record) <= DISTURBANCES
    assert record.verdict == ("invalid" if red_names(record) else "slower"), record.message
    found = by_name(record)
    assert found["output_tps"].verdict == found["tpot_p50_s"].verdict == "slower"
    assert found["output_tps"].ci_high < 1 < found["tpot_p50_s"].ci_low
    assert record.quality is not None
    assert record.quality.same


def test_slowed_server_is_called_slower_request_by_request(
    tiny_server: Server, tmp_path: Path
) -> None:
    """5 ms more for each token is called slower, whatever else this machine does meanwhile."""
    options = ["--ping-pong", "--requests", "16", "--warm-up", "2", "--input", "16"]
    with slowed(tiny_server.base_url, SLOWED_S) as slow:
        record = compared(slow, tiny_server.base_url, tmp_path, *options, "--output", "32")

    assert record.verdict == "slower", record.message
    tpot = by_name(record)["tpot_s"]
    assert (tpot.verdict, len(tpot.pairs)) == ("slower", 16)
    assert tpot.ci_low > 1


def test_server_against_itself_is_not_called_different(tiny_server: Server, tmp_path: Path) -> None:
    """A/A is neither faster nor slower, whatever the noise."""
    url = tiny_server.base_url
    record = compared(url, url, tmp_path, *CELL, "--output", "32", *PAIRS)
    primary = [metric for metric in record.metrics if metric.primary]

    assert record.verdict not in ("faster", "slower")
    assert {metric.verdict for metric in primary} <= {"equivalent", "inconclusive"}
