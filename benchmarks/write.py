"""Writes sweep.json and compare.json, and finds a directory for results without a name."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cell import Prepared
from benchmarks.machine import without_paths
from benchmarks.records import Comparison, Load, Run, Sweep, SweepPoint
from benchmarks.sweep import Swept


def default_directory(kind: str) -> Path:
    """benchmarks/runs/<UTC time>-<kind>, which git does not see."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    return Path("benchmarks", "runs", f"{now}-{kind}")


def write_sweep(
    swept: Swept, server: Prepared, directories: Mapping[str, str], directory: Path
) -> Sweep:
    """sweep.json; the cells are in their own directories below."""
    record = Sweep(
        target=server.target,
        points=[_point(load, run, directories[load.label()]) for load, run in swept.runs],
        how=swept.how,
        knee=swept.knee,
        best_under_slo=swept.best_under_slo,
        slo=server.slo,
        verdict=swept.verdict,
        message=swept.message,
    )
    directory.mkdir(parents=True, exist_ok=True)
    text = without_paths(record.model_dump_json(by_alias=True, indent=1))
    (directory / "sweep.json").write_text(text + "\n")
    return record


def _point(load: Load, run: Run, directory: str) -> SweepPoint:
    full = run.metrics.full_run
    window = run.metrics.steady or full
    ttft, tpot = (full.distributions.get(name) for name in ("ttft_s", "tpot_s"))
    return SweepPoint(
        load=load,
        directory=directory,
        verdict=run.validity.verdict,
        output_tps=window.output_tps,
        rps=window.rps,
        ttft_p50_s=ttft.p50 if ttft else None,
        ttft_p95_s=ttft.p95 if ttft else None,
        tpot_p50_s=tpot.p50 if tpot else None,
        tpot_p95_s=tpot.p95 if tpot else None,
        goodput_rps=full.goodput.goodput_rps if full.goodput else None,
        attainment=full.goodput.attainment if full.goodput else None,
    )


def write_comparison(record: Comparison, directory: Path) -> None:
    """compare.json."""
    directory.mkdir(parents=True, exist_ok=True)
    text = without_paths(record.model_dump_json(by_alias=True, indent=1))
    (directory / "compare.json").write_text(text + "\n")
