"""What the tests of the search share: recorded comparisons, and profiles resolved for a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gemma_serve.engine.args import resolve
from gemma_serve.engine.platform import Platform, simulated
from gemma_serve.gemma.checkpoint import read_checkpoint
from gemma_serve.plan import Plan
from gemma_serve.tune.outcome import Compared, read_comparison
from tests.engine.derive import FIELDS, load

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "2026-11-25"
# Two servers of the 270M, as the harness measured and judged them.
FASTER = "vllm-c32"
INCONCLUSIVE = "fp8kv-c8"
OTHER_ANSWERS = "fp8kv-c8-questions"
SLOWER = "triton-generate-c32"
EQUIVALENT = "vllm-c8"
INVALID = "tiny-c64"
TRADE = "llama-c8"  # 3.39 times the tokens/s, 2.70 times the TPOT


def recorded(name: str) -> Compared:
    """A comparison from benchmarks/results."""
    return read_comparison(RESULTS / f"{name}.json")


def recorded_with_slo(directory: Path, name: str, a: tuple[int, int], b: tuple[int, int]) -> Path:
    """
    A recorded comparison beside run.json files that say how many requests kept an SLO.

    Those of the recorded runs were not kept, and had no SLO.
    """
    record = json.loads((RESULTS / f"{name}.json").read_text())
    for pair in record["metrics"][0]["pairs"]:
        for block, (good, counted) in ((pair["a_directory"], a), (pair["b_directory"], b)):
            goodput = {"num_good": good, "num_counted": counted}
            run = {"metrics": {"full_run": {"goodput": goodput}}}
            (directory / block).mkdir(parents=True)
            (directory / block / "run.json").write_text(json.dumps(run))
    file = directory / "compare.json"
    file.write_text(json.dumps(record))
    return file


def plan_of(directory: Path, platform: Platform | str, **keys: Any) -> Plan:
    """A profile with these keys, resolved for a machine that need not be this one."""
    loaded = load(directory, **keys)
    machine = simulated(platform) if isinstance(platform, str) else platform
    checkpoint = read_checkpoint(loaded.profile.model, download=False)
    resolved = resolve(loaded, checkpoint, machine, FIELDS)
    return Plan(loaded, checkpoint, machine, resolved, "0.32.0")
