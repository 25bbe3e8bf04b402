"""
`judge` as it is typed, against real vLLM: our client and vLLM's own, `bench serve`, in turns.

guidellm is not run by tests: its environment takes minutes to install. Its result file and its
definitions are held in judge/test_guidellm.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema

from benchmarks.judge import exit_code
from benchmarks.records import Judgement, Run
from tests.servers import Server

# The first time pandas is installed for it.
BOUND_S = 500
REQUESTS, TOKENS = 8, 16


def test_vllms_own_client_judges_ours(tiny_server: Server, tmp_path: Path) -> None:
    """Both send the same requests and count the same tokens; the record says how far they agree."""
    words = ["judge", tiny_server.base_url, "--tools", "vllm", "--repeats", "1",
             "--concurrency", "2", "--requests", str(REQUESTS), "--input", "16",
             "--output", str(TOKENS), "--out", str(tmp_path)]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert (tmp_path / "judge.json").is_file(), done.stderr
    said = json.loads((tmp_path / "judge.json").read_text())
    record = Judgement.model_validate(said)
    rows = {row.metric: row for row in record.rows}

    jsonschema.validate(said, Judgement.model_json_schema(by_alias=True))
    assert said["schema"] == "gemma-bench-judge/2"
    assert list(record.tools) == ["vllm bench serve"]
    # All tokens of all requests, by both.
    (tokens,) = rows["output_tokens"].pairs
    assert tokens.ours == tokens.theirs == REQUESTS * TOKENS
    # One pair has no interval, and every figure is there of both.
    assert all(min(row.ours, row.theirs) > 0 and row.ci_low is None for row in record.rows)
    assert_same_work(tmp_path)
    # The validity of our own runs first, then the table; the exit code is the verdict's.
    assert done.stdout.startswith(record.validity.verdict)
    for row in record.rows:
        assert f"{row.metric} " in done.stdout
        assert f"{row.ratio:.3f}" in done.stdout
    assert done.returncode == exit_code(record), done.stderr


def assert_same_work(directory: Path) -> None:
    """What vLLM's client saved is of as many requests, as long, and none failed, as in ours."""
    theirs = json.loads((directory / "vllm_bench-judge-1.json").read_text())
    ours = Run.model_validate_json((directory / "ours-1" / "run.json").read_text())

    assert (theirs["completed"], theirs["failed"]) == (REQUESTS, 0)
    assert theirs["output_lens"] == [TOKENS] * REQUESTS
    assert (ours.metrics.full_run.num_ok, ours.metrics.full_run.num_failed) == (REQUESTS, 0)
    assert ours.workload.num_warm_up == 0
