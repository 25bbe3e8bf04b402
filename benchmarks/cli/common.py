"""What the commands have in common: their target, where results go, exit codes, Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from benchmarks.options import OutputOptions
from benchmarks.show import console
from benchmarks.write import default_directory

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


def results_directory(output: OutputOptions, command: str) -> Path:
    """Where the results go; not after a measurement is it found to be no place for them."""
    directory = output.out or default_directory(command)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"--out {directory} is a file; give a directory, or a name that is free")
    return directory


def finish(directory: Path, output: OutputOptions) -> None:
    """Write the report beside the results, where one was asked for."""
    if output.report:
        from benchmarks.report import write_report

        write_report([directory], directory / "report.html")
        console.print(f"Report: {directory / 'report.html'}")


class Interrupted(Exception):  # noqa: N818  # no error, and typer has its own word for Ctrl-C
    """Ctrl-C, after everything was ended."""


def to_its_end(work: Coroutine[Any, Any, Any]) -> Any:
    """
    Run it on an event loop of its own.

    Raises:
        Interrupted: by Ctrl-C, after everything was ended.
    """
    try:
        return uvloop.run(work)
    except (KeyboardInterrupt, asyncio.CancelledError) as end:
        raise Interrupted from end
