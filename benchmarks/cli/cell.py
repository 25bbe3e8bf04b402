"""`run` and `replay`: one cell."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.cell import CellResult, Settings, run_cell, write_cell
from benchmarks.cli.common import (
    DEFAULT_TARGET,
    INVALID,
    TargetArgument,
    finish,
    results_directory,
    to_its_end,
)
from benchmarks.options import (
    LoadOptions,
    OutputOptions,
    ReplayOptions,
    ServerOptions,
    WorkloadOptions,
    takes,
)
from benchmarks.records import Load
from benchmarks.serving import check_asked, serving
from benchmarks.show import print_run, progress
from benchmarks.workload import Workload


@takes(workload=WorkloadOptions, load=LoadOptions, server=ServerOptions, output=OutputOptions)
def run(
    workload: WorkloadOptions,
    load: LoadOptions,
    server: ServerOptions,
    output: OutputOptions,
    target: TargetArgument = DEFAULT_TARGET,
) -> None:
    """
    Measure one cell: one workload, one load. Exit code 3 if the run is INVALID.

    Example: python -m benchmarks run --concurrency 8 --input 128 --output 64
    """
    offered, settings = load.load(), server.settings(workload.seed)

    def make() -> Workload:
        return workload.materialise(load.clients())

    _one_cell("run", lambda: _measure_one(target, make, offered, settings), output)


@takes(options=ReplayOptions, server=ServerOptions, output=OutputOptions)
def replay(
    options: ReplayOptions,
    server: ServerOptions,
    output: OutputOptions,
    flight: Annotated[
        Path,
        typer.Argument(
            metavar="FLIGHT_FILE", help="What observability.flight_recorder of a server wrote."
        ),
    ],
    target: TargetArgument = DEFAULT_TARGET,
) -> None:
    """
    Play recorded requests against a server: their times, lengths and shared beginnings.

    The record has no text, so that random tokens stand for it. Files and exit codes are those of
    run. Example: python -m benchmarks replay flight.jsonl http://127.0.0.1:8000 --speed 2
    """
    settings = server.settings(options.seed)

    def make() -> Workload:
        return options.materialise(flight)

    _one_cell("replay", lambda: _measure_one(target, make, options.load(), settings), output)


def _one_cell(
    command: str, measure: Callable[[], Coroutine[Any, Any, CellResult]], output: OutputOptions
) -> None:
    directory = results_directory(output, command)
    result: CellResult = to_its_end(measure())
    write_cell(result, directory)
    finish(directory, output)
    print_run(result.run, directory, as_json=output.as_json)
    raise typer.Exit(0 if result.run.validity.verdict == "VALID" else INVALID)


async def _measure_one(
    target: str, make: Callable[[], Workload], offered: Load, settings: Settings
) -> CellResult:
    made = make()
    check_asked(target, settings, made, offered)
    async with serving(target, settings) as served:
        prepared = await served.prepared(made)
        with progress(offered.label()) as on_progress:
            return await run_cell(prepared, made, offered, settings, on_progress=on_progress)
