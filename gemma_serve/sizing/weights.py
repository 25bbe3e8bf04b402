"""Bytes of weights on one device, as they are served: by part, precision and parallel size."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from gemma_serve.gemma.family import Generation
from gemma_serve.sizing.tensors import Stored, Tensor, TensorSource

if TYPE_CHECKING:
    from gemma_serve.gemma.architecture import Checkpoint
    from gemma_serve.sizing.deployment import Deployment

Part = Literal["embeddings", "per-layer embeddings", "linear layers", "experts", "towers", "other"]
PARTS: tuple[Part, ...] = (
    "embeddings",
    "per-layer embeddings",
    "linear layers",
    "experts",
    "towers",
    "other",
)
_LAYER = re.compile(r"\blayers\.(\d+)\.")
_TOWERS = ("tower", "embed_vision", "embed_audio", "vision_embedder", "multi_modal_projector")
# What vLLM keeps whole on each worker, beside the norms. Source: ReplicatedLinear in vLLM 0.32
# model_executor/models/gemma3n.py and gemma4.py.
_REPLICATED = ("per_layer_input_gate", "per_layer_projection", "router", "altup", "layer_scalar")
_SCALE_BYTES = 4  # of each row, or of a tensor
_FP8_BITS = 8
_ONLINE_BITS = {"fp8": 8, "fp8_per_tensor": 8, "fp8_per_channel": 8, "fp8_per_block": 8}
_ONLINE_BITS |= {"mxfp8": 8, "bitsandbytes": 4}


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint as one deployment serves them."""

    by_part: Mapping[Part, int]  # bytes on the fullest device
    total_bytes: int  # of one replica, once
    read_bytes: int  # that a decode step of one sequence reads on one device
    expert_bytes: int  # of all experts on one device; `read_bytes` holds the active ones
    active_parameters: int  # that one token multiplies with, over all devices
    head_parameters: int  # of those, the head's: of a prompt, the last token's alone
    fp8_share: float  # of the active ones, in FP8
    source: TensorSource
    towers_are_a_total: bool  # their size is what the packaged facts leave, rounded

    @property
    def device_bytes(self) -> int:
        """Bytes on the fullest device."""
        return sum(self.by_part.values())


def weights_of(checkpoint: Checkpoint, deployment: Deployment, stored: Stored) -> Weights:
    """
    Count the weights.

    Of files the count is exact: what vLLM drops (a tied head, keys and values of layers that share
    others' cache, towers of a text-only profile) is left out, and what it keeps on each device is
    counted on each.
    """
    tensors, source = stored
    served = [_Served(tensor, checkpoint, deployment) for tensor in tensors]
    served = [tensor for tensor in served if tensor.is_loaded]
    towers = 0
    if source == "config.json" and checkpoint.is_multimodal and not deployment.text_only:
        language = sum(tensor.stored_bytes for tensor in tensors)
        towers = max((checkpoint.weight_bytes or language) - language, 0)
    by_part: dict[Part, int] = defaultdict(int)
    for tensor in served:
        by_part[tensor.part] += tensor.device_bytes
    by_part["towers"] += towers
    matrices = [tensor for tensor in served if tensor.is_multiplied]
    active = sum(tensor.active_elements for tensor in matrices)
    head = sum(tensor.active_elements for tensor in matrices if tensor.part == "embeddings")
    in_fp8 = sum(tensor.active_elements for tensor in matrices if tensor.is_fp8)
    return Weights(
        by_part={part: by_part[part] for part in PARTS if by_part[part]},
        total_bytes=sum(tensor.total_bytes for tensor in served) + towers,
        read_bytes=round(sum(tensor.device_bytes * tensor.active_share for tensor in matrices)),
        expert_bytes=by_part["experts"],
        active_parameters=active,
        head_parameters=head,
        fp8_share=in_fp8 / active if active else 0.0,
        source=source,
        towers_are_a_total=bool(towers),
    )


