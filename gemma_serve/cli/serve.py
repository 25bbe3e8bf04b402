"""Commands that take a profile as it is: serve it, or show what it comes to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gemma_serve import __version__
from gemma_serve.cli.options import (
    DEFAULT_PROFILE,
    JsonOption,
    ProfileArgument,
    SetOption,
    load,
    progress,
)

PANEL = "Serve a profile"
GpuOption = Annotated[
    str | None,
    typer.Option(
        help="As if on h100, h200, a100-40, a100-80, l4, b200 or none (CPU) instead of here."
    ),
]
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def serve(profile: ProfileArgument = DEFAULT_PROFILE, set_: SetOption = None) -> None:
    """
    Serve a profile until Ctrl-C.

    Example: gemma-serve serve gemma-3-270m --set server.port=9000
    """
    from gemma_serve import follower, launcher

    loaded = load(profile, set_)
    run = follower.run if follower.is_follower(loaded) else launcher.run
    raise typer.Exit(run(loaded, progress()))


@commands.command(rich_help_panel=PANEL)
def check(
    profile: ProfileArgument = DEFAULT_PROFILE,
    set_: SetOption = None,
    gpu: GpuOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Show the environment and the engine arguments that a profile resolves to, and why.

    Needs neither a GPU nor weights. Example: gemma-serve check gemma-3-27b-it-fp8 --gpu h100
    """
    from gemma_serve.engine.explain import print_report, report_json
    from gemma_serve.plan import plan_check

    plan = plan_check(load(profile, set_), gpu, progress().say)
    report = (plan.resolved, plan.loaded, plan.checkpoint, plan.platform)
    if as_json:
        print(json.dumps(report_json(*report), indent=2))
    else:
        print_report(*report, Console())


@commands.command(rich_help_panel=PANEL)
def plan(
    profile: ProfileArgument = DEFAULT_PROFILE,
    set_: SetOption = None,
    gpu: GpuOption = None,
    input_tokens: Annotated[
        int, typer.Option("--input", min=1, help="Tokens of a prompt, for the concurrency.")
    ] = 1024,
    output_tokens: Annotated[
        int, typer.Option("--output", min=1, help="Tokens of an answer, likewise.")
    ] = 256,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Ask the Hub for config.json and the headers of the weights."),
    ] = False,
    chart: Annotated[
        Path | None, typer.Option(help="Draw the memory by part: a file .svg or .png.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """
    Count what a profile needs: weights, KV cache, what fits, and the bounds of its speed.

    Needs neither a GPU nor weights. 0 where it fits, 1 where it does not, with what to change.
    Example: gemma-serve plan gemma-3-27b-it --gpu h100 --input 2000 --output 500
    """
    from gemma_serve.plan import plan_size
    from gemma_serve.sizing.chart import write_chart
    from gemma_serve.sizing.report import report_json, report_of
    from gemma_serve.sizing.table import print_plan

    subject = plan_size(load(profile, set_), gpu, progress().say, fetch=fetch)
    report = report_of(subject, input_tokens, output_tokens)
    if chart is not None:
        write_chart(report, chart)
    if as_json:
        print(json.dumps(report_json(report), indent=2))
    else:
        print_plan(report, Console())
    if report.unfit:
        raise typer.Exit(1)


@commands.command(rich_help_panel=PANEL)
def render(
    profile: ProfileArgument = DEFAULT_PROFILE,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Show the exact prompt of a conversation: text, token ids, stop ids and the rules applied.

    Reads JSON from standard input: a list of messages, or the body of a chat completion.
    Example: gemma-serve render gemma-3-270m < messages.json
    """
    from gemma_serve.render import print_rendered
    from gemma_serve.render import render as render_prompt

    rendered = render_prompt(load(profile, set_), sys.stdin.read(), progress())
    if as_json:
        print(rendered.model_dump_json(indent=2))
    else:
        print_rendered(rendered)


@commands.command(rich_help_panel=PANEL)
def profiles(as_json: JsonOption = False) -> None:
    """
    List the packaged profiles.

    Example: gemma-serve profiles --json
    """
    from dataclasses import asdict

    from gemma_serve.profile.load import list_profiles

    found = list_profiles()
    if as_json:
        print(json.dumps([asdict(summary) for summary in found], indent=2))
        return
    table = Table("profile", "GPUs", "what it is for", "run on", box=None, pad_edge=False)
    for column in table.columns[:2]:
        column.no_wrap = True
    for summary in found:
        gpu_gib = summary.gpu_memory_gib
        table.add_row(
            summary.name,
            f"{summary.tensor_parallel_size} x {gpu_gib:g} GiB" if gpu_gib else "none",
            summary.description or "",
            ", ".join(summary.tested_on) or "none yet",
        )
    Console().print(table)


@commands.command(rich_help_panel=PANEL)
def schema() -> None:
    """
    Print the JSON Schema of a profile, for editors.

    Example: gemma-serve schema > profile.schema.json
    """
    from gemma_serve.profile.load import json_schema

    print(json.dumps(json_schema(), indent=2))


@commands.command(rich_help_panel=PANEL)
def version() -> None:
    """
    Print the versions of gemma-serve and of the vLLM that it finds.

    Example: gemma-serve version
    """
    from gemma_serve.engine.fields import installed_distribution

    vllm = installed_distribution()
    print(f"gemma-serve {__version__}")
    print(f"{vllm.name} {vllm.version}" if vllm else "vLLM is not installed")
