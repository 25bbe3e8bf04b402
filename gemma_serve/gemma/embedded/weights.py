"""
From the tensors of a llama.cpp file to those of a Hugging Face checkpoint in bfloat16.

Works a slice at a time, without torch: the largest tensor is 671 MB in float32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gguf import GGUFReader

# llama.cpp's name -> Hugging Face's name.
OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
SLICE_ROWS = 16_384


def open_gguf(path: Path) -> GGUFReader:
    """Read the file's index and vocabulary (9 s: it is done in Python); tensors stay on disk."""
    from gguf import GGUFReader

    return GGUFReader(path)


def hf_name(name: str) -> str:
    """
    Hugging Face's name of a llama.cpp tensor of Gemma 3.

    Raises:
        KeyError: Gemma 3 has no such tensor.
    """
    if layer := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{layer[1]}.{LAYER_NAMES[layer[2]]}.weight"
    return f"{OUTER_NAMES[name.removesuffix('.weight')]}.weight"


def write(reader: GGUFReader, path: Path) -> None:
    """
    Write every tensor as bfloat16 safetensors.

    Source of the format: https://huggingface.co/docs/safetensors (8 bytes little-endian length of
    the header, a JSON header, the data).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in reader.tensors:
        start, end = end, end + 2 * int(tensor.n_elements)
        # GGUF counts dimensions from the fastest.
        shape = [int(size) for size in reversed(tensor.shape)]
        header[hf_name(tensor.name)] = {
            "dtype": "BF16",
            "shape": shape,
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # the data starts aligned
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in reader.tensors:
            for values in _dequantised(tensor):
                file.write(to_bfloat16(values).tobytes())


def _dequantised(tensor: Any) -> Iterator[npt.NDArray[np.float32]]:
    from gguf.quants import dequantize

    # llama.cpp multiplies by the stored weight, Hugging Face's Gemma by 1 + the stored weight.
    offset = np.float32(1 if tensor.name.endswith("norm.weight") else 0)
    for start in range(0, len(tensor.data), SLICE_ROWS):
        yield dequantize(tensor.data[start : start + SLICE_ROWS], tensor.tensor_type) - offset


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Bit patterns of finite float32 values in bfloat16, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded: npt.NDArray[np.uint32] = bits + (0x7FFF + ((bits >> 16) & 1))
    return (rounded >> 16).astype("<u2")
