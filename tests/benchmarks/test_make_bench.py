"""`make bench`: from the embedded model to a verdict, as a newcomer types it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.records import Run

ROOT = Path(__file__).parents[2]
MAKE = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS", "PROFILE"}
BOUND_S = 500


@pytest.mark.engine
def test_make_bench_opens_with_the_verdict(
    engine_slot: contextlib.ExitStack, tmp_path: Path
) -> None:
    """It starts Gemma 3 270M, measures it, and prints the validity first."""
    engine_slot.close()
    options = f"ARGS=--concurrency 2 --requests 6 --warm-up 2 --out {tmp_path}"
    environ = {name: value for name, value in os.environ.items() if name not in MAKE}
    done = subprocess.run(
        ["make", "--no-print-directory", "bench", options],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    run = Run.model_validate_json((tmp_path / "run.json").read_text())

    # What the set-up has to say, where it has something to do, comes before the benchmark.
    before, verdict, _ = re.split(r"^((?:IN)?VALID): ", done.stdout, maxsplit=1, flags=re.MULTILINE)
    assert verdict == run.validity.verdict
    assert "tokens/s" not in before
    assert (done.returncode == 0) == (run.validity.verdict == "VALID")
    # The engine's own tokens, all that were asked for.
    assert (run.metrics.full_run.num_ok, run.metrics.full_run.output_tokens) == (6, 6 * 32)
    assert run.token_source == "token_ids"
    assert run.server is not None
    assert run.server.api_rss_mib is not None
