"""`gemma-serve quantize`: source -> shards, one at a time -> small files -> one rename."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gemma_serve.errors import QuantizeError
from gemma_serve.gemma.architecture import Checkpoint
from gemma_serve.quantize import calibrate
from gemma_serve.quantize.card import Made, exactness, is_of, write_card
from gemma_serve.quantize.convert import convert, planned_shards
from gemma_serve.quantize.layers import kept_modules
from gemma_serve.quantize.partial import (
    Partial,
    check_is_free,
    growing,
    sha256_of,
)
from gemma_serve.quantize.profile_text import FILE as PROFILE
from gemma_serve.quantize.profile_text import write_profile
from gemma_serve.quantize.scheme import Scheme
from gemma_serve.quantize.schemes import SCHEMES, Options
from gemma_serve.quantize.shards import Part, file_bytes
from gemma_serve.quantize.source import INDEX, Source, open_source

Say = Callable[[str], None]

# Raise it with each change that makes other bytes of the same source.
CONVERSION_VERSION = 3
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.html", "NOTICE", "LICENSE")
# Made anew, or of no meaning beside other weights.
_NOT_COPIED = ("config.json", INDEX, "manifest.json")


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    source: str
    destination: Path
    scheme: str
    revision: str | None = None
    calibration_text: Path | None = None
    allow_off_grid: bool = False

    def source_overrides(self) -> list[str]:
        """What makes the source's own profile of the one beside the result."""
        path = Path(self.source).expanduser()
        source = str(path.absolute()) if path.is_dir() else self.source
        revision = [f"revision={self.revision}"] if self.revision else []
        return [f"model={source}", *revision, "dtype=bf16", "kv_cache_dtype=auto"]


def quantize(request: Request, say: Say) -> Made:
    """
    Convert a checkpoint; the destination appears when it is whole.

    Raises:
        QuantizeError: It can't be converted so, or not be written; what is finished is kept.
        ModelError: The source is not there, not whole, or not Gemma.
    """
    _check_options(request)
    check_is_free(request.destination)
    source = _open(request, say)
    destination = request.destination.absolute()
    with growing(destination, _recipe(request, source), say) as partial, _told(partial, say):
        scheme = _make_scheme(request, source, partial, say)
        plan = planned_shards(source, scheme)
        weights = convert(source, scheme, plan, partial)
        _write_index(partial.directory, plan)
        kept = _kept(source)
        config = dict(source.checkpoint.config)
        config["quantization_config"] = scheme.quantization_config(kept)
        _write_json(partial.directory / "config.json", config)
        _copy_small_files(source.directory, partial.directory)
        made = _made(request, source, partial, weights, kept)
        write_card(partial.directory, made)
        write_profile(partial.directory, destination, request.source, request.scheme, made.about)
    return made


def described(request: Request, say: Say) -> Checkpoint:
    """
    What a conversion would make, as the config.json beside it will say.

    Raises:
        QuantizeError: It can't be converted so.
        ModelError: The source is not there, not whole, or not Gemma.
    """
    _check_options(request)
    source = _open(request, say)
    scheme = SCHEMES[request.scheme].make(Options(request.allow_off_grid, {}))
    quantization = scheme.quantization_config(_kept(source))
    return replace(
        source.checkpoint,
        model=str(request.destination),
        config={**source.checkpoint.config, "quantization_config": quantization},
        quant_method=quantization["quant_method"],
        weight_bytes=None,  # less than the source's, and not known
    )


def is_made(request: Request, say: Say) -> bool:
    """Whether the destination is there already, made of the same source by the same scheme."""
    if not request.destination.exists():
        return False
    source = open_source(request.source, request.revision, say)
    hashes = {shard: sha256_of(source.directory / shard) for shard in source.shards}
    return is_of(request.destination, request.scheme, hashes)


def _check_options(request: Request) -> None:
    about = SCHEMES.get(request.scheme)
    if about is None:
        raise QuantizeError(
            f"There is no scheme {request.scheme!r}; use {', '.join(list(SCHEMES)[:-1])} or "
            f"{list(SCHEMES)[-1]}."
        )
    if about.calibration and request.calibration_text is None:
        raise QuantizeError(
            f"--scheme {request.scheme} measures the model on text of yours; name a file with "
            "--calibration-text."
        )
    if request.calibration_text is not None and not about.calibration:
        raise QuantizeError(
            f"--scheme {request.scheme} measures nothing; leave --calibration-text out."
        )
    if request.allow_off_grid and request.scheme != "q4_0":
        raise QuantizeError(
            f"--scheme {request.scheme} has no grid to be off; leave --allow-off-grid out."
        )


