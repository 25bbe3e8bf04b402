"""The checkpoint that is to be quantised: found, and known to be whole before any work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gemma_serve.errors import QuantizeError
from gemma_serve.gemma import embedded
from gemma_serve.gemma.architecture import Checkpoint
from gemma_serve.gemma.checkpoint import looks_like_path, read_checkpoint
from gemma_serve.gemma.weights import check_is_directory, check_servable
from gemma_serve.profile.schema import Profile
from gemma_serve.quantize.layers import is_quantised
from gemma_serve.quantize.shards import Part, read_header

INDEX = "model.safetensors.index.json"
# Their inputs are the hidden states.
_READS_HIDDEN = tuple(f".{module}_proj.weight" for module in ("q", "k", "v", "gate", "up"))


@dataclass(frozen=True)
class Source:
    """A checkpoint in bf16, fp16 or fp32, every file of which is there."""

    name: str  # as the user named it
    revision: str | None  # commit of a repository on the Hub
    directory: Path
    checkpoint: Checkpoint
    shards: Mapping[str, Mapping[str, Part]]  # file name -> tensor -> type and shape

    @property
    def num_bytes(self) -> int:
        """Size of the weight files."""
        return sum((self.directory / shard).stat().st_size for shard in self.shards)


def open_source(name: str, revision: str | None, say: Callable[[str], None]) -> Source:
    """
    Find a checkpoint and check all that can be known without reading its weights.

    Args:
        name: The embedded model, a directory, or the id of a repository in the Hub's cache.

    Raises:
        ModelError: It is not there, not whole, or not Gemma.
        QuantizeError: It is quantised already, or its files contradict each other.
    """
    directory, commit = _find(name, revision, say)
    checkpoint = read_checkpoint(str(directory), download=False)
    if checkpoint.quant_method:
        raise QuantizeError(
            f"{name!r} is already quantised ({checkpoint.quant_method}); name the checkpoint that "
            "it was made of, in bf16."
        )
    check_servable(checkpoint, Profile(model=str(directory)))
    if checkpoint.text.get("enable_moe_block") or checkpoint.text.get("num_experts"):
        raise QuantizeError(
            f"{name!r} is a mixture of experts, whose weights are not quantised offline; serve it "
            "with dtype: fp8, which quantises while loading on a GPU."
        )
    shards = {file: read_header(directory / file) for file in _weight_files(directory)}
    source = Source(name, commit, directory, checkpoint, shards)
    _check_index(source)
    _check_shapes(source)
    return source


def _find(name: str, revision: str | None, say: Callable[[str], None]) -> tuple[Path, str | None]:
    """The directory of a checkpoint, and the commit where it is a repository's."""
    if name == embedded.MODEL_ID:
        return embedded.prepare(say=say), None
    directory = Path(name).expanduser()
    if directory.exists() or looks_like_path(name):
        check_is_directory(name, directory)
        return directory.absolute(), None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise QuantizeError(
            f"{name!r} is neither a directory nor in the Hugging Face cache; fetch it with "
            f"'hf download {name}', or name a directory or {embedded.MODEL_ID}."
        ) from None
    return found, found.name


def _weight_map(directory: Path) -> dict[str, str]:
    """Tensor -> file, empty where there is no index. `check_servable` has found it readable."""
    index = directory / INDEX
    if not index.exists():
        return {}
    weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return weight_map


def _weight_files(directory: Path) -> list[str]:
    named = set(_weight_map(directory).values())
    return sorted(named or {file.name for file in directory.glob("*.safetensors")})


def _check_index(source: Source) -> None:
    """Refuse an index that names other tensors than its files hold, and a tensor in two files."""
    held: dict[str, str] = {}
    for file, parts in source.shards.items():
        for tensor in parts:
            if tensor in held:
                raise QuantizeError(
                    f"Tensor {tensor!r} of {source.name!r} is in {held[tensor]} and in {file}; "
                    "fetch the checkpoint again."
                )
            held[tensor] = file
    for tensor, file in _weight_map(source.directory).items():
        if held.get(tensor) != file:
            raise QuantizeError(
                f"The index of {source.name!r} names tensor {tensor!r} in {file}, which does not "
                "hold it; fetch the checkpoint again."
            )


def _check_shapes(source: Source) -> None:
    """Refuse weights of another model than config.json describes, and one without a decoder."""
    hidden_size = source.checkpoint.text.get("hidden_size")
    weights = {
        name: part
        for parts in source.shards.values()
        for name, part in parts.items()
        if is_quantised(name)
    }
    if not weights:
        raise QuantizeError(
            f"{source.name!r} holds none of a Gemma decoder's weights (layers.0.self_attn.q_proj "
            "and so on); name the whole checkpoint."
        )
    for name, part in weights.items():
        wrong_input = name.endswith(_READS_HIDDEN) and part.shape[-1] != hidden_size
        if len(part.shape) != 2 or not part.is_float or (hidden_size and wrong_input):
            raise QuantizeError(
                f"Tensor {name!r} of {source.name!r} is {part.dtype} {list(part.shape)}, and its "
                f"config.json says hidden_size {hidden_size}; the files are of different models, "
                "fetch the checkpoint again."
            )
