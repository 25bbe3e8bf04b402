"""`judge`: do other people's tools get the same figures?"""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks.cli.common import (
    DEFAULT_TARGET,
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
    takes,
)
from benchmarks.records import Judgement
from benchmarks.show import console, out, print_validity


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

    directory = results_directory(output, "judge")
    named = [name.strip() for name in tools.split(",")]
    asked = asked_of(target, workload, load, server, named, repeats, directory)
    judgement: Judgement = to_its_end(judge_target(asked))
    finish(directory, output)
    if output.as_json:
        print(judgement.model_dump_json(by_alias=True))
    else:
        print_validity(judgement.validity)
        out.print(table(judgement))
        console.print(f"files: {directory}")
    raise typer.Exit(exit_code(judgement))
