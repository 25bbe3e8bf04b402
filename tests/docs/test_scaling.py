"""docs/scaling.md: its figures are those of `gemma-serve plan`, and nginx reads its upstream."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from functools import cache
from pathlib import Path

import pytest

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.plan import plan_size
from gemma_serve.profile.load import load_profile
from gemma_serve.sizing.report import Report, report_of
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "scaling.md"
REPLICAS = ROOT / "deploy" / "replicas"
TEXT = PAGE.read_text(encoding="utf-8")
INPUT_TOKENS, OUTPUT_TOKENS = 2000, 500
REPLICA = re.compile(r"^\| `(\S+)` \| (\d+) \| (.+) \|$", re.MULTILINE)
FLEET = re.compile(r"^\| ([\d,]+) \| ([\d,. |]+) \|$", re.MULTILINE)
ROUNDED = 0.01  # the page has three digits


@cache
def report(profile: str, gpus: int) -> Report:
    """The plan of a replica of so many H100."""
    vllm = installed_vllm(cache_dir())
    assert vllm is not None
    overrides = [f"tensor_parallel_size={gpus}"]
    loaded = load_profile(profile, overrides, engine_fields=vllm.fields)
    return report_of(plan_size(loaded, "h100", str), INPUT_TOKENS, OUTPUT_TOKENS)


def replica(profile: str, gpus: int) -> list[float]:
    """A row of the page: weights, requests at a time, decode, prefill, requests/s."""
    found = report(profile, gpus)
    roofline = found.roofline
    assert roofline is not None
    [decode] = [p.tokens_per_s for p in roofline.decode if p.batch == found.concurrency]
    prefill = roofline.prefill_tokens_per_s
    requests_per_s = 1 / (INPUT_TOKENS / prefill + OUTPUT_TOKENS / decode)
    weights_gib = found.sizing.weights.device_bytes / 2**30
    return [weights_gib, found.concurrency, decode, prefill, requests_per_s]


def numbers(cells: str) -> list[float]:
    """The numbers of a row."""
    return [float(cell.replace(",", "")) for cell in cells.split("|")]


@pytest.mark.parametrize(("profile", "gpus", "cells"), REPLICA.findall(TEXT))
def test_a_replica_is_as_planned(profile: str, gpus: str, cells: str) -> None:
    """Each row of the first table is what the plan says today."""
    assert numbers(cells) == pytest.approx(replica(profile, int(gpus)), rel=ROUNDED)


def test_fleets_are_replicas_times_their_number() -> None:
    """The second table is the first one, multiplied."""
    small, large = replica("gemma-3-27b-it-fp8", 1), replica("gemma-4-31B-it", 2)
    rows = FLEET.findall(TEXT)

    assert [gpus for gpus, _ in rows] == ["1", "8", "64", "1,000"]
    for gpus, cells in rows:
        count = int(gpus.replace(",", ""))
        expected = [
            figure
            for replicas, of in ((count, small), (count // 2, large))
            for figure in (replicas, replicas * of[1], replicas * of[4])
        ]
        assert numbers(cells) == pytest.approx(expected, rel=ROUNDED)


def test_the_large_model_needs_two() -> None:
    """The page gives it none on one GPU."""
    assert report("gemma-4-31B-it", 1).unfit


def test_nginx_reads_the_upstream(tmp_path: Path) -> None:
    """What the page shows is a configuration, and stands so in deploy/replicas."""
    [upstream] = [block.text for block in blocks(PAGE) if block.language == "nginx"]
    http = (REPLICAS / "nginx.conf").read_text()
    assert textwrap.indent(upstream, " " * 4) in http
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    shutil.copy(REPLICAS / "replicas.conf", tmp_path)
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{upstream}}}\n"
    )
    done = subprocess.run(
        ["nginx", "-t", "-e", "stderr", "-c", str(file), "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
