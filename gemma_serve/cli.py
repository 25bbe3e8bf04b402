"""The commands; each is a few lines that call one function elsewhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gemma_serve import __version__
from gemma_serve.errors import GemmaServeError

if TYPE_CHECKING:
    from gemma_serve.profile.load import LoadedProfile
    from gemma_serve.progress import Progress
    from gemma_serve.quantize.run import Request as QuantizeRequest

DEFAULT_PROFILE = "gemma-3-270m"

app = typer.Typer(
    name="gemma-serve",
    help="Serve Google's Gemma models on vLLM, from one YAML profile.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

quality_app = typer.Typer(
    help="Record what a model says of a corpus, and compare another with it.", no_args_is_help=True
)
app.add_typer(quality_app, name="quality")

ProfileArgument = Annotated[
    str, typer.Argument(help="A packaged profile's name, or the path of a YAML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. --set server.port=9000."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def serve(profile: ProfileArgument = DEFAULT_PROFILE, set_: SetOption = None) -> None:
    """
    Serve a profile until Ctrl-C.

    Example: gemma-serve serve gemma-3-270m --set server.port=9000
    """
    from gemma_serve import launcher

    raise typer.Exit(launcher.run(_load(profile, set_), _progress()))


@app.command()
def check(
    profile: ProfileArgument = DEFAULT_PROFILE,
    set_: SetOption = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Resolve for h100, h200, a100-40, a100-80, l4, b200 or none (CPU) instead of here."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """
    Show the environment and the engine arguments that a profile resolves to, and why.

    Needs neither a GPU nor weights. Example: gemma-serve check gemma-3-27b-it-fp8 --gpu h100
    """
    from gemma_serve.engine.explain import print_report, report_json
    from gemma_serve.plan import plan_check

    plan = plan_check(_load(profile, set_), gpu, _progress().say)
    report = (plan.resolved, plan.loaded, plan.checkpoint, plan.platform)
    if as_json:
        print(json.dumps(report_json(*report), indent=2))
    else:
        print_report(*report, Console())


@app.command()
def plan(
    profile: ProfileArgument = DEFAULT_PROFILE,
    set_: SetOption = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="Plan for h100, h200, a100-40, a100-80, l4, b200 or none (CPU) instead of here."
        ),
    ] = None,
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

    subject = plan_size(_load(profile, set_), gpu, _progress().say, fetch=fetch)
    report = report_of(subject, input_tokens, output_tokens)
    if chart is not None:
        write_chart(report, chart)
    if as_json:
        print(json.dumps(report_json(report), indent=2))
    else:
        print_plan(report, Console())
    if report.unfit:
        raise typer.Exit(1)


@app.command()
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


@app.command()
def schema() -> None:
    """
    Print the JSON Schema of a profile, for editors.

    Example: gemma-serve schema > profile.schema.json
    """
    from gemma_serve.profile.load import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command()
def chat(
    message: Annotated[
        str | None, typer.Option("-m", "--message", help="Ask once, print the answer, and leave.")
    ] = None,
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="Default: the first that it serves.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy.")] = None,
) -> None:
    """
    Chat with a running server in the terminal; /quit leaves.

    A key is taken from GEMMA_SERVE_API_KEY. Example: gemma-serve chat -m "What is a haiku?"
    """
    from gemma_serve import terminal_chat

    session = terminal_chat.Session(url, model, system, max_tokens, temperature)
    with session:
        if message is not None:
            session.ask(message)
        else:
            session.loop()


@app.command()
def top(
    url: Annotated[str, typer.Argument(help="Where the server is.")] = "http://127.0.0.1:8000",
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds from one look to the next.")
    ] = 2.0,
    window: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds that rates and percentiles cover.")
    ] = 30.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one interval and leave; so does a pipe.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Watch a running server: tokens/s, latency, queue, KV cache, errors; q leaves.

    A key is taken from GEMMA_SERVE_API_KEY. Example: gemma-serve top --once --json
    """
    from gemma_serve import top as command

    with command.Watch(url, window) as watch:
        if once or not (as_json or sys.stdout.isatty()):
            command.once(watch, interval, as_json=as_json)
        elif as_json:
            command.follow_as_json(watch, interval)
        else:
            command.follow(watch, interval)


@app.command()
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

    rendered = render_prompt(_load(profile, set_), sys.stdin.read(), _progress())
    if as_json:
        print(rendered.model_dump_json(indent=2))
    else:
        print_rendered(rendered)


