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
from gemma_serve.quantize.layers import decoder_module, experts_tensor, is_quantised, module_of
from gemma_serve.quantize.shards import Part, read_header
from gemma_serve.sizing.tensors import tensors_of

INDEX = "model.safetensors.index.json"


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

    @property
    def has_experts(self) -> bool:
        """Whether it is a mixture of experts."""
        text = self.checkpoint.text
        return bool(text.get("enable_moe_block") or text.get("num_experts"))

    def is_quantised(self, tensor: str) -> bool:
        """Whether a tensor is a weight that is quantised, by every scheme."""
        return is_quantised(tensor, self.checkpoint.num_kv_cache_layers)

    def in_decoder(self, tensor: str) -> str | None:
        """The name, from "layers" on, of a tensor that holds matrices of the decoder, or None."""
        if self.is_quantised(tensor):
            return decoder_module(module_of(tensor))
        return experts_tensor(tensor)


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
    shards = {file: read_header(directory / file) for file in _weight_files(directory)}
    source = Source(name, commit, directory, checkpoint, shards)
    _check_index(source)
    _check_shapes(source)
    return source


def _find(name: str, revision: str | None, say: Callable[[str], None]) -> tuple[Path, str | None]:
    """The directory of a checkpoint, and the commit where it is a repository's."""
    directory = Path(name).expanduser()
    is_path = directory.exists() or looks_like_path(name)
    if revision and (is_path or name == embedded.MODEL_ID):
        raise QuantizeError(
            f"--revision {revision!r} is one of a repository, and {name!r} is none; leave "
            "--revision out, or name a Hub id."
        )
    if name == embedded.MODEL_ID:
        return embedded.prepare(say=say), None
    if is_path:
        check_is_directory(name, directory)
        return directory.absolute(), None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        at = f" --revision {revision}" if revision else ""
        raise QuantizeError(
            f"{name!r} is neither a directory nor in the Hugging Face cache; fetch it with "
            f"'hf download {name}{at}', or name a directory or {embedded.MODEL_ID}."
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
    """Refuse decoder weights that are not, one by one, those that config.json describes."""
    stored = {
        module: (name, part)
        for parts in source.shards.values()
        for name, part in parts.items()
        if (module := source.in_decoder(name)) is not None
    }
    if not stored:
        raise QuantizeError(
            f"{source.name!r} holds none of a Gemma decoder's weights (layers.0.self_attn.q_proj "
            "and so on); name the whole checkpoint."
        )
    described = _described(source)
    for module, (name, part) in stored.items():
        shape = described.get(module)
        if part.shape != shape or not part.is_float:
            says = f"that it has {list(shape)}" if shape else "nothing of it"
            raise QuantizeError(
                f"Tensor {name!r} of {source.name!r} is {part.dtype} {list(part.shape)}, and its "
                f"config.json says {says}; the files are of different models, fetch the checkpoint "
                "again."
            )
    if missing := [module for module in described if module not in stored]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise QuantizeError(
            f"{source.name!r} holds no weight of {missing[0]!r}{more}, which its config.json "
            "describes; fetch the checkpoint again."
        )


def _described(source: Source) -> dict[str, tuple[int, ...]]:
    """Module of the decoder -> shape of its weight, as it follows from config.json."""
    try:
        tensors, _ = tensors_of(source.checkpoint, None)
    except (LookupError, TypeError, ValueError) as error:
        raise QuantizeError(
            f"The config.json of {source.name!r} does not tell the shapes of a Gemma decoder "
            f"({error!r}); fetch the checkpoint again."
        ) from None
    return {
        module: tensor.shape
        for tensor in tensors
        if (module := source.in_decoder(tensor.name)) is not None
    }
