"""
Which tensors of a Gemma are quantised: the matrices of the text decoder, and nothing else.

All else stays as it is stored, for quality or because no kernel takes it: token embeddings and
lm_head, the embeddings for each layer with their gates and projections (3n, 4 E), norms, AltUp's
4 x 4 matrices and LAuReL's of low rank (3n), routers, and the towers of images and audio.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WEIGHT = ".weight"
_DECODER_MATRIX = re.compile(
    r"(?:^|\.)(layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj))$"
)
_OF_A_TOWER = re.compile(r"(?:vision|audio)_(?:tower|embedder|model)\.")
# vLLM has it as a module of its own where a checkpoint ties it to the embeddings and stores none.
_LM_HEAD = "lm_head"


def decoder_module(module: str) -> str | None:
    """
    The part of a module's name that every checkpoint and every library spells alike.

    "language_model.model.layers.3.mlp.up_proj" gives "layers.3.mlp.up_proj"; None for a module
    that is not quantised.
    """
    found = _DECODER_MATRIX.search(module)
    return found[1] if found and not _OF_A_TOWER.search(module) else None


def is_quantised(tensor: str) -> bool:
    """Whether a tensor of a checkpoint is a weight that is quantised."""
    return tensor.endswith(_WEIGHT) and decoder_module(module_of(tensor)) is not None


def module_of(tensor: str) -> str:
    """The module that a weight belongs to."""
    return tensor.removesuffix(_WEIGHT)


def kept_modules(matrices: Iterable[str]) -> list[str]:
    """
    Modules that stay as they are, by name, for a checkpoint's quantization_config.

    Args:
        matrices: The checkpoint's tensors of two dimensions. Named one by one: vLLM matches the
            ignored layers of block FP8 exactly.
    """
    kept = {module_of(name) for name in matrices if name.endswith(_WEIGHT)}
    return sorted({module for module in kept if decoder_module(module) is None} | {_LM_HEAD})
