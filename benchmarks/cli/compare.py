"""`compare`: is A faster than B?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cli.common import finish, results_directory, to_its_end
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
from benchmarks.show import console, out
from benchmarks.workload import Workload
from benchmarks.write import write_comparison


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
    starts: Annotated[
        int | None,
        Option(
            min=1,
            help="How often both servers are started, the pairs spread over the starts: shows what "
            "the luck of one start is worth. Default 1.",
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
        _check_one_at_a_time(load, looks, starts)
    directory = results_directory(output, "compare")

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
        starts=starts or 1,
        margin=margin,
        alpha=alpha,
        quality=questions if quality else None,
        ping_pong=ping_pong,
    )
    record = to_its_end(compare_targets(asked))
    write_comparison(record, directory)
    finish(directory, output)
    if output.as_json:
        print(record.model_dump_json(by_alias=True))
    else:
        print_comparison(record, out)
        console.print(f"files: {directory}")
    raise typer.Exit(exit_code(record))


def _check_one_at_a_time(load: LoadOptions, looks: str | None, starts: int | None) -> None:
    """Of compare --ping-pong, which has a load and a look of its own."""
    refuse(
        {
            "--concurrency": load.concurrency,
            "--rate": load.rate,
            "--arrivals": load.arrivals,
            "--max-concurrency": load.max_concurrency,
            "--ramp-s": load.ramp_s,
        },
        "--ping-pong sends one request at a time",
    )
    refuse({"--looks": looks}, "--ping-pong looks once, after one pair for each request")
    refuse({"--starts": starts}, "--ping-pong sends all its requests to one start of each server")
