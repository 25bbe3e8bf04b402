"""
FP8 (E4M3) weights: a scale for each block of 128 x 128, for each output channel, or for the tensor.

Scales and rounding are compressed-tensors' own: scale = largest magnitude / 448.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import (
    calculate_qparams,
    maybe_pad_tensor_for_block_quant,
)

from gemma_serve.errors import QuantizeError
from gemma_serve.quantize.layers import decoder_module, module_of
from gemma_serve.quantize.scheme import Write, compressed_tensors_config
from gemma_serve.quantize.shards import Part, Stored

BLOCK = 128
_FP8 = "F8_E4M3"
_KEYS = ".k_proj.weight"
# vLLM puts these side by side in one matrix, where a block must not reach into the next one.
_MERGED = (".q_proj", ".k_proj", ".v_proj", ".gate_proj", ".up_proj")


class BlockFp8:
    """
    A scale for each block of 128 x 128; activations are quantised by the kernel, if at all.

    In the form that DeepSeek-V3 brought (quant_method fp8, weight_scale_inv), the one that vLLM
    runs on CPU too: its AMX kernel multiplies bf16 activations with it.
    """

    splits_experts = False

    def __init__(self) -> None:
        self._scheme = preset_name_to_scheme("FP8_BLOCK", ["Linear"])

    def parts(self, name: str, weight: Part) -> dict[str, Part]:
        """The weight in FP8 and a float32 scale for each block, the last ones smaller."""
        rows, columns = weight.shape
        if module_of(name).endswith(_MERGED) and rows % BLOCK:
            raise QuantizeError(
                f"Weight {name!r} has {rows} rows, which blocks of {BLOCK} do not divide, and vLLM "
                "joins it with others; use --scheme fp8-dynamic."
            )
        scales = (_blocks(rows), _blocks(columns))
        return {name: Part(_FP8, weight.shape), f"{name}_scale_inv": Part("F32", scales)}

    def convert(self, weight: Stored, write: Write) -> Mapping[str, Any]:
        """Quantise block by block."""
        args = self._scheme.weights
        for row, stored in weight.slices():
            values = stored.float()
            padded = maybe_pad_tensor_for_block_quant(values, (BLOCK, BLOCK))
            rows, columns = padded.shape
            blocks = padded.view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
            scale = _scale(blocks.amin((1, 3)), blocks.amax((1, 3)), args)
            write(weight.name, row, _quantised(values, scale, args))
            write(f"{weight.name}_scale_inv", row // BLOCK, scale)
        return {}

    def quantization_config(self, kept: Sequence[str]) -> dict[str, Any]:
        """As vLLM's Fp8Config and transformers' FineGrainedFP8Config read it."""
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
            "modules_to_not_convert": list(kept),
        }


class ChannelFp8:
    """A scale for each output channel; activations are quantised token by token at run time."""

    splits_experts = True

    def __init__(self) -> None:
        self._scheme = preset_name_to_scheme("FP8_DYNAMIC", ["Linear"])

    def parts(self, name: str, weight: Part) -> dict[str, Part]:
        """The weight in FP8 and a float32 scale for each row."""
        scale = Part("F32", (weight.shape[0], 1))
        return {name: Part(_FP8, weight.shape), f"{name}_scale": scale}

    def convert(self, weight: Stored, write: Write) -> Mapping[str, Any]:
        """Quantise row by row."""
        args = self._scheme.weights
        for row, stored in weight.slices():
            values = stored.float()
            scale = _scale(values.amin(1, keepdim=True), values.amax(1, keepdim=True), args)
            write(weight.name, row, _quantised(values, scale, args))
            write(f"{weight.name}_scale", row, scale)
        return {}

    def quantization_config(self, kept: Sequence[str]) -> dict[str, Any]:
        """compressed-tensors' FP8_DYNAMIC."""
        return compressed_tensors_config(self._scheme, CompressionFormat.float_quantized, kept)


