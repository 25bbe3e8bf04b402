"""
The tensors of a checkpoint by name, shape and type.

From the headers of its files, here or on the Hub, else from its config.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gemma_serve.errors import ModelError
from gemma_serve.gemma.family import Generation

if TYPE_CHECKING:
    from gemma_serve.gemma.architecture import Checkpoint

TensorSource = Literal["safetensors headers", "config.json"]
Stored = tuple[list["Tensor"], TensorSource]

# Of safetensors' types, bits an element.
_BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "I8": 8}
_BITS |= {"F8_E5M2": 8, "U8": 8, "BOOL": 8, "U16": 16, "I16": 16, "U32": 32, "U64": 64, "F4": 4}
_HEADER_LENGTH_BYTES = 8
# LAuReL and AltUp of 3n. Source: Gemma3nTextConfig, transformers 5.19.
_LAUREL_RANK, _ALTUP_INPUTS = 64, 4


@dataclass(frozen=True)
class Tensor:
    """One stored tensor."""

    name: str
    shape: tuple[int, ...]
    bits: int = 16  # an element
    is_float: bool = True

    @property
    def num_elements(self) -> int:
        """Elements of all dimensions, as they are stored."""
        return math.prod(self.shape)

    @property
    def num_values(self) -> int:
        """Values of the model; compressed-tensors packs eight of four bits in an I32."""
        return self.num_elements * (8 if self.name.endswith(".weight_packed") else 1)

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file."""
        return self.num_elements * self.bits // 8


def tensors_of(checkpoint: Checkpoint, directory: Path | None) -> Stored:
    """
    Every tensor of a checkpoint, with what told us.

    Args:
        directory: Where its files are, if they are on this machine.
    """
    if directory is not None and (found := _of_files(directory)):
        return found, "safetensors headers"
    return list(_of_config(checkpoint)), "config.json"


def _of_files(directory: Path) -> list[Tensor]:
    """From the headers of all shards; none where one is missing, as in a cache half filled."""
    files = sorted(directory.glob("*.safetensors"))
    index = directory / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not names <= {file.name for file in files}:
            return []
    return [tensor for file in files for tensor in _of_header(file)]


def _of_header(file: Path) -> Iterator[Tensor]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER_LENGTH_BYTES), "little")
        header: Mapping[str, Any] = json.loads(stream.read(length))
    for name, spec in header.items():
        if name != "__metadata__":
            yield _tensor(name, spec["shape"], spec["dtype"])


def _tensor(name: str, shape: Sequence[int], kind: str) -> Tensor:
    is_float = kind.startswith(("F", "BF")) and not kind.startswith(("F8", "F4"))
    return Tensor(name, tuple(shape), _BITS.get(kind, 16), is_float)


def fetch_tensors(model: str, revision: str | None) -> Stored:
    """
    From the headers of the weights on the Hugging Face Hub: some kilobytes of each shard.

    Raises:
        ModelError: They can't be had.
    """
    from huggingface_hub import get_safetensors_metadata

    try:
        found = get_safetensors_metadata(model, revision=revision)
    except Exception as error:  # the network may fail in any way; the user gets one line
        raise ModelError(
            f"The headers of the weights of {model!r} can't be fetched from the Hugging Face Hub "
            f"({type(error).__name__}); check the name and the network, or leave --fetch out."
        ) from error
    files = found.files_metadata.values()
    tensors = [_tensor(n, info.shape, info.dtype) for f in files for n, info in f.tensors.items()]
    return tensors, "safetensors headers"


def _of_config(checkpoint: Checkpoint) -> Iterator[Tensor]:
    """The language model, tensor by tensor; of towers nothing is known but their total."""
    bits = _bits_of_layers(checkpoint)
    for tensor in _in_bf16(checkpoint):
        is_matrix = ".layers." in tensor.name and len(tensor.shape) > 1
        if bits == _BITS["BF16"] or not is_matrix:
            yield tensor
        else:
            yield Tensor(tensor.name, tensor.shape, bits, is_float=False)


def _bits_of_layers(checkpoint: Checkpoint) -> int:
    if checkpoint.is_fp8:
        return 8
    packed = checkpoint.is_int4 or checkpoint.quant_method in ("gguf", "bitsandbytes")
    return 4 if packed else 16


def _in_bf16(checkpoint: Checkpoint) -> Iterator[Tensor]:
    text = checkpoint.text
    hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
    yield Tensor("model.embed_tokens.weight", (int(text["vocab_size"]), hidden))
    yield Tensor("model.norm.weight", (hidden,))
    if per_layer := int(text.get("hidden_size_per_layer_input") or 0):
        rows = int(text.get("vocab_size_per_layer_input") or text["vocab_size"])
        yield Tensor("model.embed_tokens_per_layer.weight", (rows, layers * per_layer))
        yield Tensor("model.per_layer_model_projection.weight", (layers * per_layer, hidden))
    if checkpoint.generation == Generation.GEMMA_3N:
        for name in ("altup_projections", "altup_unembed_projections"):
            yield Tensor(f"model.{name}.weight", (_ALTUP_INPUTS - 1, hidden, hidden))
    for layer in range(layers):
        for name, shape in _of_layer(checkpoint, layer):
            yield Tensor(f"model.layers.{layer}.{name}", shape)


def _of_layer(checkpoint: Checkpoint, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    text, attention = checkpoint.text, checkpoint.attention_of(layer)
    hidden, head_dim = int(text["hidden_size"]), attention.head_dim
    q_rows = int(text["num_attention_heads"]) * head_dim
    kv_rows = attention.num_key_value_heads * head_dim
    is_global_of_4 = checkpoint.generation == Generation.GEMMA_4 and not attention.sliding_window
    yield "self_attn.q_proj.weight", (q_rows, hidden)
    if layer < checkpoint.num_kv_cache_layers:
        yield "self_attn.k_proj.weight", (kv_rows, hidden)
        if not (is_global_of_4 and text.get("attention_k_eq_v")):
            yield "self_attn.v_proj.weight", (kv_rows, hidden)
    yield "self_attn.o_proj.weight", (hidden, q_rows)
    ffn = _intermediate_size(checkpoint, layer)
    yield "mlp.gate_proj.weight", (ffn, hidden)
    yield "mlp.up_proj.weight", (ffn, hidden)
    yield "mlp.down_proj.weight", (hidden, ffn)
    yield "norms.weight", (4 * hidden + 2 * head_dim,)
    if experts := int(text.get("num_experts") or 0):
        of_one = int(text["moe_intermediate_size"])
        yield "router.proj.weight", (experts, hidden)
        yield "experts.gate_up_proj", (experts, 2 * of_one, hidden)
        yield "experts.down_proj", (experts, hidden, of_one)
    if per_layer := int(text.get("hidden_size_per_layer_input") or 0):
        yield "per_layer_input_gate.weight", (per_layer, hidden)
        yield "per_layer_projection.weight", (hidden, per_layer)
    if checkpoint.generation == Generation.GEMMA_3N:
        rank = int(text.get("laurel_rank") or _LAUREL_RANK)
        yield "laurel.linear_left.weight", (rank, hidden)
        yield "laurel.linear_right.weight", (hidden, rank)


def _intermediate_size(checkpoint: Checkpoint, layer: int) -> int:
    """Of one layer's MLP; 3n lists it, and the layers of 4 E2B that share a cache have twice."""
    size = checkpoint.text["intermediate_size"]
    size = size[layer] if isinstance(size, list) else size
    shares = 0 < checkpoint.num_kv_cache_layers <= layer
    return int(size) * (2 if shares and checkpoint.text.get("use_double_wide_mlp") else 1)
