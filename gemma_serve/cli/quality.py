"""What fewer bits, or another build, cost in quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gemma_serve.cli.options import (
    DEFAULT_PROFILE,
    JsonOption,
    ProfileArgument,
    SetOption,
    load,
    progress,
)
from gemma_serve.errors import QualityError

commands = typer.Typer(
    help="Record what a model says of a corpus, and compare another with it.", no_args_is_help=True
)


@commands.command("record")
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

    loaded = load(profile, set_)
    made = measure_quality.record(loaded, output, progress(), max_tokens=max_tokens, force=force)
    if as_json:
        print(json.dumps(record_json(made), indent=2))
    else:
        print_record(made, output)


@commands.command("compare")
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
    if is_record and set_:
        raise QualityError(
            f"--set {set_[0]} changes a profile, and {candidate!r} is a record of one that was "
            "run; name a profile, or leave --set out."
        )
    compared = measure_quality.compare_files(
        reference, Path(candidate) if is_record else load(candidate, set_), progress()
    )
    if as_json:
        print(json.dumps(comparison_json(compared, max_kl), indent=2))
    else:
        print_comparison(compared, max_kl)
    if max_kl is not None and compared.exceeds(max_kl):
        raise typer.Exit(1)
