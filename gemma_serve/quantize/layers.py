"""
Which tensors of a Gemma are quantised: the matrices of the text decoder, and nothing else.

All else stays as it is stored, for quality or because no kernel takes it: token embeddings and
lm_head, the embeddings for each layer with their gates and projections (3n, 4 E), norms, AltUp's
4 x 4 matrices and LAuReL's of low rank (3n), routers, and the towers of images and audio. So do
keys and values of layers that share the cache of others (3n, 4 E): checkpoints store them, and
neither transformers nor vLLM builds them, so that nothing could be calibrated or served. The
experts of a mixture (4 26B-A4B) are matrices of the decoder too, stored all in one tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_WEIGHT = ".weight"
_DECODER_MATRIX = re.compile(
    r"(?:^|\.)(layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj))$"
)
_EXPERTS = re.compile(r"(?:^|\.)(layers\.\d+\.experts\.(?:gate_up_proj|down_proj))$")
_KEYS_OR_VALUES = re.compile(r"^layers\.(\d+)\.self_attn\.[kv]_proj$")
_OF_A_TOWER = re.compile(r"(?:vision|audio)_(?:tower|embedder|model)\.")
# vLLM has it as a module of its own where a checkpoint ties it to the embeddings and stores none.
_LM_HEAD = "lm_head"


def decoder_module(module: str) -> str | None:
    """
    The part of a module's name that every checkpoint and every library spells alike.

    "language_model.model.layers.3.mlp.up_proj" gives "layers.3.mlp.up_proj"; None for a module
    that is no matrix of the decoder.
    """
    found = _DECODER_MATRIX.search(module)
    return found[1] if found and not _OF_A_TOWER.search(module) else None


def experts_tensor(tensor: str) -> str | None:
    """
    The same part of the name of a tensor that holds all experts of a layer; None for any other.

    "model.layers.3.experts.down_proj" gives "layers.3.experts.down_proj".
    """
    found = _EXPERTS.search(tensor)
    return found[1] if found else None


def is_quantised(tensor: str, num_cache_layers: float = math.inf) -> bool:
    """
    Whether a tensor of a checkpoint is a weight that is quantised, by every scheme.

    Tensors of experts are not: what a scheme does with them is its own (`experts_tensor`).

    Args:
        num_cache_layers: Layers with keys and values of their own, the first ones; all by default.
    """
    module = decoder_module(module_of(tensor)) if tensor.endswith(_WEIGHT) else None
    if module is None:
        return False
    of_cache = _KEYS_OR_VALUES.match(module)
    return of_cache is None or int(of_cache[1]) < num_cache_layers


def module_of(tensor: str) -> str:
    """The module that a weight belongs to."""
    return tensor.removesuffix(_WEIGHT)


def kept_modules(matrices: Iterable[str], num_cache_layers: float = math.inf) -> list[str]:
    """
    Modules that stay as they are, by name, for a checkpoint's quantization_config.

    Args:
        matrices: The checkpoint's tensors of two dimensions. Named one by one: vLLM matches the
            ignored layers of block FP8 exactly.
        num_cache_layers: As of `is_quantised`.
    """
    kept = [name for name in matrices if not is_quantised(name, num_cache_layers)]
    return sorted({module_of(name) for name in kept if name.endswith(_WEIGHT)} | {_LM_HEAD})