@app.command("import-triton")
def import_triton(
    repository: Annotated[
        Path, typer.Argument(metavar="MODEL_REPOSITORY", help="Or one model directory of it.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Which of its models. Default: the one that can be served.")
    ] = None,
    hf_model: Annotated[
        str | None, typer.Option(help="The checkpoint, where the files do not say it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write the profile. Default: ./MODEL.yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Make a profile of a Triton model repository, and say what became of each setting.

    Example: gemma-serve import-triton model_repository --model gemma --output gemma.yaml
    """
    from gemma_serve import import_triton as importer

    request = importer.Request(repository, model, hf_model, output, force)
    written = importer.import_triton(request, _progress().say)
    if as_json:
        print(json.dumps(importer.import_json(written), indent=2))
    else:
        importer.print_import(written, Console())


@app.command()
def quantize(
    source: Annotated[
        str,
        typer.Argument(help="embedded/gemma-3-270m, a directory, or a Hub id in the cache."),
    ],
    destination: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    scheme: Annotated[
        str, typer.Option(help="fp8-block, fp8-dynamic, fp8-static, q4_0 or kv-fp8.")
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a repository.")
    ] = None,
    calibration_text: Annotated[
        Path | None, typer.Option(help="Text to measure on, for fp8-static and kv-fp8.")
    ] = None,
    allow_off_grid: Annotated[
        bool, typer.Option("--allow-off-grid", help="Round what is not on Q4_0's grid.")
    ] = False,
    quality: Annotated[
        bool,
        typer.Option("--quality", help="Then run both, and put what it cost in the model card."),
    ] = False,
    quality_tokens: Annotated[
        int | None, typer.Option(min=1, help="How many tokens of text for that. Default: all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """
    Make a checkpoint of fewer bits, offline; a run that was stopped goes on where it was.

    Example: gemma-serve quantize embedded/gemma-3-270m out --scheme fp8-block --quality
    """
    from gemma_serve.quantize import require_packages

    require_packages()
    from gemma_serve.quantize import run

    request = run.Request(source, destination, scheme, revision, calibration_text, allow_off_grid)
    say = _progress().say
    made = run.quantize(request, say)
    if not as_json:
        run.say_made(made, destination, say)
    cost = _quality_into_card(request, quality_tokens, as_json) if quality else {}
    if as_json:
        print(json.dumps(run.made_json(made, destination) | cost, indent=2))


def _quality_into_card(
    request: QuantizeRequest, max_tokens: int | None, as_json: bool
) -> dict[str, Any]:
    """What quantising cost, in the model card and on the terminal; {} or, for JSON, `quality`."""
    from gemma_serve import measure_quality
    from gemma_serve.quality.show import card_figures, comparison_json, print_comparison
    from gemma_serve.quantize.card import write_quality

    profile = str(request.destination)
    quick = ["engine.enforce_eager=true"]  # compiling takes longer than the texts
    source = _load(profile, [*quick, *request.source_overrides()])
    compared = measure_quality.compare_profiles(
        source, _load(profile, quick), _progress(), max_tokens=max_tokens
    )
    write_quality(request.destination, card_figures(compared))
    if as_json:
        return {"quality": comparison_json(compared, None)}
    print_comparison(compared, None)
    return {}


@app.command()
def tune(
    profile: ProfileArgument = DEFAULT_PROFILE,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the profile. Default: ./PROFILE-tuned.yaml.")
    ] = None,
    slo: Annotated[
        str | None,
        typer.Option(help="ttft_ms=500,itl_ms=50, or one of them. Default: the profile's."),
    ] = None,
    attainment: Annotated[
        float, typer.Option(min=0, max=1, help="Part of the requests that has to keep the SLO.")
    ] = 0.9,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients.")] = 8,
    workload: Annotated[str, typer.Option(help="As of python -m benchmarks.")] = "synthetic",
    input_: Annotated[str, typer.Option("--input", help="Prompt tokens: 128, 64-256.")] = "128",
    output: Annotated[str, typer.Option(help="Answer tokens, written like --input.")] = "64",
    requests: Annotated[int | None, typer.Option(min=1, help="Of a block.")] = None,
    looks: Annotated[str, typer.Option(help="Pairs after which to look for a verdict.")] = "8",
    aa_pairs: Annotated[int, typer.Option(min=0, help="Pairs of a candidate and itself.")] = 4,
    quality_prompts: Annotated[int, typer.Option(min=1, help="Greedy answers to compare.")] = 48,
    max_minutes: Annotated[float, typer.Option(min=1, help="Of this run.")] = 120.0,
    max_trials: Annotated[int, typer.Option(min=1, help="Settings to try, of all runs.")] = 12,
    fp8_weights: Annotated[
        str | None,
        typer.Option(help="Try this FP8 checkpoint of the same model, or 'online' on CUDA."),
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Try nothing that changes numbers on purpose.")
    ] = False,
    against: Annotated[
        str, typer.Option(help="What the end is held against: vllm (its defaults), base or none.")
    ] = "vllm",
    restart: Annotated[bool, typer.Option("--restart", help="Forget the trials so far.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a profile of yours.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials, and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Search for settings that make a profile faster within its SLO, and write them as a profile.

    Each is measured in pairs; an interrupted search goes on where it was, with the same command.
    Example: gemma-serve tune gemma-3-270m --slo ttft_ms=1000,itl_ms=80 --concurrency 8
    """
    from gemma_serve.tune import command
    from gemma_serve.tune.harness import Method
    from gemma_serve.tune.search import Limits
    from gemma_serve.tune.space import Permitted

    request = command.Request(
        profile=profile,
        overrides=tuple(set_ or ()),
        output=out,
        slo=slo,
        attainment=attainment,
        method=Method(
            concurrency, workload, input_, output, requests, looks, aa_pairs, quality_prompts
        ),
        limits=Limits(max_minutes, max_trials),
        permitted=Permitted(fp8_weights, lossless),
        against=command.against_of(against),
        restart=restart,
        force=force,
    )
    command.run_tune(request, dry_run=dry_run, as_json=as_json, progress=_progress())


@app.command()
def version() -> None:
    """
    Print the versions of gemma-serve and of the vLLM that it finds.

    Example: gemma-serve version
    """
    from gemma_serve.engine.fields import installed_distribution

    vllm = installed_distribution()
    print(f"gemma-serve {__version__}")
    print(f"{vllm.name} {vllm.version}" if vllm else "vLLM is not installed")


@app.command("triton-check")
def triton_check(
    golden: Annotated[Path, typer.Option(help="Recorded requests and responses, JSON Lines.")],
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:8000",
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="REQUESTS",
            help="Send these requests, and write --golden instead of reading it.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --record replace a file.")] = False,
    model: Annotated[
        str | None, typer.Option(help="The model's name on this server, if it has another.")
    ] = None,
    text: Annotated[
        str, typer.Option(help="What must be equal in a greedy text: exact, prefix:N or ignore.")
    ] = "exact",
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="Sent with every request.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests at a time.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds without a byte.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """
    Replay requests that Triton answered, and show what differs. 0 nothing, 1 something does.

    A key is taken from GEMMA_SERVE_API_KEY, but not when recording.
    Example: gemma-serve triton-check --golden golden.jsonl --url http://127.0.0.1:8000
    """
    from gemma_serve.triton_check import command

    target = command.target_of(url, header or [], timeout, concurrency, sends_key=record is None)
    if record is not None:
        command.run_record(record, golden, target, force=force)
    else:
        raise typer.Exit(
            command.run_replay(golden, target, text=text, model=model, as_json=as_json)
        )


@quality_app.command("record")
def quality_record(
    output: Annotated[Path, typer.Option(help="The file to write (.npz, about 5 MB).")],
    profile: ProfileArgument = DEFAULT_PROFILE,
    set_: SetOption = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Score at most so many. Default: all 21,504.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Score the corpus with a profile's model, and keep its log-probabilities as a reference.

    Example: gemma-serve quality record gemma-3-270m --output bf16.npz
    """
    from gemma_serve import measure_quality
    from gemma_serve.quality.show import print_record, record_json

    loaded = _load(profile, set_)
    made = measure_quality.record(loaded, output, _progress(), max_tokens=max_tokens, force=force)
    if as_json:
        print(json.dumps(record_json(made), indent=2))
    else:
        print_record(made, output)


@quality_app.command("compare")
def quality_compare(
    reference: Annotated[Path, typer.Argument(help="What 'quality record' wrote.")],
    candidate: Annotated[str, typer.Argument(help="Another record (.npz), or a profile.")],
    set_: SetOption = None,
    max_kl: Annotated[
        float | None, typer.Option(min=0, help="Exit with 1 beyond this mean KL, in nats a token.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """
    Compare a model with a recorded one: perplexity, KL divergence, agreement. 1 beyond --max-kl.

    Example: gemma-serve quality compare bf16.npz my-fp8.yaml --max-kl 0.05
    """
    from gemma_serve import measure_quality
    from gemma_serve.quality.show import comparison_json, print_comparison

    is_record = candidate.endswith(".npz")
    compared = measure_quality.compare_files(
        reference, Path(candidate) if is_record else _load(candidate, set_), _progress()
    )
    if as_json:
        print(json.dumps(comparison_json(compared, max_kl), indent=2))
    else:
        print_comparison(compared, max_kl)
    if max_kl is not None and compared.exceeds(max_kl):
        raise typer.Exit(1)


def _load(name_or_path: str, overrides: list[str] | None) -> LoadedProfile:
    from gemma_serve.engine.fields import installed_vllm
    from gemma_serve.gemma.cache import cache_dir
    from gemma_serve.profile.load import load_profile

    installed = installed_vllm(cache_dir(), _progress().say)
    fields = installed.fields if installed else None
    return load_profile(name_or_path, overrides or [], engine_fields=fields)


def _progress() -> Progress:
    from gemma_serve.progress import Progress

    return Progress()


def main() -> None:
    """Run a command; an error on purpose is one clear line and its exit code."""
    try:
        app()
    except GemmaServeError as error:
        print(f"gemma-serve: {error.message}", file=sys.stderr)
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as end:  # typer's way to end a command
        _leave(end.code if isinstance(end.code, int) else 0)


def _leave(code: int) -> None:
    """
    Exit with this code and no other; what was said last stays the last line.

    Not by sys.exit: Triton's bindings would print pages of what they leak when the interpreter is
    taken down, and after a KeyboardInterrupt that went through an exec (dataclasses, namedtuples:
    any signal during an import may) CPython kills itself with SIGINT, handled or not.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
