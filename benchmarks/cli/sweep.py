"""`sweep`: one load after another."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks.cell import Prepared, run_cell, write_cell
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
    Option,
    OutputOptions,
    ServerOptions,
    WorkloadOptions,
    numbers,
    refuse,
    takes,
)
from benchmarks.records import Load, Run
from benchmarks.serving import check_asked, serving
from benchmarks.show import console, out, print_run, print_sweep, progress
from benchmarks.sweep import Swept, sweep_for_goodput, sweep_list, sweep_to_knee
from benchmarks.write import write_sweep


@takes(workload=WorkloadOptions, load=LoadOptions, server=ServerOptions, output=OutputOptions)
def sweep(
    workload: WorkloadOptions,
    load: LoadOptions,
    server: ServerOptions,
    output: OutputOptions,
    target: TargetArgument = DEFAULT_TARGET,
    levels: Annotated[
        str | None, Option(help="A list of concurrencies, or of rates with --open: 1,2,4,8.")
    ] = None,
    knee: Annotated[
        bool, Option("--knee", help="Double the load until it gives no more tokens/s.")
    ] = False,
    goodput: Annotated[
        bool, Option("--goodput", help="Search the highest load that keeps the SLO.")
    ] = False,
    open_: Annotated[
        bool, Option("--open", help="Levels are requests a second, not clients.")
    ] = False,
    attainment: Annotated[
        float | None,
        Option(min=0, max=1, help="Part of the requests that has to keep the SLO. Default 0.9."),
    ] = None,
) -> None:
    """
    Measure one load after another. Exit code 3 if a cell is INVALID.

    A search (--knee, --goodput) goes beyond what the server can take: what is INVALID there for
    that alone does not count, and what it finds is a VALID cell.
    Example: python -m benchmarks sweep --levels 1,2,4,8 --input 128 --output 64
    """
    chosen = [bool(levels), knee, goodput]
    if sum(chosen) != 1:
        raise ValueError("give one of --levels 1,2,4, --knee and --goodput")
    load.check_sweep(open_loop=open_, by_list=levels is not None)
    if not goodput:
        refuse({"--attainment": attainment}, "only the search of --goodput asks for it")
    load_at = load.at_rate if open_ else load.at_concurrency
    listed = numbers("--levels", levels, "1,2,4,8", whole=not open_) if levels else []
    directory = results_directory(output, "sweep")
    start = load.rate or load.concurrency or 1
    settings = server.settings(workload.seed)
    first = workload.materialise(load.clients())
    check_asked(target, settings, first, load_at(start))

    async def sweep_all() -> tuple[Swept, Prepared, dict[str, str]]:
        directories: dict[str, str] = {}
        async with serving(target, settings) as served:
            prepared = await served.prepared(first)
            if goodput and prepared.slo is None:
                raise ValueError("--goodput needs an SLO; give --slo ttft_ms=200,tpot_ms=50")

            async def measure(at: Load) -> Run:
                clients = at.concurrency or max(8, int(at.rate_rps or 0) * 4)
                # Another seed a cell: no cell finds the prompts of the one before in a cache.
                made = workload.materialise(clients, workload.seed + len(directories))
                with progress(at.label()) as on_progress:
                    result = await run_cell(prepared, made, at, settings, on_progress=on_progress)
                name = at.label().replace("/", "-").replace("=", "")
                directories[at.label()] = name
                write_cell(result, directory / name)
                # With --json the record alone is on stdout.
                shown_on = console if output.as_json else out
                print_run(result.run, directory / name, brief=True, to=shown_on)
                return result.run

            if levels:
                swept = await sweep_list(measure, [load_at(level) for level in listed])
            elif knee:
                swept = await sweep_to_knee(measure, load_at, start)
            else:
                swept = await sweep_for_goodput(
                    measure,
                    load_at,
                    start,
                    attainment=0.9 if attainment is None else attainment,
                    whole=not open_,
                )
        return swept, prepared, directories

    swept, prepared, directories = to_its_end(sweep_all())
    record = write_sweep(swept, prepared, directories, directory)
    finish(directory, output)
    print_sweep(record, directory, as_json=output.as_json)
    raise typer.Exit(0 if swept.verdict == "VALID" else INVALID)
