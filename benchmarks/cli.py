"""The commands of `python -m benchmarks`; each asks, calls one thing, shows it and writes it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from benchmarks.cell import CellResult, Prepared, Settings, prepare, run_cell, write_cell
from benchmarks.load.calibrate import Calibration
from benchmarks.options import (
    LoadOptions,
    Option,
    OutputOptions,
    ReplayOptions,
    ServerOptions,
    WorkloadOptions,
    numbers,
    refuse,
    takes,
)
from benchmarks.records import Comparison, Judgement, Load, Model, Run, Sweep
from benchmarks.servers import ServerError
from benchmarks.serving import check_asked, serving
from benchmarks.show import (
    console,
    out,
    print_calibration,
    print_run,
    print_sweep,
    print_validity,
    progress,
)
from benchmarks.sweep import Swept, sweep_for_goodput, sweep_list, sweep_to_knee
from benchmarks.workload import Workload
from benchmarks.write import default_directory, write_comparison, write_sweep

app = typer.Typer(
    help="Measure tokens per second of any server of OpenAI's API or KServe v2, or say why it "
    "cannot be told.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
DEFAULT_TARGET = "http://127.0.0.1:8000"
TargetArgument = Annotated[
    str,
    typer.Argument(
        help="http://host:port, profile:NAME, vllm:NAME, transformers:NAME or llama-cpp:FILE; "
        "all but the first are started and ended here. ,protocol=... behind it is for it alone."
    ),
]
# Exit codes. 1 (slower, off) and 2 (inconclusive) are verdicts of `compare` and `judge`: what came
# to no verdict has codes of its own, EX_USAGE and EX_SOFTWARE of sysexits.h.
INVALID = 3
FAILED = 64
CRASHED = 70
INTERRUPTED = 130


@app.command()
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


@app.command()
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
    directory = _directory(output, command)
    result: CellResult = _run(measure())
    write_cell(result, directory)
    _finish(directory, output)
    print_run(result.run, directory, as_json=output.as_json)
    raise typer.Exit(0 if result.run.validity.verdict == "VALID" else INVALID)


async def _measure_one(
    target: str, make: Callable[[], Workload], offered: Load, settings: Settings
) -> CellResult:
    made = make()
    check_asked(target, settings, made, offered)
    async with serving(target, settings) as served:
        prepared = await prepare(
            served.endpoint, made, served.settings, label=served.label, meter=served.meter
        )
        with progress(offered.label()) as on_progress:
            return await run_cell(prepared, made, offered, settings, on_progress=on_progress)


@app.command()
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
    directory = _directory(output, "sweep")
    start = load.rate or load.concurrency or 1
    settings = server.settings(workload.seed)
    first = workload.materialise(load.clients())
    check_asked(target, settings, first, load_at(start))

    async def sweep_all() -> tuple[Swept, Prepared, dict[str, str]]:
        directories: dict[str, str] = {}
        async with serving(target, settings) as served:
            prepared = await prepare(
                served.endpoint, first, served.settings, label=served.label, meter=served.meter
            )
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

    swept, prepared, directories = _run(sweep_all())
    record = write_sweep(swept, prepared, directories, directory)
    _finish(directory, output)
    print_sweep(record, directory, as_json=output.as_json)
    raise typer.Exit(0 if swept.verdict == "VALID" else INVALID)


@app.command()
@takes(workload=WorkloadOptions, load=LoadOptions, server=ServerOptions, output=OutputOptions)
def compare(
    workload: WorkloadOptions,
    load: LoadOptions,
    server: ServerOptions,
    output: OutputOptions,
    a: Annotated[str, typer.Argument(help="A: a target, as for run.")],
    b: Annotated[str, typer.Argument(help="B: what A is held against.")],
    looks: Annotated[
        str | None,
        Option(
            help="After how many pairs to look for a verdict; the last ends it. Default 10,12,16."
        ),
    ] = None,
    aa_pairs: Annotated[
        int | None,
        Option(
            min=0,
            help="Pairs of A against itself, first: the noise floor. Default 6; with --ping-pong "
            "one for each request.",
        ),
    ] = None,
    margin: Annotated[float, Option(help="Less than this is equivalent: 0.03 is 3 %.")] = 0.03,
    alpha: Annotated[
        float, Option(min=0, max=0.5, help="Chance of a false claim, over all looks.")
    ] = 0.05,
    quality: Annotated[
        bool, Option("--quality", help="Compare the greedy answers too; tag a speed claim.")
    ] = False,
    quality_file: Annotated[
        Path | None, Option(help="Prompts for --quality. Default: 48 questions of ours.")
    ] = None,
    quality_prompts: Annotated[
        int | None, Option(min=1, help="How many of them. Default 48.")
    ] = None,
    ping_pong: Annotated[
        bool,
        Option("--ping-pong", help="Latency of single requests in turns, instead of blocks."),
    ] = False,
) -> None:
    """
    Say whether A is faster than B, in interleaved pairs.

    Exit code 0 equivalent or faster, 1 slower, 2 inconclusive, 3 invalid; 64 is a mistake.
    Example: python -m benchmarks compare profile:gemma-3-270m vllm:gemma-3-270m --concurrency 8
    """
    from benchmarks.compare.quality import QUALITY_PROMPTS, QUALITY_TOKENS
    from benchmarks.compare.statistics import LOOKS
    from benchmarks.compare.table import print_comparison
    from benchmarks.compare.verdict import exit_code
    from benchmarks.comparing import Asked, compare_targets

    if not quality:
        given = {"--quality-file": quality_file, "--quality-prompts": quality_prompts}
        refuse(given, "greedy answers are compared only with --quality", "give that too")
    if ping_pong:
        _check_one_at_a_time(load, looks)
    directory = _directory(output, "compare")

    def questions(seed: int) -> Workload:
        # Prompts of random words would only be copied: that agrees however bad the model is.
        options = WorkloadOptions(
            workload=str(quality_file or QUALITY_PROMPTS),
            output=str(QUALITY_TOKENS),
            requests=quality_prompts or 48,
            warm_up=0,
        )
        return options.materialise(1, seed)

    asked = Asked(
        targets=(a, b),
        materialise=lambda seed: workload.materialise(load.clients(), seed),
        load=load.load(),
        settings=server.settings(workload.seed),
        directory=directory,
        looks=tuple(map(int, numbers("--looks", looks, "10,12,16"))) if looks else LOOKS,
        aa_pairs=aa_pairs,
        margin=margin,
        alpha=alpha,
        quality=questions if quality else None,
        ping_pong=ping_pong,
    )
    record = _run(compare_targets(asked))
    write_comparison(record, directory)
    _finish(directory, output)
    if output.as_json:
        print(record.model_dump_json(by_alias=True))
    else:
        print_comparison(record, out)
        console.print(f"files: {directory}")
    raise typer.Exit(exit_code(record))


def _check_one_at_a_time(load: LoadOptions, looks: str | None) -> None:
    """Of compare --ping-pong, which has a load and a look of its own."""
    refuse(
        {
            "--concurrency": load.concurrency,
            "--rate": load.rate,
            "--arrivals": load.arrivals,
            "--max-concurrency": load.max_concurrency,
        },
        "--ping-pong sends one request at a time",
    )
    refuse({"--looks": looks}, "--ping-pong looks once, after one pair for each request")


@app.command()
@takes(workload=WorkloadOptions, load=LoadOptions, server=ServerOptions, output=OutputOptions)
def judge(
    workload: WorkloadOptions,
    load: LoadOptions,
    server: ServerOptions,
    output: OutputOptions,
    target: TargetArgument = DEFAULT_TARGET,
    tools: Annotated[str, Option(help="Which judges.")] = "vllm,guidellm",
    repeats: Annotated[
        int,
        Option(
            min=1,
            help="Pairs of ours and theirs, in turns. One has no interval: it can show that they "
            "are off, and not that they agree.",
        ),
    ] = 3,
) -> None:
    """
    Replay the same requests through tools that others wrote, and print our figures over theirs.

    They are installed on first use, each in a virtual environment of its own. Exit code 1 where a
    metric is off by more than 5 %, interval and all: a failure to explain; 3 where our own runs are
    INVALID.
    Example: python -m benchmarks judge --concurrency 8 --requests 64
    """
    from benchmarks.judge import exit_code, table
    from benchmarks.judging import asked_of, judge_target

    directory = _directory(output, "judge")
    named = [name.strip() for name in tools.split(",")]
    asked = asked_of(target, workload, load, server, named, repeats, directory)
    judgement: Judgement = _run(judge_target(asked))
    _finish(directory, output)
    if output.as_json:
        print(judgement.model_dump_json(by_alias=True))
    else:
        print_validity(judgement.validity)
        out.print(table(judgement))
        console.print(f"files: {directory}")
    raise typer.Exit(exit_code(judgement))


@app.command()
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


@app.command()
def calibrate(
    concurrency: Annotated[str, Option(help="Concurrencies to try.")] = "1,8,32,64,128",
    ttft_ms: Annotated[float, Option(min=0, help="The null server's time to first token.")] = 20,
    itl_ms: Annotated[float, Option(min=0, help="Its time between tokens.")] = 5,
    as_json: Annotated[bool, Option("--json", help="Print as JSON.")] = False,
) -> None:
    """
    Measure the client itself: its ceiling in tokens/s, and its error against known times.

    Example: python -m benchmarks calibrate --concurrency 1,32,128
    """
    from benchmarks.load.calibrate import calibrate as calibrate_client
    from benchmarks.load.null_server import Pace

    clients = [int(number) for number in numbers("--concurrency", concurrency, "1,32,128")]
    pace = Pace(ttft_ms / 1e3, itl_ms / 1e3)
    with progress("null server") as on_progress:
        found: list[Calibration] = _run(calibrate_client(clients, pace, on_progress))
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    else:
        print_calibration(found)


@app.command()
def nullserver(
    host: Annotated[str, Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 is any free one.")] = 9000,
    ttft_ms: Annotated[float, Option(min=0, help="Time to first token.")] = 20,
    itl_ms: Annotated[float, Option(min=0, help="Time between tokens.")] = 5,
    chunk_tokens: Annotated[int, Option(min=1, help="Tokens an event.")] = 1,
) -> None:
    """
    Serve paced events without a model, to find out what a client can do.

    Example: python -m benchmarks nullserver --port 9000 --itl-ms 5
    """
    from benchmarks.load.null_server import Pace, serve_null

    pace = Pace(ttft_ms / 1e3, itl_ms / 1e3, chunk_tokens)
    with contextlib.suppress(KeyboardInterrupt):
        serve_null(pace, host, port, lambda url: print(f"Null server at {url}", flush=True))


@app.command()
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


@app.command()
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


def _directory(output: OutputOptions, command: str) -> Path:
    """Where the results go; not after a measurement is it found to be no place for them."""
    directory = output.out or default_directory(command)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"--out {directory} is a file; give a directory, or a name that is free")
    return directory


def _finish(directory: Path, output: OutputOptions) -> None:
    if output.report:
        from benchmarks.report import write_report

        write_report([directory], directory / "report.html")
        console.print(f"Report: {directory / 'report.html'}")


class Interrupted(Exception):  # noqa: N818  # no error, and typer has its own word for Ctrl-C
    """Ctrl-C, after everything was ended."""


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return uvloop.run(work)
    except (KeyboardInterrupt, asyncio.CancelledError) as end:
        raise Interrupted from end


def main() -> None:
    """
    Run a command and exit.

    A mistake, or a server that can't be had, is one clear line and code 64; a fault of the
    harness's own is a traceback and 70. Neither is a code that a verdict has.
    """
    try:
        # Not standalone: there typer itself would exit, with 2 for an option that is none.
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # typer's own click has it
        code = FAILED
    except (ServerError, ValueError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        code = FAILED
    except Interrupted:
        print("benchmarks: interrupted; nothing is left running.", file=sys.stderr)
        code = INTERRUPTED
    except SystemExit:
        code = FAILED  # typer's, of a pipe that nobody reads: it would be 1
    except Exception:
        traceback.print_exc()
        code = CRASHED
    sys.exit(code)