def _open(request: Request, say: Say) -> Source:
    """The source, where its scheme takes such a model."""
    source = open_source(request.source, request.revision, say)
    if source.has_experts and not SCHEMES[request.scheme].takes_experts:
        raise QuantizeError(
            f"{request.source!r} is a mixture of experts, which --scheme {request.scheme} does not "
            "take; use --scheme fp8-dynamic, or serve it with dtype: fp8, which quantises while "
            "loading on a GPU."
        )
    return source


def _recipe(request: Request, source: Source) -> dict[str, Any]:
    """All but the shards that decides what the shards become."""
    text = request.calibration_text
    if text is not None and not text.is_file():
        raise QuantizeError(
            f"The calibration text {str(text)!r} is not a file; name a UTF-8 text file."
        )
    return {
        "version": CONVERSION_VERSION,
        "scheme": request.scheme,
        "allow_off_grid": request.allow_off_grid,
        "calibration_text": sha256_of(text) if text else None,
        "config": sha256_of(source.directory / "config.json"),
        # What was calibrated is of all weights. Without, a shard depends on its own source alone.
        "weights": _identity(source) if SCHEMES[request.scheme].calibration else None,
    }


def _identity(source: Source) -> list[list[str | int]]:
    """Whether the weights are the same as before, without reading them."""
    files = [(shard, (source.directory / shard).stat()) for shard in source.shards]
    return [[shard, about.st_size, about.st_mtime_ns] for shard, about in files]


@contextmanager
def _told(partial: Partial, say: Say) -> Iterator[None]:
    """Say what a run that is interrupted leaves behind."""
    try:
        yield
    except KeyboardInterrupt:
        say(
            f"Stopped; {len(partial.shards)} finished shards stay in {partial.directory}, and the "
            "same command goes on from there."
        )
        raise


def _make_scheme(request: Request, source: Source, partial: Partial, say: Say) -> Scheme:
    about = SCHEMES[request.scheme]
    if about.calibration and partial.peaks is None:
        measure = {"inputs": calibrate.input_peaks, "kv": calibrate.kv_peaks}[about.calibration]
        assert request.calibration_text is not None
        partial.peaks = measure(source.directory, request.calibration_text, say)
        partial.save()
    return about.make(Options(request.allow_off_grid, partial.peaks or {}))


def _kept(source: Source) -> list[str]:
    matrices = (
        name
        for parts in source.shards.values()
        for name, part in parts.items()
        if len(part.shape) == 2
    )
    return kept_modules(matrices, source.checkpoint.num_kv_cache_layers)


def _write_index(directory: Path, plan: Mapping[str, Mapping[str, Part]]) -> None:
    if list(plan) == ["model.safetensors"]:
        return
    weight_map = {name: shard for shard, planned in plan.items() for name in planned}
    total = sum(file_bytes(planned) for planned in plan.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(directory / INDEX, index)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _copy_small_files(source: Path, directory: Path) -> None:
    """Tokenizer, processor, generation_config, chat template, terms."""
    for pattern in _SMALL_FILES:
        for file in source.glob(pattern):
            if file.name not in _NOT_COPIED and file.is_file():
                shutil.copyfile(file, directory / file.name)


def _made(
    request: Request,
    source: Source,
    partial: Partial,
    weights: Mapping[str, Any],
    kept: list[str],
) -> Made:
    return Made(
        scheme=request.scheme,
        about=SCHEMES[request.scheme],
        source=request.source,
        revision=source.revision,
        source_sha256={shard: partial.shards[shard]["source_sha256"] for shard in source.shards},
        source_bytes=source.num_bytes,
        num_bytes=sum(partial.shards[shard]["bytes"] for shard in source.shards),
        kept=tuple(kept),
        weights=weights,
    )


def made_json(made: Made | None, destination: Path) -> dict[str, Any]:
    """What was made, for machines; where it was there before, just where it is."""
    content = asdict(made) if made else {}
    content.pop("about", None)
    return {"destination": str(destination), "profile": str(destination / PROFILE)} | content


def say_made(made: Made, destination: Path, say: Say) -> None:
    """What was made, how exact it is, and what to do next."""
    say(
        f"{made.source_bytes / 1e6:,.1f} MB became {made.num_bytes / 1e6:,.1f} MB in {destination} "
        f"({len(made.weights)} matrices quantised; {made.scheme})"
    )
    facts = [known for known in made.weights.values() if "blocks" in known]
    if facts:
        totals = (sum(f[key] for f in facts) for key in _COUNTS)
        say(exactness(*totals))
    say(f"Next: gemma-serve serve {destination}")


_COUNTS = ("blocks", "off_grid_blocks", "changed_blocks")
