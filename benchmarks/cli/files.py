"""`report`, `workload` and `schema`: files, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.options import Option, WorkloadOptions, takes
from benchmarks.records import Comparison, Judgement, Model, Run, Sweep
from benchmarks.show import console


def report(
    paths: Annotated[list[Path], typer.Argument(help="Directories of runs, sweeps, comparisons.")],
    file: Annotated[Path, Option("--file", "-o", help="Where to write it.")] = Path("report.html"),
) -> None:
    """
    Draw results as one HTML file that needs no network.

    Example: python -m benchmarks report benchmarks/runs/20261125T120000Z-sweep -o report.html
    """
    from benchmarks.report import write_report

    write_report(paths, file)
    console.print(f"Report: {file}")


@takes(options=WorkloadOptions)
def workload(
    options: WorkloadOptions,
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("workload.jsonl"),
    concurrency: Annotated[int, Option(min=1, help="What the default counts go by.")] = 8,
) -> None:
    """
    Write a workload without sending it; --workload FILE replays the same bytes.

    Example: python -m benchmarks workload chat.jsonl --input 64-256 --output 64
    """
    from benchmarks.workload import write_workload

    made = options.materialise(concurrency)
    digest = write_workload(made, file)
    print(f"{file}: {made.description}\nsha256 {digest}")


def schema(
    kind: Annotated[str, typer.Argument(help="run, sweep, compare or judge.")] = "run",
) -> None:
    """
    Print the JSON Schema of a record.

    Example: python -m benchmarks schema run
    """
    models: dict[str, type[Model]] = {
        "run": Run,
        "sweep": Sweep,
        "compare": Comparison,
        "judge": Judgement,
    }
    if kind not in models:
        raise ValueError(f"schema {kind} is unknown; use {', '.join(models)}")
    print(json.dumps(models[kind].model_json_schema(by_alias=True), indent=1))