@dataclass(frozen=True)
class _Served:
    """One tensor, and what the engine makes of it."""

    tensor: Tensor
    checkpoint: Checkpoint
    deployment: Deployment

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def layer(self) -> int | None:
        """Of the language model."""
        found = None if self.part == "towers" else _LAYER.search(self.name)
        return int(found[1]) if found else None

    @property
    def part(self) -> Part:
        name = self.name
        if any(word in name for word in _TOWERS):
            return "towers"
        if "embed_tokens_per_layer" in name:
            return "per-layer embeddings"
        if "embed_tokens" in name or "lm_head" in name:
            return "embeddings"
        if "experts" in name:
            return "experts"
        return "linear layers" if len(self.tensor.shape) > 1 else "other"

    @property
    def is_loaded(self) -> bool:
        if self.part == "towers":
            return not self._tower_is_left_out
        if "lm_head" in self.name:
            return not self.checkpoint.text.get("tie_word_embeddings", True)
        shares_cache = self.layer is not None and self.layer >= self.checkpoint.num_kv_cache_layers
        of_cache = ("k_proj", "v_proj", "k_norm", "v_norm")
        return not (shares_cache and any(word in self.name for word in of_cache))

    @property
    def _tower_is_left_out(self) -> bool:
        # Requests carry text and images only, so that vLLM never loads what hears.
        return self.deployment.text_only or "audio" in self.name

    # --- precision

    @property
    def is_fp8(self) -> bool:
        """Whether its elements are FP8 as they are served."""
        if self._is_quantised_online:
            return _ONLINE_BITS[self.deployment.quantization or ""] == _FP8_BITS
        return not self.tensor.is_float and self.tensor.bits == _FP8_BITS

    @property
    def _is_quantised_online(self) -> bool:
        if self.deployment.quantization not in _ONLINE_BITS or not self.tensor.is_float:
            return False
        is_layer = self.part in ("linear layers", "experts", "towers")
        is_matrix = len(self.tensor.shape) in (2, 3) and is_layer
        left_alone = any(word in self.name for word in ("router", "embed", "norm"))
        kept = any(fnmatchcase(self.name, pattern) for pattern in self.deployment.kept_in_dtype)
        is_linear = self.name.endswith(".weight") or self.part == "experts"
        return is_matrix and is_linear and not left_alone and not kept

    @property
    def total_bytes(self) -> int:
        """Bytes of one copy."""
        size = self.tensor.num_elements
        if self._is_quantised_online:
            bits = _ONLINE_BITS[self.deployment.quantization or ""]
            rows = size // self.tensor.shape[-1]
            return size * bits // 8 + rows * _SCALE_BYTES
        if self.tensor.is_float and self.tensor.bits >= 16 and not self._is_scale:
            return size * self.deployment.dtype_bytes
        return self.tensor.stored_bytes

    @property
    def _is_scale(self) -> bool:
        return "scale" in self.name.rpartition(".")[2]

    # --- devices

    @property
    def device_bytes(self) -> int:
        """Bytes on one device; of a pipeline's, on the one with the embeddings."""
        stages = self.deployment.pipeline_parallel_size
        layers = self.checkpoint.num_hidden_layers or 1
        share = -(-layers // stages) / layers if self.layer is not None else 1.0
        copies = 2 if self._is_key_and_value else 1
        return round(self.total_bytes * copies * share / self._shards)

    @property
    def _is_key_and_value(self) -> bool:
        """Keys that are the values too (Gemma 4's global layers), which vLLM keeps twice."""
        if self.layer is None or "k_proj" not in self.name:
            return False
        is_global = self.checkpoint.attention_of(self.layer).sliding_window is None
        is_4 = self.checkpoint.generation == Generation.GEMMA_4
        return is_4 and is_global and bool(self.checkpoint.text.get("attention_k_eq_v"))

    @property
    def _shards(self) -> int:
        size = self.deployment.tensor_parallel_size
        if self.part == "towers":
            return size if self.checkpoint.generation == Generation.GEMMA_3 else 1
        if self.part == "other" or any(word in self.name for word in _REPLICATED):
            return 1
        if self.layer is not None and ("k_proj" in self.name or "v_proj" in self.name):
            return min(size, self.checkpoint.attention_of(self.layer).num_key_value_heads)
        return size

    # --- what a token needs of it

    @property
    def is_multiplied(self) -> bool:
        """Whether each token multiplies with it: the layers, and the tied embeddings as head."""
        if self.part in ("towers", "per-layer embeddings", "other"):
            return False
        return len(self.tensor.shape) > 1 and not self._is_scale

    @property
    def active_share(self) -> float:
        """The share of it that one token uses; of experts a few."""
        text = self.checkpoint.text
        if self.part != "experts" or not text.get("num_experts"):
            return 1.0
        return float((text.get("top_k_experts") or 1) / text["num_experts"])

    @property
    def active_elements(self) -> int:
        return round(self.tensor.num_values * self.active_share)