class TensorFp8:
    """
    One scale a tensor, and one for the activations that enter it, known before.

    Args:
        input_peaks: Decoder module -> largest magnitude of what enters it, from calibration.
    """

    splits_experts = False

    def __init__(self, input_peaks: Mapping[str, float]) -> None:
        self._scheme = preset_name_to_scheme("FP8", ["Linear"])
        self._peaks = input_peaks

    def parts(self, name: str, weight: Part) -> dict[str, Part]:
        """The weight in FP8 and two float32 scales."""
        one = Part("F32", (1,))
        scales = {f"{name}_scale": one, f"{module_of(name)}.input_scale": one}
        return {name: Part(_FP8, weight.shape)} | scales

    def convert(self, weight: Stored, write: Write) -> Mapping[str, Any]:
        """Read the weight twice: for its largest magnitude, and to quantise it."""
        args = self._scheme.weights
        peak = torch.tensor(0.0)
        for _, stored in weight.slices():
            peak = torch.maximum(peak, stored.float().abs().max())
        scale = _scale(-peak, peak, args)
        for row, stored in weight.slices():
            write(weight.name, row, _quantised(stored.float(), scale, args))
        write(f"{weight.name}_scale", 0, scale)
        input_peak = torch.tensor(self._peaks[str(decoder_module(module_of(weight.name)))])
        input_scale = _scale(-input_peak, input_peak, self._scheme.input_activations)
        write(f"{module_of(weight.name)}.input_scale", 0, input_scale)
        return {}

    def quantization_config(self, kept: Sequence[str]) -> dict[str, Any]:
        """compressed-tensors' FP8."""
        return compressed_tensors_config(self._scheme, CompressionFormat.float_quantized, kept)


class KvCacheFp8:
    """
    Weights as they are, and for each layer the scales of an FP8 KV cache.

    Args:
        peaks: "layers.3.self_attn.k" -> largest magnitude of the keys in the cache, ".v" of the
            values, from calibration.
    """

    splits_experts = False

    def __init__(self, peaks: Mapping[str, float]) -> None:
        self._args = QuantizationArgs(num_bits=8, type="float", strategy="tensor", symmetric=True)
        self._peaks = peaks

    def parts(self, name: str, weight: Part) -> dict[str, Part]:
        """The weight itself, and beside a k_proj the scales of its layer's keys and values."""
        one = Part("F32", (1,))
        return {name: weight} | {scale: one for scale, _ in self._scales_of(name)}

    def convert(self, weight: Stored, write: Write) -> Mapping[str, Any]:
        """Copy the weight."""
        for row, stored in weight.slices():
            write(weight.name, row, stored)
        for name, peak in self._scales_of(weight.name):
            write(name, 0, _scale(torch.tensor(-peak), torch.tensor(peak), self._args))
        return {}

    def _scales_of(self, weight: str) -> list[tuple[str, float]]:
        """The scales that are stored beside a layer's k_proj, and the magnitudes they are for."""
        if not weight.endswith(_KEYS):
            return []
        attention = weight.removesuffix(_KEYS)
        layer = str(decoder_module(module_of(weight))).removesuffix(".k_proj")
        return [
            (f"{attention}.{letter}_scale", self._peaks[f"{layer}.{letter}"])
            for letter in ("k", "v")
        ]

    def quantization_config(self, kept: Sequence[str]) -> dict[str, Any]:
        """compressed-tensors' kv_cache_scheme, without weights."""
        return compressed_tensors_config(None, CompressionFormat.dense, kept, self._args)


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _scale(low: torch.Tensor, high: torch.Tensor, args: QuantizationArgs | None) -> torch.Tensor:
    scale: torch.Tensor = calculate_qparams(low, high, args)[0]
    return scale


def _quantised(
    values: torch.Tensor, scale: torch.Tensor, args: QuantizationArgs | None
) -> torch.Tensor:
    stored: torch.Tensor = quantize(values, scale, None, args, dtype=torch.float8_e4m3fn)
    return stored
