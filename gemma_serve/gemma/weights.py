"""Whether a checkpoint can be served at all, found out before anything heavy is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gemma_serve.errors import ModelError
from gemma_serve.gemma.family import GENERATIVE_ARCHITECTURES

if TYPE_CHECKING:
    from gemma_serve.gemma.architecture import Checkpoint
    from gemma_serve.profile.schema import Profile

_HEADER_LENGTH_BYTES = 8
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PICKLED_FORMATS = ("pt", "npcache")


def check_servable(checkpoint: Checkpoint, profile: Profile) -> None:
    """
    Refuse a checkpoint that the engine would refuse later, or serve wrongly.

    Raises:
        ModelError: Not Gemma, not generative, heads that do not divide, no usable weights, or
            code that would be run.
    """
    if not profile.allow_other_models:
        _check_is_gemma(checkpoint)
    _check_runs_no_code(profile)
    size = profile.engine.get("tensor_parallel_size", profile.tensor_parallel_size)
    _check_heads_divide(checkpoint, size)
    load_format = profile.engine.get("load_format", "auto")
    own_loader = load_format not in ("auto", "hf", "safetensors", "bitsandbytes")
    if checkpoint.path is not None and not own_loader and checkpoint.quant_method != "gguf":
        check_weights(checkpoint.model, checkpoint.path)


def _check_runs_no_code(profile: Profile) -> None:
    if profile.engine.get("trust_remote_code") and not profile.allow_other_models:
        raise ModelError(
            "engine.trust_remote_code true runs code from the model's repository, and no Gemma "
            "needs any; remove it, or set allow_other_models: true."
        )
    load_format = profile.engine.get("load_format")
    if load_format in _PICKLED_FORMATS:
        raise ModelError(
            f"engine.load_format {load_format!r} reads pickled weights, which can run code when "
            "they are loaded; convert them to safetensors."
        )


def _check_is_gemma(checkpoint: Checkpoint) -> None:
    kind = checkpoint.architecture or checkpoint.config.get("model_type")
    if checkpoint.generation is None:
        raise ModelError(
            f"Model {checkpoint.model!r} is not Gemma 1 to 4 (its config.json says {kind!r}); "
            "serve a Gemma checkpoint, or set allow_other_models: true."
        )
    if checkpoint.architecture and checkpoint.architecture not in GENERATIVE_ARCHITECTURES:
        raise ModelError(
            f"Model {checkpoint.model!r} does not generate text (its architecture is {kind!r}); "
            "serve a causal Gemma checkpoint, or set allow_other_models: true."
        )


def _check_heads_divide(checkpoint: Checkpoint, size: int) -> None:
    heads = checkpoint.num_attention_heads
    if heads is None or heads % size == 0:
        return
    *most, last = [str(number) for number in range(1, heads + 1) if heads % number == 0]
    allowed = f"{', '.join(most)} or {last}" if most else last
    raise ModelError(
        f"tensor_parallel_size {size} does not divide the {heads} attention heads of "
        f"{checkpoint.model}; use {allowed}."
    )


def check_is_directory(model: str, path: Path) -> None:
    """Refuse a path that is not a directory: vLLM serves directories of safetensors."""
    if path.is_file():
        raise ModelError(f"Model {model!r} is a file; name the directory of the checkpoint.")
    if not path.is_dir():
        raise ModelError(
            f"Model {model!r} does not exist; name a directory with a checkpoint, or a Hugging "
            "Face id such as google/gemma-3-4b-it."
        )


def safetensors_bytes(directory: Path) -> int | None:
    """Size of a directory's weights, None where it has none."""
    return sum(file.stat().st_size for file in directory.glob("*.safetensors")) or None


def check_weights(model: str, directory: Path) -> None:
    """Refuse a local directory whose weights are missing, incomplete or of another format."""
    files = sorted(directory.glob("*.safetensors"))
    if missing := _missing_shards(directory):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"Model {model!r} lacks {missing[0]}{more}, which its index names; fetch it again."
        )
    if not files:
        raise ModelError(_no_safetensors(model, directory))
    for file in files:
        if fault := _fault_of(file):
            raise ModelError(f"Model {model!r}: {file.name} {fault}; fetch it again.")


def _missing_shards(directory: Path) -> list[str]:
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return []
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"The weight index {index} can't be read; fetch it again.") from None
    return sorted(shard for shard in shards if not (directory / shard).exists())


def _no_safetensors(model: str, directory: Path) -> str:
    if file := next(iter(sorted(directory.glob("*.gguf"))), None):
        return (
            f"Model {model!r} holds GGUF weights and no *.safetensors; name the file itself "
            f"(model: {file}), which needs a GPU and vllm-gguf-plugin."
        )
    if any(file for pattern in _PICKLES for file in directory.glob(pattern)):
        return (
            f"Model {model!r} has only pickled weights, which can run code when they are loaded; "
            "convert them to safetensors."
        )
    return f"Model {model!r} has no *.safetensors weights; fetch the whole checkpoint."


def _fault_of(file: Path) -> str | None:
    """What is wrong with a safetensors file, judged by its header and its size."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(_HEADER_LENGTH_BYTES)
        if start == b"version ":
            return "is a Git LFS pointer instead of weights"
        header_bytes = int.from_bytes(start, "little")
        if len(start) < _HEADER_LENGTH_BYTES or header_bytes > size - _HEADER_LENGTH_BYTES:
            return "is not a complete safetensors file"
        try:
            header = json.loads(stream.read(header_bytes))
        except ValueError:
            return "is not a safetensors file"
    expected = _HEADER_LENGTH_BYTES + header_bytes + _data_bytes(header)
    return None if size == expected else f"has {size} bytes instead of {expected}"


def _data_bytes(header: Mapping[str, Mapping[str, list[int]]]) -> int:
    ends = [spec["data_offsets"][1] for name, spec in header.items() if name != "__metadata__"]
    return max(ends, default=0)
