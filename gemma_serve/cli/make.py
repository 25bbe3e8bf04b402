"""Commands that make something new: a profile or a checkpoint."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gemma_serve.cli.options import (
    DEFAULT_PROFILE,
    JsonOption,
    ProfileArgument,
    SetOption,
    load,
    progress,
)
from gemma_serve.errors import GemmaServeError, QuantizeError

if TYPE_CHECKING:
    from gemma_serve.quantize.run import Request as QuantizeRequest

PANEL = "Make a profile or a checkpoint"
QUICK = ("engine.enforce_eager=true",)  # compiling takes longer than the texts of --quality
commands = typer.Typer()


@commands.command("import-triton", rich_help_panel=PANEL)
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
    written = importer.import_triton(request, progress().say)
    if as_json:
        print(json.dumps(importer.import_json(written), indent=2))
    else:
        importer.print_import(written, Console())


@commands.command(rich_help_panel=PANEL)
def quantize(
    source: Annotated[
        str,
        typer.Argument(help="embedded/gemma-3-270m, a directory, or a Hub id in the cache."),
    ],
    destination: Annotated[
        Path,
        typer.Argument(
            help="A directory that does not exist yet; or, with --quality, one that is made."
        ),
    ],
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

    if quality_tokens is not None and not quality:
        raise QuantizeError(
            f"--quality-tokens {quality_tokens} bounds what --quality reads; add --quality, or "
            "leave it out."
        )
    request = run.Request(source, destination, scheme, revision, calibration_text, allow_off_grid)
    say = progress().say
    if quality:
        _check_quality(request)
    made = None if quality and run.is_made(request, say) else run.quantize(request, say)
    if made is None:
        say(f"{destination} is there already, of this source and scheme; measuring its quality")
    elif not as_json:
        run.say_made(made, destination, say)
    cost: dict[str, Any] = {}
    try:
        if quality:
            cost = _quality_into_card(request, quality_tokens, as_json)
    finally:  # what is made is made, whatever becomes of its quality
        if as_json:
            print(json.dumps(run.made_json(made, destination) | cost, indent=2))


def _check_quality(request: QuantizeRequest) -> None:
    """Refuse before a conversion what this machine could not measure after it."""
    from gemma_serve import measure_quality
    from gemma_serve.quantize import run
    from gemma_serve.quantize.profile_text import write_profile
    from gemma_serve.quantize.schemes import SCHEMES

    say = progress().say
    made, about = run.described(request, say), SCHEMES[request.scheme]
    with tempfile.TemporaryDirectory() as folder:
        destination = request.destination.absolute()
        write_profile(Path(folder), destination, request.source, request.scheme, about)
        source = load(folder, [*QUICK, *request.source_overrides()])
        result = load(folder, [*QUICK])
    try:
        measure_quality.check_can_run(source, result, made, say)
    except GemmaServeError as error:
        raise QuantizeError(
            "--quality runs source and result on this machine, which can't; leave it out, and "
            f"measure with gemma-serve quality where both can be served: {error.message}"
        ) from error


def _quality_into_card(
    request: QuantizeRequest, max_tokens: int | None, as_json: bool
) -> dict[str, Any]:
    """What quantising cost, in the model card and on the terminal; {} or, for JSON, `quality`."""
    from gemma_serve import measure_quality
    from gemma_serve.quality.show import card_figures, comparison_json, print_comparison
    from gemma_serve.quantize.card import write_quality

    profile = str(request.destination)
    source = load(profile, [*QUICK, *request.source_overrides()])
    try:
        compared = measure_quality.compare_profiles(
            source, load(profile, [*QUICK]), progress(), max_tokens=max_tokens
        )
    except GemmaServeError as error:
        raise QuantizeError(
            f"{profile!r} is whole, but its quality was not measured; the same command measures it "
            f"again, without converting: {error.message}"
        ) from error
    write_quality(request.destination, card_figures(compared))
    if as_json:
        return {"quality": comparison_json(compared, None)}
    print_comparison(compared, None)
    return {}


@commands.command(rich_help_panel=PANEL)
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
    input_: Annotated[
        str | None, typer.Option("--input", help="Prompt tokens: 128, 64-256. Default 128.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Answer tokens, written like --input. Default 64.")
    ] = None,
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
    from gemma_serve.tune.harness import Method, lengths
    from gemma_serve.tune.search import Limits
    from gemma_serve.tune.space import Permitted

    request = command.Request(
        profile=profile,
        overrides=tuple(set_ or ()),
        output=out,
        slo=slo,
        attainment=attainment,
        method=Method(
            concurrency,
            workload,
            *lengths(workload, input_, output),
            requests,
            looks,
            aa_pairs,
            quality_prompts,
        ),
        limits=Limits(max_minutes, max_trials),
        permitted=Permitted(fp8_weights, lossless),
        against=command.against_of(against),
        restart=restart,
        force=force,
    )
    command.run_tune(request, dry_run=dry_run, as_json=as_json, progress=progress())
